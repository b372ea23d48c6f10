"""Files that are either wholly there or not there at all, and digests of their content."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from common.errors import UserError

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` so that a reader, or a crash at any moment, sees the old file or the new one.

    Raises `UserError` when the disk is full or the folder can't be written; the old file is then untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path))
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place when the block ends without an error.

    On an error nothing is left behind and an existing `path` is untouched. `UserError` where the disk is full or the
    folder can't be written; other errors of the block are its own.
    """
    try:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
        old = temporary.with_name(f"{temporary.name}.old")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    try:
        temporary.chmod(0o755)
        yield temporary
        if path.exists():
            # Never half removed, whenever this process is killed: it goes under a name that the next writer removes.
            path.replace(old)
        temporary.replace(path)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        for rest in (temporary, old):
            shutil.rmtree(rest, ignore_errors=True)


def _prefix(path: Path) -> str:
    """Start of the names of this process's temporary files for `path`; those of killed processes are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{path.name}.*.*"):
        writer = stale.name.removeprefix(f".{path.name}.").partition(".")[0]
        if writer.isdigit() and not psutil.pid_exists(int(writer)):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)
    return f".{path.name}.{os.getpid()}."


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's file names and bytes in sorted order."""
    if not path.exists():
        raise FileNotFoundError(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
    return total.hexdigest()
