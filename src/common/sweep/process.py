"""What a worker's process is, before and after a run."""

from collections.abc import Callable
from pathlib import Path

from common.errors import UserError
from common.provenance import PACKAGE, SOURCE
from common.sweep.records import code_of

# As this process began: what it imports later is, but for a moment, what these files hold now.
_BEGUN = {path: path.read_text() for path in (SOURCE / PACKAGE).rglob("*.py")}


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
        _BEGUN[path] = path.read_text()
    return _BEGUN[path]
