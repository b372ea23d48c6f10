"""Rows of other people's files: the malformed ones are counted and reported, and too many refused."""

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from common.errors import UserError

Raw = TypeVar("Raw")
Row = TypeVar("Row")


def parse_rows(
    file: str, rows: Iterable[tuple[int, Raw]], parse: Callable[[Raw], Row], malformed_share: float = 0.01
) -> list[Row]:
    """What `parse` makes of each `(line number, row)` of `file`, without the malformed ones.

    Those are the rows of which it raises `ValueError`, or `KeyError` as where a field is not there. They are counted on
    standard error, the first of them with its line and reason. Raises `UserError` where they are more than
    `malformed_share` of all rows, or where there is no row.
    """
    parsed, wrong = [], []
    for line, row in rows:
        try:
            parsed.append(parse(row))
        except KeyError as error:
            wrong.append(f"line {line}: no field {error}")
        except ValueError as error:
            wrong.append(f"line {line}: {error}")
    total = len(parsed) + len(wrong)
    if not total:
        raise UserError(f"{file}: no rows")
    if wrong:
        report = f"{file}: {len(wrong)} of {total} rows are malformed, the first at {wrong[0]}"
        if len(wrong) > malformed_share * total:
            raise UserError(f"{report}; allowed: {malformed_share:.1%} of rows")
        sys.stderr.write(f"{report}; left out\n")
    return parsed
