"""What one run left behind: its key, its record in the cache, its row in a table kept in git."""

import csv
import hashlib
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from inspect import getsourcefile
from pathlib import Path

from common import git
from common.equivalence import counted
from common.errors import UserError
from common.files import atomic_folder, digest, write_atomic
from common.provenance import code_digest, versions

Value = str | int | float | bool | None
Table = dict[str, list[Value]]  # columns of one length


@dataclass(frozen=True)
class Record:
    """One finished run: `metrics` are single values, `tables` longer series such as a loss curve.

    `kept` is the digest of the folder of files that the run keeps beside its record, None where it keeps none.
    """

    key: str
    run: str
    cell: dict[str, object]
    metrics: dict[str, Value]
    tables: dict[str, Table] = field(default_factory=dict)
    timing: dict[str, Value] = field(default_factory=dict)
    kept: str | None = None


def code_of(run: Callable, read: Callable[[Path], str] = Path.read_text) -> str:
    """Digest of the file that defines `run` and of every module of the package that it imports, as counted in keys.

    `read` gives a file's text.
    """
    file = getsourcefile(run)
    if run.__module__ == "__main__" or file is None:
        raise UserError(f"{run.__name__} is defined in a notebook; a run's code must be in a module to be keyed")
    return counted(code_digest(run.__qualname__, read(Path(file)), read=read))


def content_of(inputs: Mapping[str, Path]) -> dict[str, str]:
    """Digest of the content of each input file or folder; where it lies does not matter.

    A folder that a run kept, with its record beside it, counts by the key of that run: trained weights differ in their
    last bits from one kind of processor to another, and a run must have the same key on all of them.
    """
    missing = [str(path) for path in inputs.values() if not path.exists()]
    if missing:
        raise UserError(f"missing input {', '.join(missing)}: run `dvc repro` first")
    return {name: _content(path) for name, path in inputs.items()}


def _content(path: Path) -> str:
    beside = record_beside(path)
    if not (path.is_dir() and beside.is_file()):
        return digest(path)
    record = read_record(beside)
    if digest(path) != record.kept:
        raise UserError(f"{path} is not what its run left there: remove it and run `dvc repro`")
    return content_of_run(record.key)


def content_of_run(key: str) -> str:
    """What files that a run kept count as: not their bytes, but the run."""
    return f"run {key}"


def record_beside(folder: Path) -> Path:
    """Where the record of the run that kept `folder` lies."""
    return folder.parent / f"{folder.name}.json"


def publish(kept: Path, place: Path) -> None:
    """Copy the folder that a run kept to `place`, with its record beside it."""
    with atomic_folder(place) as folder:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    write_atomic(record_beside(place), record_beside(kept).read_text())


def read_record(path: Path) -> Record:
    """The record in a file; `ValueError` or `TypeError` where it is torn or altered."""
    checksum, _, body = path.read_text().partition("\n")
    if hashlib.sha256(body.rstrip("\n").encode()).hexdigest() != checksum:
        raise ValueError("its checksum differs")
    return Record(**json.loads(body))


def key_of(cell: Mapping[str, object], code: str, content: Mapping[str, str]) -> str:
    """Key of a run: its parameters, its code, its data, the library versions."""
    parts = {"cell": cell, "code": code, "content": content, "versions": versions()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:20]


def check(record: Record) -> None:
    """Raise `ValueError` where a number is NaN or infinite or a table is ragged; None says that there is no value."""
    for name, value in record.metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"metric {name} is {value}")
        if not isinstance(value, Value):
            raise ValueError(f"metric {name} is a {type(value).__name__}, allowed: {Value}")
    for name, table in record.tables.items():
        if len({len(column) for column in table.values()}) > 1:
            raise ValueError(f"table {name} has columns of different lengths")
        for column, values in table.items():
            if any(isinstance(value, float) and not math.isfinite(value) for value in values):
                raise ValueError(f"column {column} of table {name} holds a number that is not finite")


class Cache:
    """Finished runs in a folder, a file each, some with a folder of files; what is torn or altered is not there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def files(self, key: str) -> Path:
        """Folder of the files that the run of `key` keeps."""
        return self.path(key).with_suffix("")

    def write(self, record: Record) -> None:
        check(record)
        body = json.dumps(asdict(record), allow_nan=False)  # unsorted: tables keep the run's own order of columns
        write_atomic(self.path(record.key), f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")

    def read(self, key: str, warn: Callable[[str], None]) -> Record | None:
        """The record of `key`; None where there is none or, with a warning, where its file is damaged."""
        path = self.path(key)
        try:
            record = read_record(path)
            if record.key != key:
                raise ValueError("it belongs to another run")
            if record.kept and (not self.files(key).is_dir() or digest(self.files(key)) != record.kept):
                raise ValueError("the files kept with it are damaged or gone")
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            warn(f"damaged cache file {path.name} ({error}): this run is done again")
            path.unlink(missing_ok=True)  # another process may have been told the same
            return None
        return record

    def timings(self, run: str) -> list[tuple[dict[str, object], dict[str, Value]]]:
        """Parameters and timing of every past run of the function `run` on this machine."""
        found = []
        for path in self.folder.glob("*/*.json"):
            try:
                record = read_record(path)
            except (FileNotFoundError, ValueError, TypeError):  # gone, or damaged: `read` says so where it matters
                continue
            if record.run == run:
                found.append((record.cell, record.timing))
        return found


def encode(value: object) -> str:
    """A value as the text of a CSV field from which `decode` gets it back exactly: JSON, but plain strings."""
    if value is None:
        return ""
    if isinstance(value, str) and decode(value) == value:
        return value
    return json.dumps(value, sort_keys=True, allow_nan=False)


def decode(text: str) -> object:
    """The value that `encode` wrote."""
    if text == "":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def to_csv(rows: list[dict[str, object]]) -> str:
    """Rows as CSV; columns in the order in which the rows bring them up."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({name: encode(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def from_csv(text: str) -> list[dict[str, object]]:
    """Rows that `to_csv` wrote; an empty field is None."""
    return [{name: decode(field) for name, field in row.items()} for row in csv.DictReader(io.StringIO(text))]


def table_rows(record: Record, name: str) -> list[dict[str, object]]:
    """Rows of one of a record's tables, each with the run's key."""
    columns = record.tables[name]
    return [{"key": record.key, **dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)]


def committed_records(folder: str, root: Path) -> dict[str, Record]:
    """Runs whose rows git holds in `folder` (`runs.csv`, `timing.csv`, a file for each table in `tables/`), by key.

    Read from the last commit and not from the work tree: the pipeline deletes a stage's outputs before it runs.
    A row does not say which of its columns are parameters; all of them are in `metrics`.
    """
    listed = git.told(root, "ls-tree", "-r", "--name-only", "HEAD", f"{folder}/").split()
    files = {
        Path(path).stem: from_csv(git.told(root, "show", f"HEAD:{path}")) for path in listed if path.endswith(".csv")
    }
    timing = {row.pop("key"): row for row in files.pop("timing", [])}
    runs = {row.pop("key"): row for row in files.pop("runs", [])}
    tables: dict[str, dict[str, Table]] = {key: {} for key in runs}
    for name, rows in files.items():
        for row in rows:
            columns = tables.setdefault(row.pop("key"), {}).setdefault(name, {column: [] for column in row})
            for column, value in row.items():
                columns[column].append(value)
    return {key: Record(key, "", {}, row, tables[key], timing.get(key, {})) for key, row in runs.items()}
