"""The study of merging from a clone to figures, at the tiny scale. The tests build on each other in order."""

import json
from collections import Counter

import pytest
import yaml

from pipeline import keeps_contract, makes_the_same_again, rows_of, stamped_and_clean

STUDY, RUNS = "merging", 185  # runs: models of six families, merges and rivals, of the pilot and reported


@pytest.fixture(scope="module", autouse=True)
def made(checkout):
    checkout.ok("dvc", "repro", f"study@{STUDY}-tiny")  # as `make figures` does, but for the exports: test_make_figures


def test_results_keep_the_contract(checkout):
    keeps_contract(checkout, STUDY, RUNS)
    stamped_and_clean(checkout, STUDY)


def test_every_method_and_rival_of_the_scale_was_examined_on_every_seed_and_domain(checkout):
    knobs = yaml.safe_load((checkout.root / "scales/tiny.yaml").read_text())[STUDY]
    rows = rows_of(checkout.root / "results/tiny" / STUDY)
    places = len(knobs["seeds"]) * 2
    merged = Counter((row["method"], row["settings"]) for row in rows if row["sweep"] == "merges")
    assert set(merged.values()) == {places}
    assert sum(merged.values()) == places * (1 + len(knobs["methods"]))
    assert sum(row["sweep"] == "rivals_examined" for row in rows) == places * len(knobs["rivals"])
    trained = [row for row in rows if row["sweep"] == "rivals"]
    adapters = {row["adapter_layers"] for row in trained if "lora" in json.loads(row["tuning"])}
    assert adapters == {"7"}  # all linear layers of one block
    assert {row["base_dtype"] for row in trained} == {"float32"}


def test_runs_done_again_and_rows_of_git_give_the_same_and_every_parameter_reaches_it(checkout):
    makes_the_same_again(checkout, {STUDY: RUNS})
