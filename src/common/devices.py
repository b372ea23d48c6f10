"""On which GPUs a study's runs are done, and by how many workers."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.environment import CLUSTER
from common.errors import UserError
from common.gpu_workers import packed, workers
from common.machine import GIB, Gpu, check_machine, needs
from common.sweep import cores


def devices(names: Sequence[str], scale: str, found: Sequence[Gpu]) -> list[str]:
    """Each of these GPUs as many times as it has room for the largest run of these studies; a worker for each.

    Raises `UserError` where one has room for none.
    """
    from common.footprint import largest  # takes seconds to import, and more to tell

    taken = max(largest(name, scale) for name in names)
    return [gpu.device for gpu in found for _ in range(packed(gpu, taken, max(1, cores() // len(found))))]


def worker_count(study: str, scale: str) -> int:
    """How many workers would do a study's runs: on this machine's GPUs or, where there are none, on those of the scale.

    A cluster that the user names has as many as it has; it counts as this machine's cores.
    """
    wanted = needs(scale)
    if wanted is None or CLUSTER in os.environ:
        return cores()
    try:
        found = check_machine(scale)
    except UserError:  # it is planned elsewhere than it is to run
        found = [Gpu(str(number), "", int(wanted.memory_gb * GIB)) for number in range(wanted.gpus)]
    return len(devices([study], scale, found))


@contextmanager
def pinned_workers(names: Sequence[str], scale: str) -> Iterator[None]:
    """Have workers do the runs of these studies, each pinned to a GPU, where a scale needs any.

    Where the user names a cluster, that does them. Raises `UserError` where GPUs are not there or too small.
    """
    found = [] if CLUSTER in os.environ else check_machine(scale)
    if not found:
        yield
        return
    chosen = devices(names, scale, found)
    shared = ", ".join(str(chosen.count(device)) for device in dict.fromkeys(chosen))
    sys.stderr.write(f"{', '.join(names)}: {len(found)} GPU, {shared} runs at once on each\n")
    with workers(chosen) as address:
        os.environ[CLUSTER] = address
        try:
            yield
        finally:
            del os.environ[CLUSTER]
