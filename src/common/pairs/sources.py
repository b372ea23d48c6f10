"""Preference data in files, or at a pinned commit on the hub, as one table of pairs."""

import gzip
import json
import lzma
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import pyarrow.parquet
from datasets import load_dataset
from pydantic import BaseModel, ConfigDict, Field

from common.errors import UserError
from common.pairs.schemas import PARSERS, Answer, Row, beavertails_answer, paired
from common.pairs.table import Aim, Pair, pair_table
from common.rows import parse_rows
from common.zoo import COMMIT, HUB_ID

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.xz", ".parquet")
OPEN = {".gz": gzip.open, ".xz": lzma.open}


class Source(BaseModel):
    """Where rows of a schema come from (a layout of `common.pairs.schemas`), and what they are to be used for.

    `place` names one of the files or folders that are given, or is `owner/name` on the hub with the 40 digits of a
    commit as `revision`. `part` is a folder in either. Of a folder the files count whose names begin with `split`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layout: Literal["hh", "beavertails", "safe-rlhf"]
    aim: Aim
    place: str
    revision: str | None = None
    part: str | None = None
    split: str = "train"
    malformed_share: Annotated[float, Field(ge=0, lt=1)] = 0.01  # of rows; more are refused

    def check(self, files: Mapping[str, Path]) -> None:
        """Raise `UserError` where a source cannot be what it says."""
        if self.layout == "beavertails" and self.aim != "harmless":
            raise UserError(f"{self.place}: beavertails says which answers are safe, so its aim is harmless alone")
        if self.place in files:
            if self.revision is not None:
                raise UserError(f"{self.place} is a file or folder: a revision belongs to data on the hub")
        elif not HUB_ID.fullmatch(self.place):
            given = ", ".join(sorted(files)) or "none"
            raise UserError(f"{self.place} is neither owner/name on the hub nor among the files given ({given})")
        elif not COMMIT.fullmatch(self.revision or ""):
            raise UserError(f"{self.place} at revision {self.revision}: give the 40 hexadecimal digits of a commit")


def read_pairs(data: str, sources: Sequence[Source], files: Mapping[str, Path]) -> tuple[pd.DataFrame, dict[str, int]]:
    """The pairs of all sources as the data set `data`, and how many rows were `read`, `malformed` or `unpaired`.

    Malformed rows are counted on standard error and left out. Raises `UserError` where they are more than a source's
    `malformed_share`, naming the first one's file and line, where a source has no rows or gives no pair.
    """
    for source in sources:
        source.check(files)
    pairs: list[Pair] = []
    count = dict.fromkeys(("read", "malformed", "unpaired"), 0)
    for source in sources:
        parse = _parser(source, data)
        parsed = []
        for file, numbered in _files(source, files):
            rows = list(numbered)
            good = parse_rows(file, rows, lambda row, parse=parse: parse(_as_mapping(row)), source.malformed_share)
            count["read"] += len(rows)
            count["malformed"] += len(rows) - len(good)
            parsed += good
        own = parsed
        if source.layout == "beavertails":
            own = paired(parsed, data)
            count["unpaired"] += len(parsed) - 2 * len(own)
        if not own:
            raise UserError(f"{source.place}: its {len(parsed)} rows give no pair")
        pairs += own
    return pair_table(pairs), count


def _parser(source: Source, data: str) -> Callable[[Row], Pair | Answer]:
    if source.layout == "beavertails":
        return beavertails_answer
    return lambda row: PARSERS[source.layout](row, source.aim, data)


def _as_mapping(row: str | Row) -> Row:
    found = json.loads(row) if isinstance(row, str) else row
    if not isinstance(found, Mapping):
        raise ValueError(f"a row is {found!r:.40}, allowed: an object")
    return found


def _files(source: Source, files: Mapping[str, Path]) -> Iterator[tuple[str, Iterator[tuple[int, str | Row]]]]:
    """Each file's name with its numbered rows: texts of JSON, or objects."""
    if source.place not in files:
        yield f"{source.place}@{source.revision[:7]}, {source.split}", enumerate(_from_hub(source), start=1)
        return
    place = files[source.place]
    if not place.is_dir():
        yield place.name, _rows(place)
        return
    folder = place / (source.part or "")
    found = sorted(folder.glob(f"{source.split}*"))
    if not found or (strange := [path.name for path in found if not path.name.endswith(SUFFIXES)]):
        problem = f"holds {strange[0]}" if found else f"holds no file {source.split}*"
        raise UserError(f"{folder} {problem}, allowed: the kinds {', '.join(SUFFIXES)}")
    for path in found:
        yield str(path.relative_to(place)), _rows(path)


def _rows(path: Path) -> Iterator[tuple[int, str | Row]]:
    if not path.is_file() or not path.name.endswith(SUFFIXES):
        raise UserError(f"{path} is no file of the kinds {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".parquet":
            yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1)
            return
        with OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
            yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, pyarrow.ArrowException) as error:
        raise UserError(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from error


def _from_hub(source: Source) -> Iterator[Row]:
    try:
        # Data alone: `datasets` runs no code of a repository.
        yield from load_dataset(source.place, data_dir=source.part, split=source.split, revision=source.revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{source.place} at revision {source.revision} cannot be had: {str(error).splitlines()[0]}"
        ) from error
