"""The study of alignment from a clone to figures, at the tiny scale. The tests build on each other in order."""

from collections import Counter

import pytest

from kills import Kill, survive
from pipeline import MAKE, keeps_contract, makes_the_same_again, rows_of, stamped_and_clean

STUDY, RUNS = "alignment", 410  # runs: starts, references, fine-tunings and merges, each asked, of pilot and reported


@pytest.fixture(scope="module", autouse=True)
def made(checkout):
    # In the crossing, in what follows it, and in a merge or a review: while models are trained, with others finished.
    kills = [Kill("kernel", 120, 0.3), Kill("worker", 210, 0.1), Kill("runner", 310, 0.5)]
    return survive(checkout, (*MAKE, f"STUDY={STUDY}"), kills)


def test_three_kills_cost_no_finished_run_and_leave_nothing_behind(made):
    found, again = made
    assert again == []
    assert [(one.orphans, one.torn) for one in found] == [([], [])] * 3
    assert [one.role for one in found] == ["kernel", "worker", "runner"]
    assert [one.finished >= 100 * number for number, one in enumerate(found, start=1)] == [True] * 3


def test_results_keep_the_contract(checkout):
    keeps_contract(checkout, STUDY, RUNS)
    stamped_and_clean(checkout, STUDY)


def test_the_crossing_and_its_packed_half_are_balanced_and_trained_as_they_say(checkout):
    rows = [row for row in rows_of(checkout.root / "results/tiny" / STUDY) if row["sweep"] in ("crossing", "quantised")]
    by_sweep = {name: [row for row in rows if row["sweep"] == name] for name in ("crossing", "quantised")}
    assert {name: len(own) for name, own in by_sweep.items()} == {"crossing": 24 * 2, "quantised": 12 * 2}
    assert {row["base_dtype"] for row in by_sweep["quantised"]} == {"nf4"}
    assert {row["base_dtype"] for row in by_sweep["crossing"]} == {"float32"}
    for own in by_sweep.values():
        met = Counter((row["data"], row["aim"], row["start"].split("_")[0]) for row in own)
        assert len(met) == 12
        assert len(set(met.values())) == 1
    assert {(row["adapter_layers"], row["pairs"]) for row in rows} == {("7", "16")}


def test_runs_done_again_and_rows_of_git_give_the_same_and_every_parameter_reaches_it(checkout):
    makes_the_same_again(checkout, {STUDY: RUNS})
