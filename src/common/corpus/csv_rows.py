"""Rows of other people's CSV files, with the line on which each begins."""

import csv
import io
from collections.abc import Iterator
from itertools import takewhile

from common.errors import UserError


def decoded(content: bytes) -> str:
    """A file's text; bytes that are no UTF-8 stay in it as lone surrogates, which `encodable` refuses row by row."""
    return content.decode(errors="surrogateescape")


def encodable(text: str) -> str:
    """The text as it is; `ValueError` where bytes in it were no UTF-8."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("a byte that is no UTF-8")
    return text


def csv_rows(
    file: str, content: bytes, columns: set[str], comment: str | None = None
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Each row by column, None where it has too few or too many fields, with the line on which it begins.

    First lines that begin with `comment` are left out. Raises `UserError` where a column is missing, and, with its
    line, where a quotation is broken, as it cannot be told then where a row ends.
    """
    lines = list(io.StringIO(decoded(content), newline=""))
    above = sum(1 for _ in takewhile(lambda line: comment is not None and line.startswith(comment), lines))
    reader = csv.reader(lines[above:], strict=True)
    try:
        header = next(reader, [])
        if missing := columns - set(header):
            raise UserError(f"{file}: no column {', '.join(sorted(missing))}, only {', '.join(header)}")
        number = above + reader.line_num + 1
        for row in reader:
            yield number, dict(zip(header, row, strict=True)) if len(row) == len(header) else None
            number = above + reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{file}: line {above + reader.line_num}: {error}") from error
