"""The study of merging from a clone to figures, at the tiny scale. The tests build on each other in order."""

import json
from collections import Counter

import pytest
import torch
import yaml

from common import zoo
from pipeline import MAKE, keeps_contract, makes_the_same_again, rows_of, stamped_and_clean

STUDY, RUNS = "merging", 185  # runs: models of six families, merges and rivals, of the pilot and reported


@pytest.fixture(scope="module", autouse=True)
def made(checkout, corpus):
    checkout.take(corpus)
    checkout.edit("params.yaml", "scale: laptop", "scale: tiny")
    checkout.ok(*MAKE, f"STUDY={STUDY}")


def test_results_keep_the_contract(checkout):
    keeps_contract(checkout, STUDY, RUNS)
    stamped_and_clean(checkout, STUDY)


def test_what_is_merged_is_exported_and_opens(checkout):
    folder = checkout.root / "build/checkpoints/tiny"
    states = {name: zoo.load(name, root=folder)[0].state_dict() for name in ("half-0", "base-0", "generalist-0")}
    states["expert"] = zoo.load("expert_finance-0", root=folder)[0].state_dict()
    same = {
        name: all(torch.equal(states["base-0"][key], state[key]) for key in state) for name, state in states.items()
    }
    assert same == {"half-0": True, "base-0": True, "generalist-0": False, "expert": False}


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
