"""Malformed rows are counted and reported; too many are refused, with file and line."""

import pytest

from common.errors import UserError
from common.rows import parse_rows


def lines(*texts):
    return enumerate(texts, start=2)  # as after a header


def test_malformed_rows_are_left_out_and_reported_with_file_and_line(capsys):
    assert parse_rows("a.csv", lines("1", "x", "3"), int, malformed_share=0.4) == [1, 3]
    assert capsys.readouterr().err.startswith("a.csv: 1 of 3 rows are malformed, the first at line 3: invalid literal")


def test_sound_rows_are_not_reported(capsys):
    assert parse_rows("a.csv", lines("1", "2"), int, malformed_share=0) == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("share", "refused"), [(0.49, True), (0.5, False)])
def test_more_than_the_stated_share_is_refused(share, refused):
    if not refused:
        assert parse_rows("a.csv", lines("1", "x"), int, share) == [1]
        return
    with pytest.raises(UserError, match=r"^a.csv: 1 of 2 rows are malformed, the first at line 3: .*allowed: 49.0%"):
        parse_rows("a.csv", lines("1", "x"), int, share)


def test_a_file_without_rows_is_refused():
    with pytest.raises(UserError, match=r"^a.csv: no rows$"):
        parse_rows("a.csv", [], int)


def test_other_errors_are_not_taken_for_malformed_rows():
    def broken(row):
        raise TypeError(row)

    with pytest.raises(TypeError):
        parse_rows("a.csv", lines("1"), broken)


def test_a_row_that_lacks_a_field_is_malformed():
    with pytest.raises(UserError, match="line 2: no field 'text'"):
        parse_rows("a.jsonl", lines({"label": 1}), lambda row: row["text"])
