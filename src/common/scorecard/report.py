"""Scores as a table on the terminal, and as files."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.errors import UserError
from common.files import digest, write_atomic
from common.scorecard.scores import Scored
from common.tasks.metrics import chance, metrics

MOST_VALUES = 8
"""A group with more values than this is in the files alone."""


def check_out(out: Path | None) -> None:
    """Raise `UserError` where results cannot be written to `out`: a `.json` or `.csv` file, or a folder."""
    if out is None:
        return
    if out.suffix in (".json", ".csv"):
        if out.is_dir():
            raise UserError(f"{out} is a folder, and its name that of a file")
    elif out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, allowed: a folder, or a name that ends in .json or .csv")
    above = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if above.is_file() and above != out.absolute():
        raise UserError(f"{out} cannot be written: {above} is a file")


def print_scores(console: Console, path: Path, scored: Scored) -> None:
    """One table for a task: a line for each metric, and for each value of its smaller groups by the first metric."""
    task, scores = scored.task, scored.scores
    left_out = ", ".join(f"{count} {reason}" for reason, count in scored.left_out.items())
    table = Table(
        title=escape(f"{path.name} · {task.aspect}: {task.measures}"),
        caption=f"left out: {left_out}" if left_out else None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("metric")
    for name in ("estimate", "95% interval", "items"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what it is", overflow="fold")
    own = {metric.name: metric.means for metric in metrics(task)}
    for line in scores[scores["group"] == ""].itertuples():
        table.add_row(line.metric, *_numbers(line), own[line.metric])
    if not math.isnan(guess := chance(task)):
        table.add_row("chance", f"{guess:.3f}", "", "", "a blind pick of one that is offered")
    first = scores[(scores["group"] != "") & (scores["metric"] == next(iter(own)))]
    for group, lines in first.groupby("group", sort=False):
        if 1 < len(lines) <= MOST_VALUES:
            table.add_section()
            for line in lines.itertuples():
                table.add_row(line.metric, *_numbers(line), escape(f"{group}: {line.value}"))
    console.print(table)


def write_scores(out: Path, model: Mapping[str, Any], settings: Mapping[str, Any], scored: Sequence[tuple]) -> None:
    """Write scores of `(path, Scored)`: `out` is a `.csv` or `.json` file, or a folder for both and `answers.jsonl`."""
    table = pd.concat(
        [each.scores.assign(file=str(path), task=each.task.name, aspect=each.task.aspect) for path, each in scored]
    )
    table = table[["file", "task", "aspect", "group", "value", "metric", "estimate", "low", "high", "items"]]
    if out.suffix != ".csv":
        content = {"model": model, **settings, "tasks": [_described(path, each) for path, each in scored]}
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(out if out.suffix == ".json" else out / "scores.json", text)
    if out.suffix != ".json":
        write_atomic(out if out.suffix == ".csv" else out / "scores.csv", table.to_csv(index=False))
    if out.suffix not in (".json", ".csv"):
        lines = [json.dumps(line, ensure_ascii=False) for path, each in scored for line in _answers(path, each)]
        write_atomic(out / "answers.jsonl", "\n".join(lines) + "\n")


def _numbers(line: Any) -> tuple[str, str, str]:
    if math.isnan(line.estimate):
        return "–", "–", str(line.items)
    interval = "–" if math.isnan(line.low) else f"{line.low:.3f} to {line.high:.3f}"
    return f"{line.estimate:.3f}", interval, str(line.items)


def _described(path: Path, scored: Scored) -> dict[str, Any]:
    task = scored.task
    scores = scored.scores.astype(object).where(scored.scores.notna(), None)
    return {
        "file": str(path),
        "sha256": digest(path),
        "task": task.name,
        "aspect": task.aspect,
        "measures": task.measures,
        "items": len(task.items),
        "left_out": scored.left_out,
        "chance": None if math.isnan(guess := chance(task)) else guess,
        "scores": scores.to_dict("records"),
    }


def _answers(path: Path, scored: Scored) -> list[dict[str, Any]]:
    """Each item with its line in the file and what the model answered, without what does not apply."""
    lines = scored.answered.to_dict("records")
    return [
        {"file": str(path), "line": int(item.row), "prompt": item.prompt, "right": item.right}
        | {name: value for name, value in line.items() if value == value}  # NaN is not
        for item, line in zip(scored.task.items, lines, strict=True)
    ]
