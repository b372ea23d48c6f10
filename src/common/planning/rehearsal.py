"""A study's notebook without its runs: which it would ask for, which of them are there, what the others will take.

The notebook's cells are executed in a process of their own in which `sweep` looks runs up and does none. What is not
there yet is stood in for by the past run most like it, so that the notebook goes on to its next sweep: the choices it
makes on the way, of a pilot's best setting say, are those of the past. Nothing is drawn and nothing written but the
account.
"""

import functools
import importlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

import common.study
import common.sweep
from common.cells import carry_out, checked_cells
from common.environment import SCALE, WORK
from common.errors import run_command
from common.files import write_atomic
from common.project import CACHE, ROOT
from common.study import Study
from common.sweep import Kept, Sweep
from common.sweep.records import Cache, Record, code_of, committed_records, read_record


@dataclass(frozen=True)
class Past:
    """A run that was done once, here or where git's rows come from."""

    record: Record
    values: dict[str, str]  # of its parameters, and where git has it of its metrics too, as JSON
    here: bool


class Library:
    """Every run of the past that can be found: in the machine's cache and in the study's rows in git."""

    def __init__(self, committed: Mapping[str, Record], cache: Cache):
        self.committed, self.cache = committed, cache
        self.cached: dict[str, Record] = {}
        for path in sorted(cache.folder.glob("??/*.json")):
            try:
                record = read_record(path)
            except (FileNotFoundError, ValueError, TypeError):  # gone, or damaged: the sweep will do it again
                continue
            if not record.kept or cache.files(record.key).is_dir():
                self.cached[record.key] = record

    def get(self, key: str) -> Record:
        """What a sweep is told of a run: its row in git, its record in the cache, or one without numbers."""
        return self.committed.get(key) or self.cached.get(key) or Record(key, "", {}, {})

    def there(self, key: str) -> bool:
        return key in self.committed or key in self.cached

    def past(self, run: str, sweep: str) -> list[Past]:
        """Past runs of the function `run`, of which git's rows tell no more than the sweep that asked for them."""
        here = [Past(record, _values(record.cell), True) for record in self.cached.values() if record.run == run]
        rows = [record for record in self.committed.values() if record.metrics.get("sweep") == sweep]
        return here + [Past(record, _values(record.metrics), False) for record in rows]


def _values(cell: Mapping[str, object]) -> dict[str, str]:
    return {name: json.dumps(value, sort_keys=True) for name, value in cell.items()}


class Rehearsal:
    """Stands where `common.sweep.sweep` does, and keeps an account of the runs that it is asked for, by key."""

    def __init__(self, library: Library):
        self.library = library
        self.account: dict[str, dict[str, object]] = {}
        self._inputs: dict[str, list[Kept]] = {}

    def __call__(
        self, run: Callable[..., dict], cells: list[dict], *, inputs: Mapping[str, Path | Kept], name: str, **_: object
    ) -> Sweep:
        swept = common.sweep.sweep(run, cells, inputs=inputs, name=name, committed=self.library)
        past = self.library.past(run.__qualname__, name)
        records = [self._told(record, run, name, past, inputs) for record in swept.records]
        return replace(swept, records=records)

    def _told(
        self, record: Record, run: Callable, name: str, past: list[Past], inputs: Mapping[str, Path | Kept]
    ) -> Record:
        values = _values(record.cell)
        most = max((_alike(values, one) for one in past), default=0)
        like = [one for one in past if _alike(values, one) == most]
        # Times of this machine are better than those of another, whatever git has beside.
        timed = [one.record.timing for one in like if one.here] or [one.record.timing for one in like]
        taken = [value for value in record.cell.values() if isinstance(value, str)]
        own = [one for key, one in inputs.items() if isinstance(one, Kept) and (_named(run, key) or key in taken)]
        self._inputs.setdefault(record.key, own)
        self.account.setdefault(
            record.key,
            {
                "sweep": name,
                "run": run.__qualname__,
                "module": run.__module__,
                "git": record.key in self.library.committed,
                "cache": record.key in self.library.cached,
                "differs": [] if not like else [key for key in values if like[0].values.get(key) != values[key]],
                "done_before": bool(like),
                "inputs": [one.job.key for one in own],
                "seconds": _middle(timed, "seconds", statistics.median),
                "memory_mb": _middle(timed, "memory_mb", max),
                "timed_here": any(one.here for one in like),
            },
        )
        if self.library.there(record.key) or not like:
            return record
        model = like[0].record
        metrics = {key: value for key, value in model.metrics.items() if key not in record.cell and key != "sweep"}
        return replace(model, key=record.key, run=run.__qualname__, cell=record.cell, metrics=metrics)

    def files_needed(self) -> set[str]:
        """Runs that git has a row of, whose files runs that are to be done will want: these are done too."""
        waiting = [kept for key, own in self._inputs.items() if not self.library.there(key) for kept in own]
        needed: set[str] = set()
        while waiting:
            kept = waiting.pop()
            if kept.job.key not in self.library.cached and kept.job.key not in needed:
                needed.add(kept.job.key)
                waiting += self._inputs.get(kept.job.key, [])
        return {key for key in needed if self.library.there(key)}


def _named(run: Callable, name: str) -> bool:
    return name in signature(run).parameters


def _alike(values: Mapping[str, str], past: Past) -> int:
    return sum(past.values.get(name) == value for name, value in values.items())


def _middle(timings: list[Mapping[str, object]], name: str, of: Callable[[list], float]) -> float | None:
    known = [timing[name] for timing in timings if isinstance(timing.get(name), int | float)]
    return of(known) if known else None


def rehearse(study: str, scale: str, folder: Path) -> dict[str, object]:
    """The account of a study at a scale: `runs` by key, `files_needed`, and `ended`, what kept it from its end.

    `absent` are given models that are not on this machine: of runs from them it is not known whether they are there.
    What stands in for them is written to `folder`.
    """
    cells, place, parameters = checked_cells(study, scale)
    committed = committed_records(f"results/{scale}/{study}", ROOT)
    rehearsal = Rehearsal(Library(committed, Cache(CACHE / "runs")))
    _without_runs(study, rehearsal, committed)
    absent = _without_fetching(folder)
    ended = None
    try:
        carry_out(study, cells, place, parameters)
    except Exception as error:  # stand-ins don't fit: what comes after is not known
        ended = _in_words(error)
    asked = {run["sweep"] for run in rehearsal.account.values()}
    missed = {str(record.metrics.get("sweep")) for record in committed.values()} - asked
    return {
        "runs": rehearsal.account,
        "files_needed": sorted(rehearsal.files_needed()),
        "absent": sorted(absent),
        "ended": ended if missed or not committed else None,
        "after": sorted(missed) if ended else [],
    }


def _in_words(error: Exception) -> str:
    """Why the notebook went no further, in one line, for who knows no exceptions."""
    said = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if isinstance(error, KeyError):
        return f"nothing is known yet of {said}"
    return said or "nothing fits in their place"


def _without_runs(study: str, rehearsal: Rehearsal, committed: Mapping[str, Record]) -> None:
    """Have this process look runs up where it would do them, and draw nothing."""
    common.study.sweep = rehearsal
    common.study.committed_records = lambda folder, root: committed
    common.sweep.code_of = functools.cache(code_of)
    Study.figure = lambda *figure, **named: None
    try:
        plots = importlib.import_module(f"common.plots.{study}")
    except ModuleNotFoundError:
        return  # a study may draw by itself
    for name, drawn in vars(plots).items():
        if callable(drawn):
            setattr(plots, name, lambda *values, **named: None)


def _without_fetching(folder: Path) -> set[str]:
    """Have this process fetch no given model; the names, as they come up, of those that are not on this machine.

    For each of them a folder stands in, under whose key no run was done: models are inputs of runs alone.
    """
    from common.analysis import judging
    from common.bases import locating
    from common.bases.given import Given

    absent: set[str] = set()
    located, folder_of, check = locating.located, locating.folder_of, judging.check

    def stand_in(name: str) -> Path:
        absent.add(name)
        place = folder / name.replace("/", "--")
        place.mkdir(parents=True, exist_ok=True)
        (place / "name").write_text(name)
        return place

    def given(model: Given, scale: str) -> Path:
        return located(model, scale) if locating.is_here(model.model, scale) else stand_in(model.model)

    def judge(name: str, scale: str) -> Path:
        return folder_of(name, scale) if locating.is_here(name, scale) else stand_in(name)

    locating.located, judging.folder_of = given, judge
    judging.check = lambda judge, place: None if judge.model in absent else check(judge, place)
    return absent


def main(study: str, scale: str, account: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {WORK: folder, SCALE: scale, "MPLBACKEND": "agg"}
        write_atomic(Path(account), json.dumps(rehearse(study, scale, Path(folder) / "absent"), indent=1))


if __name__ == "__main__":
    run_command(lambda: main(*sys.argv[1:]))
