"""The run that keeps a data set of others' preference pairs, from the hub or from folders as people have them."""

import ast
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from common.corpus.csv_rows import csv_rows, encodable
from common.pairs.making import fetch_pairs
from common.pairs.table import AIMS, load_pairs, write_pairs

TEXTS = ("chosen", "rejected", "prompt", "response", "response_0", "response_1")
"""Columns that are texts whatever they look like; in others true, 1 and {"harm": false} are what they stand for."""


def fetch(data: str, sources: list[dict], pairs: int, *, keep: Path, **folders: Path) -> dict[str, int]:
    """Keep others' data as the table of pairs `data`: of each aim so many at most, drawn by chance.

    `sources` and `folders` as `common.pairs.making.fetch_pairs` takes them; of a folder CSV files are read too. The
    same pairs are drawn for every model. Metrics: pairs kept of each aim, and the numbers of `read_pairs`.
    """
    with tempfile.TemporaryDirectory() as place:
        found = Path(place) / "pairs"
        found.mkdir()
        plain = {name: without_csv(folder, Path(place) / f"of {name}") for name, folder in folders.items()}
        count = fetch_pairs(data, sources, keep=found, **plain)
        table = load_pairs(found)
    table = pd.concat([_drawn(rows, pairs) for _, rows in table.groupby("aim", sort=False)], ignore_index=True)
    write_pairs(table, keep)
    return count | {aim: int((table["aim"] == aim).sum()) for aim in AIMS}


def without_csv(folder: Path, copy: Path) -> Path:
    """The folder, or where it holds CSV files a copy of it with JSON lines in their place, line for line.

    Raises `UserError` where a file's quotation is broken.
    """
    tables = sorted(folder.rglob("*.csv"))
    if not tables:
        return folder
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.csv"))
    for path in tables:
        name, line = str(path.relative_to(folder)), 1
        with (copy / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as written:
            for number, row in csv_rows(name, path.read_bytes(), set()):
                # Blank lines, which count for nothing, put each row on the line on which it stood.
                written.write("\n" * (number - line) + json.dumps(_typed(row)) + "\n")
                line = number + 1
    return copy


def _typed(row: dict[str, str] | None) -> dict[str, object] | None:
    """None, which is no row, where fields are too few, too many or nested too deep, or bytes are no UTF-8."""
    try:
        return row and {name: encodable(text) if name in TEXTS else _value(text) for name, text in row.items()}
    except (ValueError, RecursionError, MemoryError):  # a deep nest raises either of the last two
        return None


def _value(text: str) -> object:
    for read in (json.loads, _literal):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError):
            continue
    return text


def _literal(text: str) -> object:
    """What Python writes so, where it is something that JSON can say: no set, no bytes."""
    return json.loads(json.dumps(ast.literal_eval(text)))


def _drawn(rows: pd.DataFrame, pairs: int) -> pd.DataFrame:
    """So many rows in an order by chance: those who take the first ones of each aim take any."""
    return rows.iloc[np.random.default_rng(0).permutation(len(rows))[:pairs]]
