"""What a study would run, why, and what it will take, before anything starts (see `rehearsal`)."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from common.errors import UserError
from common.ledger import last, write_plan
from common.planning.reasons import Changes
from common.project import ROOT
from common.verification.fingerprint import fingerprint

NOTEBOOK_SECONDS = 30  # what a notebook takes that finds every run, as measured for the README
NOTEBOOK_MB = 700  # of the notebook itself, beside its workers


Run = dict[str, object]  # an entry of a rehearsal's account


def plan(study: str, scale: str, workers: int, by_then: set[str]) -> str:
    """The plan of a study as text; it is kept, to be held against what the study takes.

    `by_then`: runs that studies planned before will have done, to which those of this one are added.
    """
    account = _rehearsed(study, scale)
    digests = fingerprint(study, scale)
    changes = Changes(study, scale, digests)
    runs, needed = account["runs"], set(account["files_needed"])
    there = {key for key, run in runs.items() if run["git"] or run["cache"]}
    todo = {key: run for key, run in runs.items() if (key not in there or key in needed) and key not in by_then}
    fresh = [run for key, run in runs.items() if not run["cache"] and key not in by_then]
    again = changes.of_notebook()
    ended = bool(account["ended"])
    minutes = _known(todo.values(), workers, ended) if again or todo else 0.0
    write_plan(study, scale, digests, minutes, _known(fresh, workers, ended))
    by_then |= todo.keys()

    cached, rows = sum(run["cache"] for run in runs.values()), sum(run["git"] for run in runs.values())
    does = f"the notebook runs again: {'; '.join(again)}" if again else "the notebook runs" if todo else "nothing to do"
    lines = [f"{study} at {scale}: {does}; {_at_least(ended)}{len(runs)} runs, {cached} in the cache, {rows} in git"]
    if again or todo:
        lines.append(f"  {_told(todo.values(), workers, ended)}")
    if todo:
        reasons = {key: "its files are needed" if key in needed else changes.of_run(todo[key], there) for key in todo}
        lines += [f"    {line}" for line in _table(todo, reasons, workers)] + [f"  times of {_rest(todo.values())}"]
    if account["absent"]:
        absent = ", ".join(account["absent"])
        lines.append(f"  not on this machine, so that it is not known which runs from it are there: {absent}")
    if account["ended"]:
        after = f" (last time: {', '.join(account['after'])})" if account["after"] else ""
        lines.append(f"  more may follow{after}, which depends on these runs: {account['ended']}")
    lines.append(f"  `make figures`, for which no row of git counts: {_told(fresh, workers, ended)}")
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


def _minutes(runs: Iterable[Run], workers: int) -> float:
    """Of the notebook and its runs: sweeps follow each other, each as long as its runs by workers or its longest."""
    sweeps: dict[str, list[float]] = {}
    for run in runs:
        if run["seconds"] is not None:
            sweeps.setdefault(run["sweep"], []).append(run["seconds"])
    return (NOTEBOOK_SECONDS + sum(max(sum(each) / workers, max(each)) for each in sweeps.values())) / 60


def _known(runs: Collection[Run], workers: int, ended: bool) -> float | None:
    """Minutes to hold against what it will have taken: none where a run is not known, or not how long it takes."""
    return None if ended or _untimed(runs) else _minutes(runs, workers)


def _untimed(runs: Collection[Run]) -> int:
    return sum(run["seconds"] is None for run in runs)


def _at_least(ended: bool) -> str:
    return "at least " if ended else ""


def _told(runs: Collection[Run], workers: int, ended: bool) -> str:
    """How many runs are to do, and what they take; where a rehearsal `ended` early nobody knows that."""
    unknown, todo = _untimed(runs), f"{_at_least(ended)}{len(runs)} to do"
    if ended:
        return f"{todo}, minutes not known"
    if runs and unknown == len(runs):
        return f"{todo}, minutes not known: there is no past run like them"
    each = max((run["memory_mb"] for run in runs if run["memory_mb"] is not None), default=0)
    memory = (NOTEBOOK_MB + min(workers, len(runs)) * each) / 1000
    told = f"{todo}, about {_minutes(runs, workers):.1f} min with {workers} workers, {memory:.1f} GB"
    return told + (f", besides {unknown} of whose like there is no past run" if unknown else "")


def _table(todo: Mapping[str, Run], reasons: Mapping[str, str], workers: int) -> list[str]:
    """A line for each sweep and reason."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for key, run in todo.items():
        groups.setdefault((run["sweep"], reasons[key]), []).append(run)
    rows = [("sweep", "runs", "min", "why")]
    for (sweep, why), runs in groups.items():
        minutes = "?" if _untimed(runs) == len(runs) else f"{_minutes(runs, workers) - NOTEBOOK_SECONDS / 60:.1f}"
        rows.append((sweep, str(len(runs)), minutes, why))
    wide = [max(len(row[place]) for row in rows) for place in range(3)]
    return [f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d}" for a, b, c, d in rows]


def _rest(runs: Collection[Run]) -> str:
    here = sum(run["timed_here"] for run in runs)
    elsewhere = sum(run["done_before"] and not run["timed_here"] for run in runs)
    return f"past runs most like them: {here} by runs here, {elsewhere} by runs that git has the times of"
