"""A fork beside its parent: what was changed, in parameters and code, and what came of it."""

import json
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path
from typing import TypeVar

import nbformat

from common.errors import UserError
from common.forking import own_modules, parent_of, sources
from common.project import ROOT
from common.scales import section, studies
from common.sweep.records import from_csv

Told = TypeVar("Told")


def compared(new: str, scale: str, root: Path = ROOT) -> str:
    """Parameters, code and results at `scale` of the fork `new` against its parent's, as text."""
    if new not in studies(root):
        raise UserError(f"there is no study {new!r}; allowed: {', '.join(studies(root))}")
    parent = parent_of(new, root)
    parts = {
        f"Parameters, {parent} → {new}, at {scale}": parameters(
            section(scale, parent, root), section(scale, new, root)
        ),
        "Code": code(parent, new, root),
        f"Results, {parent} → {new}": results(root / "results" / scale / parent, root / "results" / scale / new),
    }
    return "\n\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in parts.items())


def parameters(old: object, now: object) -> list[str]:
    """The knobs that differ, a line each, by their dotted names."""
    before, after = dict(flat(old)), dict(flat(now))
    names = dict.fromkeys([*before, *after])
    lines = [
        f"{name}: {_told(before, name)} → {_told(after, name)}"
        for name in names
        if before.get(name, ...) != after.get(name, ...)
    ]
    return lines or ["no difference"]


def flat(value: object, name: str = "") -> list[tuple[str, object]]:
    """Pairs of a dotted name and what stands there that is no dictionary."""
    if not isinstance(value, dict) or not value:
        return [(name, value)]
    return [pair for key, part in value.items() for pair in flat(part, f"{name}.{key}".removeprefix("."))]


def _told(values: dict[str, object], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "not there"


def code(parent: str, new: str, root: Path) -> list[str]:
    """Lines in which notebook, plots and analysis differ from those of a fork that were made now."""
    fresh = sources(parent, new, root)
    lines = []
    for path in [*fresh, *(path for path in own_modules(new, root) if path not in fresh)]:
        old, now = fresh.get(path, ""), path.read_text() if path.is_file() else ""
        if path.suffix == ".ipynb":
            old, now = _cells(old), _cells(now)
        differing = list(unified_diff(old.splitlines(), now.splitlines(), n=1, lineterm=""))[2:]
        lines += [str(path.relative_to(root)), *(f"  {line}" for line in differing)] if differing else []
    return lines or ["no difference"]


def _cells(notebook: str) -> str:
    return "\n\n".join(cell.source for cell in nbformat.reads(notebook, as_version=4).cells)


def results(old: Path, now: Path) -> list[str]:
    """Metrics and verdicts that differ, and how many runs the two share; `UserError` where a file is damaged."""
    for folder in (old, now):
        if not (folder / "claims.json").exists():
            return [
                f"{folder.name} has none at {folder.parent.name}: `dvc repro study@{folder.name}-{folder.parent.name}`"
            ]
    keys = [_told_by(folder / "runs.csv", _keys) for folder in (old, now)]
    lines = [f"runs: {len(keys[0] & keys[1])} shared, {len(keys[1] - keys[0])} new, {len(keys[0] - keys[1])} no more"]
    before, after = (
        _told_by(folder / "metrics.json", _metrics) | _told_by(folder / "claims.json", _claims) for folder in (old, now)
    )
    return lines + parameters(before, after)


def _told_by(path: Path, tell: Callable[[str], Told]) -> Told:
    """What a file of a study's results tells; `UserError` where it is gone or damaged."""
    try:
        return tell(path.read_text())
    except FileNotFoundError:
        what = "is not there"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"is damaged ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
    results, scale, study, name = path.parts[-4:]
    raise UserError(f"{results}/{scale}/{study}/{name} {what}: run `dvc repro study@{study}-{scale}`")


def _keys(runs: str) -> set[str]:
    return {row["key"] for row in from_csv(runs)}


def _metrics(text: str) -> dict[str, object]:
    """The study's few numbers as a reader would say them."""
    return {f"metric {name}": f"{value:.4g}" for name, value in json.loads(text).items()}


def _claims(text: str) -> dict[str, object]:
    """Estimate, interval and verdict of each claim as a reader would say them."""
    numbers = {}
    for name, claim in json.loads(text).items():
        low, high = (f"{end:.4g}" for end in claim["ci"])
        numbers[f"claim {name}"] = f"{claim['verdict']}, {claim['estimate']:.4g} [{low}, {high}]"
    return numbers
