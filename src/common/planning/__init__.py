"""What a study would run, why, and what it will take, before anything starts (see `rehearsal`)."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.ledger import last, write_plan
from common.planning.reasons import Changes
from common.project import ROOT
from common.stage import fingerprint

NOTEBOOK_SECONDS = 30  # what a notebook takes that finds every run, as measured for the README
NOTEBOOK_MB = 700  # of the notebook itself, beside its workers


@dataclass(frozen=True)
class Todo:
    """Runs of a sweep that are to be done for the same reason."""

    sweep: str
    why: str
    seconds: list[float | None]
    memory_mb: list[int | None]


def plan(study: str, scale: str, workers: int, by_then: set[str]) -> str:
    """The plan of a study as text; it is kept, to be held against what the study takes.

    `by_then`: runs that studies planned before will have done, to which those of this one are added.
    """
    account = _rehearsed(study, scale)
    digests = fingerprint(study, scale)
    changes = Changes(study, scale, digests)
    runs = account["runs"]
    there = {key for key, run in runs.items() if run["git"] or run["cache"]} | by_then
    todo = {key: run for key, run in runs.items() if key not in there or key in account["files_needed"]}
    fresh = {key: run for key, run in runs.items() if not run["cache"] and key not in by_then}
    groups = _groups(todo, changes, there)
    again = changes.of_notebook()
    minutes = _minutes(groups, workers) if again or groups else 0.0
    minutes_fresh = _minutes(_groups(fresh, changes, there), workers)
    write_plan(study, scale, digests, minutes, minutes_fresh)
    by_then |= todo.keys()

    cached, rows = sum(run["cache"] for run in runs.values()), sum(run["git"] for run in runs.values())
    held = f"{len(runs)} runs, {cached} in the cache, {rows} in git"
    if not again and not todo:
        lines = [f"{study} at {scale}: nothing to do; {held}"]
    else:
        does = f"the notebook runs again: {'; '.join(again)}" if again else "the notebook runs"
        lines = [f"{study} at {scale}: {does}; {held}"]
        lines += [f"  {len(todo)} to do, {_told(groups, minutes, workers)}"]
        lines += _table(groups, workers)
        lines += [f"  times of {_rest(todo)}"] if todo else []
    if account["ended"]:
        after = f" (last time: {', '.join(account['after'])})" if account["after"] else ""
        lines.append(f"  more may follow{after}, which depends on these runs: {account['ended']}")
    lines.append(f"  `make figures`, for which no row of git counts: {len(fresh)} to do, about {minutes_fresh:.1f} min")
    lines += [f"  {told}" for told in [last(study, scale)] if told]
    return "\n".join(lines)


def _rehearsed(study: str, scale: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "account.json"
        command = [sys.executable, "-m", "common.planning.rehearsal", study, scale, str(path)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or ["it was killed"]
            raise UserError(f"{study} can't be planned: {said[-1].removeprefix('error: ')}")
        return json.loads(path.read_text())


def _groups(todo: dict[str, dict], changes: Changes, there: set[str]) -> list[Todo]:
    found: dict[tuple[str, str], Todo] = {}
    for key, run in todo.items():
        why = "its files are needed" if key in there and run["git"] else changes.of_run(run, there - todo.keys())
        group = found.setdefault((run["sweep"], why), Todo(run["sweep"], why, [], []))
        group.seconds.append(run["seconds"])
        group.memory_mb.append(run["memory_mb"])
    return list(found.values())


def _minutes(groups: Iterable[Todo], workers: int) -> float:
    """Sweeps follow each other; a sweep is as long as its runs divided by workers, or as its longest."""
    seconds: dict[str, list[float]] = {}
    for group in groups:
        seconds.setdefault(group.sweep, []).extend(value for value in group.seconds if value is not None)
    each = [max(sum(values) / workers, max(values)) for values in seconds.values() if values]
    return (NOTEBOOK_SECONDS + sum(each)) / 60


def _told(groups: list[Todo], minutes: float, workers: int) -> str:
    unknown = sum(value is None for group in groups for value in group.seconds)
    at_once = min(workers, max((len(group.seconds) for group in groups), default=0))
    each = max((value for group in groups for value in group.memory_mb if value is not None), default=0)
    told = f"about {minutes:.1f} min with {workers} workers, {(NOTEBOOK_MB + at_once * each) / 1000:.1f} GB"
    return told + (f", and {unknown} runs of whose like none was ever done" if unknown else "")


def _table(groups: list[Todo], workers: int) -> list[str]:
    rows = [
        (group.sweep, str(len(group.seconds)), f"{_minutes([group], workers) - NOTEBOOK_SECONDS / 60:.1f}", group.why)
        for group in groups
    ]
    rows = [("sweep", "runs", "min", "why"), *rows] if rows else []
    wide = [max((len(row[place]) for row in rows), default=0) for place in range(3)]
    return [f"    {a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d}" for a, b, c, d in rows]


def _rest(todo: dict[str, dict]) -> str:
    here = sum(run["timed_here"] for run in todo.values())
    elsewhere = sum(run["done_before"] and not run["timed_here"] for run in todo.values())
    return f"past runs most like them: {here} by runs here, {elsewhere} by runs that git has the times of"
