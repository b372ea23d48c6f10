"""Runs that keep a data set of preference pairs, for runs that train on it: our own, or others'."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from common.errors import UserError
from common.pairs.own import Making, beavertails_rows, hh_rows, matter, safe_rlhf_rows
from common.pairs.sources import Source, read_pairs
from common.pairs.table import AIMS, write_pairs


def make_pairs(
    data: str, making: dict, *, facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path, keep: Path
) -> dict[str, int]:
    """Make and keep `hh-like` or `beavertails-like`, as files in the originals' schemas and as one table of pairs.

    Metrics: pairs of each aim, the numbers of `read_pairs`, and how many pairs are flipped and weak.
    """
    knobs = Making.model_validate(making)
    paths = {"facts": facts, "unsafe_prompts": unsafe_prompts, "benign_prompts": benign_prompts, "replies": replies}
    tables = {name: pd.read_json(path, lines=True, dtype=False) for name, path in paths.items()}
    source = matter(tables, knobs.facts_per_relation, knobs.characters)
    wrong = {"flipped": 0, "weak": 0}
    if data == "hh-like":
        for aim in AIMS:
            rows, count = hh_rows(source, aim, knobs)
            wrong = {name: number + count[name] for name, number in wrong.items()}
            _write(rows, keep / f"{aim}.jsonl")
        layouts = dict.fromkeys(AIMS, "hh")
    elif data == "beavertails-like":
        _write(beavertails_rows(source, knobs), keep / "harmless.jsonl")
        _write(safe_rlhf_rows(source, knobs), keep / "helpful.jsonl")
        layouts = {"harmless": "beavertails", "helpful": "safe-rlhf"}
    else:
        raise UserError(f"data is {data!r}, allowed: hh-like, beavertails-like")
    sources = [
        Source(layout=layout, aim=aim, place=str(keep), split=aim, malformed_share=0.0)
        for aim, layout in layouts.items()
    ]
    return _keep(data, sources, {str(keep): keep}, keep) | wrong


def fetch_pairs(data: str, sources: list[dict], *, keep: Path, **files: Path) -> dict[str, int]:
    """Keep others' data as a table of pairs; `files` are those whose names `sources` have as their `place`."""
    return _keep(data, [Source.model_validate(source) for source in sources], files, keep)


def _keep(data: str, sources: list[Source], files: Mapping[str, Path], keep: Path) -> dict[str, int]:
    table, count = read_pairs(data, sources, files)
    write_pairs(table, keep)
    return {aim: int((table["aim"] == aim).sum()) for aim in AIMS} | count


def _write(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8", newline="\n")
