"""Processes that never outlive the one that started them, and locks that die with their holder."""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from common.errors import UserError

_watched: set[int] = set()


def exit_with(ancestor: int, seconds: float = 0.3) -> None:
    """End this process, whatever it is doing, soon after its parent, or the process that started that, has ended.

    An ancestor that is killed (`kill -9`) can't tell its descendants; one that went on would be a second writer
    beside the next run. Polling is the one way that works alike on Linux and macOS.
    """
    if ancestor in _watched:
        return
    _watched.add(ancestor)
    is_parent = os.getppid() == ancestor

    def watch() -> None:
        while os.getppid() == ancestor if is_parent else psutil.pid_exists(ancestor):
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


@contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; raise `UserError` at once where another process holds it.

    The system frees the lock when its holder ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise UserError(f"{what} is already running (process {file.read().strip() or 'unknown'})") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, once no other process does; it is there as long as anyone holds it or waits for it.

    The system frees the lock when its holder ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(file, path):  # who held it before removed it: who comes next will lock another
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_still(file: IO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
