"""Workers of a sweep, each pinned to a GPU, several on one: a Dask cluster on this machine.

A sweep goes to it by its address (`COMPENDIUM_CLUSTER`), as to any other. A worker is a process of one thread that sees
one GPU, so that code which takes the first one finds its own; the system shares a GPU among its workers, and a worker
that dies is started again by its nanny and loses one cell.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.errors import UserError
from common.machine import VISIBLE, Gpu

SPARE = 0.9  # share of a GPU's memory that runs may fill
CONTEXT = 600 * 2**20  # bytes that CUDA takes for a process before its first tensor, about


def packed(gpu: Gpu, largest: int, cores: int) -> int:
    """How many runs share a GPU: as many as its memory holds of the largest, in bytes, and no more than cores.

    Raises `UserError` where not even one fits.
    """
    fit = int(SPARE * gpu.memory // (largest + CONTEXT))
    if fit < 1:
        needed, there = ((size / 2**30) for size in (largest + CONTEXT, SPARE * gpu.memory))
        raise UserError(f"a run takes {needed:.1f} GB, GPU {gpu.device} ({gpu.name}) has {there:.1f} GB to give")
    return min(fit, cores)


@contextmanager
def workers(devices: Sequence[str]) -> Iterator[str]:
    """Workers of which each sees the GPU that is named at its place in `devices`; yields their scheduler's address."""
    try:
        from distributed import Nanny, Scheduler, SpecCluster
    except ImportError as error:
        raise UserError('sharing GPUs needs the package `distributed`: pip install -e ".[cluster]"') from error
    local = {"host": "127.0.0.1", "dashboard_address": None}
    spec = {
        place: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "env": {VISIBLE: device, "OMP_NUM_THREADS": "1"},
                "memory_limit": 0,  # what a run may take of the main memory is the system's to say
                **local,
            },
        }
        for place, device in enumerate(devices)
    }
    # A run that killed two workers is not given to a third one.
    options = {**local, "port": 0, "dashboard": False, "allowed_failures": 1}
    scheduler = {"cls": Scheduler, "options": options}
    with SpecCluster(workers=spec, scheduler=scheduler, silence_logs="ERROR") as cluster:
        yield cluster.scheduler_address
