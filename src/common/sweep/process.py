"""What a worker's process is, before and after a run: its code, its device, its memory."""

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from common.environment import DEVICE
from common.errors import UserError
from common.provenance import PACKAGE, SOURCE
from common.sweep.records import code_of

# As this process began: what it imports later is, but for a moment, what these files hold now.
_BEGUN = {path: path.read_text("utf-8") for path in (SOURCE / PACKAGE).rglob("*.py")}


class Unfit(UserError):
    """No run of a sweep can be done by this process, nor by others like it: the sweep ends."""


def check_code(run: Callable, code: str) -> None:
    """Raise `Unfit` where `code`, by which the run is keyed, is not what this process has or not what the files hold.

    A process imports a module once. Edited afterwards, in JupyterLab say, it has another digest, and the process still
    the code that it had: what that gives belongs under no key of the new one, nor may what a new process gives be
    kept under the old one's.
    """
    if not code_of(run, _as_begun) == code_of(run) == code:
        raise Unfit(f"the source of {run.__qualname__} changed while it ran: restart the kernel, or the command")


def _as_begun(path: Path) -> str:
    """A file's text when this process began; one that is not of the package, or was not there, when first asked for."""
    path = path.resolve()
    if path not in _BEGUN:
        _BEGUN[path] = path.read_text("utf-8")
    return _BEGUN[path]


def compute_on(device: str | None) -> None:
    """Have accelerate choose `device`, or without one what it would here; `Unfit` where it has chosen another before.

    A cluster's worker outlives the sweep that it worked for, and the next one's scale may need another device.
    """
    own = _own_device()  # before anything is told it
    wanted = device or own
    if wanted == os.environ.get(DEVICE):
        return
    import torch
    from accelerate import PartialState

    if PartialState._shared_state:  # it has chosen, and does so once
        state = PartialState()
        asked = torch.device(wanted) if wanted else state.default_device
        if (asked.type, asked.index or 0) != (state.device.type, state.device.index or 0):
            raise Unfit(f"a worker computes on {state.device} by now, not on {asked}: restart the cluster's workers")
    if wanted is None:
        del os.environ[DEVICE]
    else:
        os.environ[DEVICE] = wanted


@cache
def _own_device() -> str | None:
    """What this process's environment said before it was told a device."""
    return os.environ.get(DEVICE)


def forget_peak_memory() -> None:
    """Have `peak_memory_mb` tell of what follows alone, where the system can: on Linux."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> int:
    """The most main memory that this process had at once."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) // 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 1024**2)
