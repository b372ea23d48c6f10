"""The study of expansion from a clone to figures, at the tiny scale. The tests build on each other in order."""

import json

import pytest
import yaml

from pipeline import MAKE, keeps_contract, makes_the_same_again, rows_of, stamped_and_clean

STUDY, RUNS = "expansion", 99  # runs: bases and candidates of pilot and reported seeds, walks, slices


@pytest.fixture(scope="module", autouse=True)
def made(checkout):
    checkout.ok(*MAKE, f"STUDY={STUDY}")


def test_results_keep_the_contract(checkout):
    keeps_contract(checkout, STUDY, RUNS)
    stamped_and_clean(checkout, STUDY)


def test_every_candidate_grew_on_every_seed_and_says_so(checkout):
    knobs = yaml.safe_load((checkout.root / "scales/tiny.yaml").read_text())[STUDY]
    rows = [row for row in rows_of(checkout.root / "results/tiny" / STUDY) if row["sweep"] == "candidates"]
    tasks = {"mnist": "perceptrons", "digits": "perceptrons", "text": "languages"}
    assert len(rows) == sum((1 + len(knobs[kind])) * len(knobs["seeds"]) for kind in tasks.values())
    sizes = {}
    for row in rows:
        sizes.setdefault((row["task"], row["grown"]), set()).add(int(row["parameters"]))
        if json.loads(row["preserves"]):
            assert float(row["moved"]) < 1e-3
    assert all(len(found) == 1 for found in sizes.values())
    for task in tasks:
        [base] = sizes[task, ""]
        grown = [size for (own, knobs), found in sizes.items() if own == task and knobs for size in found]
        assert min(grown) > base
        assert max(map(grown.count, grown)) == {"perceptrons": 5, "languages": 4}[tasks[task]]  # of exactly equal size


def test_runs_done_again_and_rows_of_git_give_the_same_and_every_parameter_reaches_it(checkout):
    makes_the_same_again(checkout, {STUDY: RUNS})
