"""Files of published benchmarks as tasks: CSV, TSV or JSON lines, told apart by their columns."""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from common.corpus.csv_rows import csv_rows, decoded, encodable
from common.errors import UserError
from common.rows import parse_rows
from common.tasks.items import Item, Task
from common.tasks.schemas import SCHEMAS, Row, Schema

Numbered = Iterator[tuple[int, Row | str | None]]


def read_task(path: Path, schema: str | None = None, malformed_share: float = 0.01) -> Task:
    """The items of a file, each with the line at which its row begins as `row`.

    `schema` names one of `common.tasks.schemas.SCHEMAS`; without it the columns decide. Text is UTF-8, with or without
    a byte-order mark, lines end either way. Malformed rows are counted on standard error and left out.

    Raises `UserError`, one line, where there is no such file or schema, columns fit none or several, a quotation is
    broken, there is no row, or more than `malformed_share` of the rows are malformed, the first by its line.
    """
    if schema is not None and schema not in SCHEMAS:
        raise UserError(f"there is no format {schema!r}; allowed: {', '.join(SCHEMAS)}")
    try:
        # Lines that end the file are no rows.
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    file = str(path)
    first = content.lstrip()[:1]
    if not first:
        raise UserError(f"{file}: no rows")
    if first == b"[":
        raise UserError(f"{file} begins a JSON array, allowed: an object a line")
    columns, rows = _json_rows(content) if first == b"{" else _table_rows(file, content)
    name = schema or _fitting(file, columns)
    found = SCHEMAS[name]
    if missing := found.columns - columns:
        raise UserError(f"{file}: {name} has {', '.join(sorted(missing))}, this file only {', '.join(sorted(columns))}")
    numbered = ((line, (line, row)) for line, row in rows)
    several = parse_rows(file, numbered, lambda row: _items(found, *row), malformed_share)
    items = [item for those in several for item in those]
    return Task(name, found.aspect, found.kind, found.measures, items)


def _items(schema: Schema, line: int, row: Row | str | None) -> list[Item]:
    if row is None:
        raise ValueError("not as many fields as columns")
    return [replace(item, row=str(line)) for item in schema.items(_parsed(row) if isinstance(row, str) else row)]


def _fitting(file: str, columns: set[str]) -> str:
    fitting = [name for name, schema in SCHEMAS.items() if schema.columns <= columns]
    if not fitting:
        near = max(SCHEMAS, key=lambda name: len(SCHEMAS[name].columns & columns) / len(SCHEMAS[name].columns))
        lacking = ", ".join(sorted(SCHEMAS[near].columns - columns))
        raise UserError(f"{file}: its columns fit none of {', '.join(SCHEMAS)}; nearest is {near}, it lacks {lacking}")
    if len(fitting) > 1:
        raise UserError(f"{file}: its columns fit {' and '.join(fitting)}; name the format")
    return fitting[0]


def _json_rows(content: bytes) -> tuple[set[str], Numbered]:
    """Columns, those of the first line that has an object, and lines."""
    lines = [(number, line) for number, line in enumerate(decoded(content).split("\n"), start=1) if line.strip()]
    for _, line in lines:
        try:
            return set(_parsed(line)), iter(lines)
        except ValueError:
            continue
    return set(), iter(lines)


def _parsed(line: str) -> Row:
    try:
        row = json.loads(encodable(line))
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("no JSON: too deep") from error
    if not isinstance(row, dict):
        raise ValueError(f"a row is {row!r:.40}, allowed: an object")
    return row


def _table_rows(file: str, content: bytes) -> tuple[set[str], Numbered]:
    """Columns and rows of a table with commas, or with tabs: rewritten with commas, line for line, so that one reader
    reads both.
    """
    header = content.partition(b"\n")[0]
    if header.count(b";") > max(header.count(b","), header.count(b"\t")):
        raise UserError(f"{file} has semicolons between its columns, allowed: commas or tabs")
    delimiter = "\t" if header.count(b"\t") > header.count(b",") else ","
    reader = csv.reader(io.StringIO(decoded(content), newline=""), delimiter=delimiter, strict=True)
    try:
        columns = next(reader)
        if delimiter == "\t":
            written = io.StringIO(newline="")
            csv.writer(written, lineterminator="\n").writerows([columns, *reader])
            content = written.getvalue().encode(errors="surrogateescape")
    except csv.Error as error:
        raise UserError(f"{file}: line {reader.line_num}: {error}") from error
    return set(columns), csv_rows(file, content, set())
