"""The study of alignment from a clone to figures, at the tiny scale. The tests build on each other in order."""

from collections import Counter

import pytest

from pipeline import MAKE, keeps_contract, makes_the_same_again, rows_of, stamped_and_clean

STUDY, RUNS = "alignment", 428  # runs: starts, references, fine-tunings and merges, each asked, of pilot and reported


@pytest.fixture(scope="module", autouse=True)
def made(checkout, corpus):
    checkout.take(corpus)
    checkout.edit("params.yaml", "scale: laptop", "scale: tiny")
    checkout.ok(*MAKE, f"STUDY={STUDY}")


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
