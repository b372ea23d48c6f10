"""Another seed, other numbers, in the results of every study at every scale that git holds.

That the same seed gives the same rows, in another process and with another number of workers, is tested of every study
at the tiny scale where it is run: see `makes_the_same_again` in pipeline.py.
"""

import re
from collections import defaultdict

import pytest

from common.project import ROOT
from pipeline import rows_of

FOLDERS = sorted(path.parent for path in ROOT.glob("results/*/*/runs.csv") if path.parts[-3] != "tiny")


def alike(rows):
    """Pairs of a sweep and seeds of it that have the same measurements in all their rows."""
    found = []
    for sweep in dict.fromkeys(row["sweep"] for row in rows):
        own = [row for row in rows if row["sweep"] == sweep and row.get("seed")]
        # Parameters have few digits. One share of a count may be the same by chance, a loss or several shares may not.
        measured = [name for name in (own[0] if own else {}) if any(re.search(r"\.\d{6}", row[name]) for row in own)]
        numbers = defaultdict(list)
        for row in own:
            numbers[row["seed"]].append(tuple(row[name] for name in measured))
        seeds = defaultdict(list)
        for seed, values in numbers.items():
            seeds[tuple(sorted(values))].append(seed)
        telling = len(measured) > 1 or any("loss" in name for name in measured)
        found += [(sweep, same) for same in seeds.values() if telling and len(same) > 1]
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_no_two_seeds_of_a_sweep_have_the_same_numbers(folder):
    rows = rows_of(folder)
    assert len({row["seed"] for row in rows if row["seed"]}) >= 5
    assert alike(rows) == []


def test_a_seed_that_changed_nothing_is_seen():
    rows = rows_of(FOLDERS[0])
    sweep = next(row["sweep"] for row in rows if "." in row["train_loss"])
    first, second = dict.fromkeys(row["seed"] for row in rows if row["sweep"] == sweep)
    for row in [row for row in rows if row["sweep"] == sweep and row["seed"] == second]:
        rows.remove(row)
    rows += [row | {"seed": second} for row in rows if row["sweep"] == sweep]
    assert alike(rows) == [(sweep, [first, second])]
