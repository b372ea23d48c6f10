"""Cells run in worker processes, one thread each; a lost worker loses one cell, which runs again."""

import contextlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import joblib
from joblib.externals.loky.process_executor import BrokenProcessPool

from common.environment import DEVICE
from common.files import atomic_folder, digest, write_atomic
from common.processes import exit_with, in_turn
from common.provenance import hardware
from common.sweep.process import Unfit, check_code, compute_on, forget_peak_memory, peak_memory_mb
from common.sweep.records import Cache, Record


@dataclass(frozen=True)
class Job:
    """A cell to run: `run(**cell, **inputs)`, its record goes to the cache under `key`.

    `code` is the digest by which the run is keyed. By the time it runs its inputs are files and folders.
    """

    key: str
    code: str
    cell: dict[str, object]
    inputs: dict[str, object]


@dataclass(frozen=True)
class Failure:
    """A cell that gave no record, and why, in one line; the traceback lies in `log`."""

    job: Job
    reason: str
    log: Path


@dataclass(frozen=True)
class Pool:
    """Where and how cells run: in joblib's processes here or, by the address of its scheduler, on a Dask cluster.

    A run that takes `scratch` gets a folder of its own that survives a kill, for a checkpoint to go on from; one that
    takes `keep`, an empty folder whose files stay with its record, for a trained model.
    """

    run: Callable[..., dict]
    cache: Cache
    workers: int
    cluster: str | None = None

    def done(self, jobs: list[Job]) -> Iterator[Job | Failure]:
        """Run the jobs; yield each as it ends. Its record, or its failure, is on disk by then.

        Raises `Unfit`, a `UserError`, where the workers can do none of them.
        """
        for job in jobs:
            self._started(job.key).unlink(missing_ok=True)
        yield from self._on_cluster(jobs) if self.cluster else self._here(jobs)

    def _on_cluster(self, jobs: list[Job]) -> Iterator[Job | Failure]:
        """By Dask itself: joblib would do the runs in this process where there is one worker, and end with a lost one.

        What the scheduler gives up, since workers died with it, runs alone at last: so no cell is blamed for another's
        killing the worker that they shared.
        """
        from distributed import Client, Future, as_completed
        from distributed.scheduler import KilledWorker

        device = os.environ.get(DEVICE)
        with Client(self.cluster, set_as_default=False) as client:

            def begun(job: Job) -> Future:
                return client.submit(self._cell, job, os.getpid(), device, pure=False)

            waiting = {begun(job): job for job in jobs}
            given_up = []
            for future in as_completed(list(waiting), loop=client.loop):
                job = waiting.pop(future)
                if isinstance(future.exception(), KilledWorker):
                    given_up.append(job)
                else:
                    yield self._ended(job, future.result()[1])
            for job in given_up:
                future = begun(job)
                lost = isinstance(future.exception(), KilledWorker)
                yield self._killed(job) if lost else self._ended(job, future.result()[1])

    def _here(self, jobs: list[Job]) -> Iterator[Job | Failure]:
        waiting = {job.key: job for job in jobs}
        while waiting:
            before = len(waiting)
            try:
                yield from self._batch(list(waiting.values()), waiting)
            except BrokenProcessPool as error:
                # All workers go down with a killed one. What they had finished is in the cache; what they had begun
                # runs alone next, so that the cell that kills its worker is found and no innocent one is blamed.
                for job in [job for job in waiting.values() if self.cache.path(job.key).exists()]:
                    yield waiting.pop(job.key)
                for job in [job for job in waiting.values() if self._started(job.key).exists()]:
                    yield from self._alone(job, waiting)
                if len(waiting) == before:
                    raise RuntimeError("worker processes die before they begin a run (out of memory?)") from error

    def _alone(self, job: Job, waiting: dict[str, Job]) -> Iterator[Job | Failure]:
        try:
            yield from self._batch([job], waiting)
        except BrokenProcessPool:
            del waiting[job.key]
            yield self._killed(job)

    def _batch(self, jobs: list[Job], waiting: dict[str, Job]) -> Iterator[Job | Failure]:
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
            # Made in here, where it takes the backend. loky's pool outlives a call; a broken or interrupted one is
            # replaced by joblib itself.
            parallel = joblib.Parallel(
                n_jobs=max(2, min(self.workers, len(jobs))),  # one would run in this very process and could kill it
                return_as="generator_unordered",
                pre_dispatch=self.workers,
                batch_size=1,
            )
            device = os.environ.get(DEVICE)
            for key, reason in parallel(joblib.delayed(self._cell)(job, os.getpid(), device) for job in jobs):
                yield self._ended(waiting.pop(key), reason)

    def _ended(self, job: Job, reason: str | None) -> Job | Failure:
        return job if reason is None else Failure(job, reason, self._failed(job.key))

    def _killed(self, job: Job) -> Failure:
        log = self._log(job.key, "the worker was killed twice while it ran this cell\n")
        return Failure(job, "its worker was killed twice (out of memory?)", log)

    def _cell(self, job: Job, parent: int, device: str | None = None) -> tuple[str, str | None]:
        if not self.cluster:
            exit_with(parent)
        try:
            write_atomic(self._started(job.key), json.dumps(job.cell, sort_keys=True))
            compute_on(device)
            import torch  # after the mark: a worker that dies while it loads is known to have begun this cell

            torch.set_num_threads(1)
            # Another sweep may be at the same run: of another study, or of the same notebook in JupyterLab.
            with in_turn(self.cache.folder / "locks" / job.key):
                if self.cache.read(job.key, lambda line: None) is None:
                    self._do(job)
        except Unfit:
            raise
        except Exception as error:  # the rest of the sweep goes on; the stage fails at its end with the list
            with contextlib.suppress(Exception):  # a full disk must not hide the reason
                self._log(job.key, traceback.format_exc())
            return job.key, " ".join(f"{type(error).__name__}: {error}".split())
        self._started(job.key).unlink(missing_ok=True)
        return job.key, None

    def _do(self, job: Job) -> None:
        check_code(self.run, job.code)
        forget_peak_memory()
        begun = time.perf_counter()
        scratch, files = self.cache.folder / "scratch" / job.key, self.cache.files(job.key)
        taken = signature(self.run).parameters
        resumable = {"scratch": scratch} if "scratch" in taken else {}
        with atomic_folder(files) if "keep" in taken else contextlib.nullcontext() as folder:
            metrics = self.run(**job.cell, **job.inputs, **resumable, **({"keep": folder} if folder else {}))
            if folder and not any(folder.iterdir()):
                raise ValueError("the run kept no file")
            try:
                check_code(self.run, job.code)
            except Unfit:
                shutil.rmtree(scratch, ignore_errors=True)  # a checkpoint by whichever code is nothing to go on from
                raise
        tables = {name: value for name, value in metrics.items() if isinstance(value, dict)}
        timing = {
            "seconds": round(time.perf_counter() - begun, 2),
            "memory_mb": peak_memory_mb(),
            "hardware": hardware(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        single = {name: value for name, value in metrics.items() if name not in tables}
        kept = digest(files) if folder else None
        self.cache.write(Record(job.key, self.run.__qualname__, job.cell, single, tables, timing, kept))
        shutil.rmtree(scratch, ignore_errors=True)

    def _started(self, key: str) -> Path:
        return self.cache.folder / "started" / key

    def _failed(self, key: str) -> Path:
        return self.cache.folder / "failed" / f"{key}.txt"

    def _log(self, key: str, text: str) -> Path:
        write_atomic(self._failed(key), text)
        return self._failed(key)
