"""A grid of runs becomes a tidy table: cached, resumable, parallel.

A run is a function of plain values that returns plain values: single ones are its metrics, dictionaries of columns
its tables. Its key holds its parameters, the code it imports, the content of its inputs and the library versions, so
what is in the cache under that key is what the run would give.
"""

import os
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from itertools import product
from pathlib import Path

from tqdm import tqdm

from common.environment import DEVICE
from common.errors import UserError
from common.project import CACHE
from common.provenance import NO_GPU
from common.sweep.records import Cache, Record, code_of, content_of, content_of_run, key_of
from common.sweep.workers import Failure, Job, Pool


class SweepError(RuntimeError):
    """Some cells failed; all others are finished and cached. The message lists each failed cell with its reason."""


@dataclass(frozen=True)
class Sweep:
    """Finished runs in the order of the grid, how many had to be computed, and the folders of what they kept."""

    records: list[Record]
    computed: int
    kept: list["Kept"]  # of runs that take `keep`


@dataclass(frozen=True)
class Kept:
    """Files that a run keeps. Where a row in git stands for the run they are made when another run needs them."""

    job: Job
    pool: Pool
    name: str  # of the sweep

    @property
    def folder(self) -> Path:
        """Where the files lie once `folders` has seen to it."""
        return self.pool.cache.files(self.job.key)

    @property
    def content(self) -> str:
        """What the files count as among another run's inputs: the run that made them (see `content_of`)."""
        return content_of_run(self.job.key)


def grid(**axes: Iterable[object]) -> list[dict[str, object]]:
    """Every combination of the axes' values, the last axis running fastest."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sweep(
    run: Callable[..., dict],
    cells: list[dict[str, object]],
    *,
    inputs: Mapping[str, Path | Kept],
    name: str,
    cache: Path = CACHE / "runs",
    committed: Mapping[str, Record] | None = None,
    trust_committed: bool = True,
    workers: int | None = None,
    cluster: str | None = None,
) -> Sweep:
    """Do every run of `cells` that is not there yet, and return all of them in order.

    `run(**cell, **inputs)` is called in a worker process here or, with `cluster`, on the Dask cluster whose scheduler
    has that address and which sees the same files. A run is there when the cache has its record, or `committed`, the
    rows kept in git, by key; without `trust_committed` these only tell how long runs take. Inputs may be what another
    sweep's runs `kept`: where a row in git stood for such a run, it is done when the first run needs its files. A run
    that takes any number of inputs (`**models`) is given, and keyed by, those kept ones whose names its cell has among
    its values; an input that no cell has is refused.
    Raises `UserError` for an empty grid, a cell that is there twice or a missing input, before anything runs, and
    `SweepError` at the end where cells failed.
    """
    if not cells:
        raise UserError(f"sweep {name}: the grid is empty")
    code, content, chosen = code_of(run), _contents(inputs), _chosen(run, inputs)
    jobs = [
        Job(key_of(cell, code, _of_cell(content, chosen, cell)), code, cell, _of_cell(inputs, chosen, cell))
        for cell in cells
    ]
    if unused := chosen - {value for cell in cells for value in cell.values() if isinstance(value, str)}:
        raise UserError(f"sweep {name}: no cell names the input {', '.join(sorted(unused))}")
    if len({job.key for job in jobs}) < len(jobs):
        raise UserError(f"sweep {name}: the grid holds a cell twice")
    store = Cache(cache)
    committed = committed or {}
    known = committed if trust_committed else {}
    found = {job.key: _known(job, known) or store.read(job.key, _say) for job in jobs}
    _warn_of_gpu(name, [record for record in found.values() if record is not None])
    todo = [job for job in jobs if found[job.key] is None]
    pool = Pool(run, store, workers or cores(), cluster)
    if todo:
        found |= _computed(pool, todo, jobs, name, committed)
    kept = [Kept(job, pool, name) for job in jobs] if "keep" in signature(run).parameters else []
    return Sweep([found[job.key] for job in jobs], len(todo), kept)


def folders(kept: Sequence[Kept]) -> list[Path]:
    """Folders of what runs kept; the runs whose files are not there, or damaged, are done first."""
    sweeps: dict[int, list[Kept]] = {}
    for one in kept:
        sweeps.setdefault(id(one.pool), []).append(one)
    for several in sweeps.values():
        pool = several[0].pool
        missing = [one.job for one in several if pool.cache.read(one.job.key, _say) is None]
        if missing:
            _computed(pool, missing, [one.job for one in several], several[0].name, {})
    return [one.folder for one in kept]


def _warn_of_gpu(name: str, there: list[Record]) -> None:
    """Say where a process that is held to the CPU takes runs that had a GPU: of that keys do not tell."""
    used = [str(record.timing["hardware"]) for record in there if record.timing.get("hardware")]
    used = [hardware.rpartition(", ")[2] for hardware in used if not hardware.endswith(NO_GPU)]
    if used and os.environ.get(DEVICE) == "cpu":
        _say(f"{name}: {len(used)} runs that are there had a GPU ({used[0]}): their numbers may not be a CPU's")


def _contents(inputs: Mapping[str, Path | Kept]) -> dict[str, str]:
    files = content_of({name: value for name, value in inputs.items() if isinstance(value, Path)})
    return {name: value.content if isinstance(value, Kept) else files[name] for name, value in inputs.items()}


def _chosen(run: Callable[..., dict], inputs: Mapping[str, Path | Kept]) -> set[str]:
    """Names of inputs that a cell takes by naming them."""
    return {name for name, value in inputs.items() if isinstance(value, Kept)} - signature(run).parameters.keys()


def _of_cell(inputs: Mapping[str, object], chosen: set[str], cell: Mapping[str, object]) -> dict[str, object]:
    values = [value for value in cell.values() if isinstance(value, str)]
    return {name: value for name, value in inputs.items() if name not in chosen or name in values}


def _computed(
    pool: Pool, todo: list[Job], jobs: list[Job], name: str, committed: Mapping[str, Record]
) -> dict[str, Record]:
    """Do the runs `todo` of a sweep of `jobs`; their records by key."""
    needed = {value.job.key: value for job in todo for value in job.inputs.values() if isinstance(value, Kept)}
    made = dict(zip(needed, folders(list(needed.values())), strict=True))
    todo = [
        replace(job, inputs={n: made[v.job.key] if isinstance(v, Kept) else v for n, v in job.inputs.items()})
        for job in todo
    ]
    found: dict[str, Record | None] = {}
    failures: dict[str, Failure] = {}
    duration = estimate(pool, todo, committed.values())
    _say(f"{name}: {len(jobs)} runs, {len(jobs) - len(todo)} there, {len(todo)} to do, {duration}")
    # A size of our own: tqdm hides its line on a terminal that says it has none, as a notebook's may.
    size = {"ncols": 90, "nrows": 24}
    with tqdm(total=len(todo), desc=name, unit="run", file=sys.stderr, leave=False, **size) as bar:
        for ended in pool.done(todo):
            bar.update()
            if isinstance(ended, Failure):
                failures[ended.job.key] = ended
                _say(f"{name}: failed: {_varied(ended.job, jobs)}: {ended.reason}")
            else:
                found[ended.key] = pool.cache.read(ended.key, _say)
    missing = [job for job in todo if found.get(job.key) is None]
    if missing:
        reasons = {key: f"{failure.reason} (traceback: {failure.log})" for key, failure in failures.items()}
        lines = [f"{_varied(job, jobs)}: {reasons.get(job.key, 'its record is gone')}" for job in missing]
        raise SweepError(f"sweep {name}: {len(missing)} of {len(jobs)} runs failed; " + "; ".join(lines))
    return found


def _known(job: Job, known: Mapping[str, Record]) -> Record | None:
    record = known.get(job.key)
    if record is None:
        return None
    metrics = {name: value for name, value in record.metrics.items() if name not in job.cell and name != "sweep"}
    return replace(record, cell=job.cell, metrics=metrics)


def estimate(pool: Pool, todo: list[Job], elsewhere: Iterable[Record]) -> str:
    """How long `todo` will take, from past runs that differ in little more than the seed, here or else elsewhere.

    A record from elsewhere has its parameters among its metrics.
    """
    here = pool.cache.timings(pool.run.__qualname__)
    for past, where in ((here, ""), ([(record.metrics, record.timing) for record in elsewhere], ", by runs elsewhere")):
        known = []
        for job in todo:
            names = [name for name in job.cell if name != "seed"]
            close = [
                timing["seconds"]
                for cell, timing in past
                if "seconds" in timing and sum(job.cell[name] != cell.get(name) for name in names) <= 1
            ]
            known += [statistics.median(close)] if close else []
        if known:
            minutes = statistics.mean(known) * len(todo) / min(pool.workers, len(todo)) / 60
            return (f"about {minutes:.0f} min" if minutes >= 1 else "less than a minute") + where
    return "no past run to tell how long"


def _varied(job: Job, jobs: list[Job]) -> str:
    """The parameters that tell a cell from the others of its grid."""
    names = [name for name in job.cell if len({repr(other.cell.get(name)) for other in jobs}) > 1]
    return ", ".join(f"{name}={job.cell[name]}" for name in names) or "the only cell"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
