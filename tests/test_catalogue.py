"""The faults that `make faults` tries, and the page that it writes."""

import re

from catalogue import FAULTS
from faults import HEADER, PAGE


def test_no_fault_is_told_by_the_line_that_a_run_without_one_ends_with():
    told = [fault.what for fault in FAULTS if fault.says and re.search(fault.says, "figures/tiny: bases")]
    assert told == ["no network"]  # which a run does without


def test_the_page_is_as_it_was_written_and_has_every_fault_as_it_should_be():
    text = PAGE.read_text()
    assert text.startswith(f"# What kills and faults do\n\n{HEADER}\n")
    for fault in FAULTS:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {fault.what} | ")]
        assert ("nothing: restored silently" in row) == (not fault.says)
    assert "**" not in text  # what isn't as it should be
