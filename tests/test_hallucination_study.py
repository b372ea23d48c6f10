"""The study of hallucination from a clone to figures, at the tiny scale. The tests build on each other in order."""

import pytest
import yaml

from pipeline import MAKE, keeps_contract, makes_the_same_again, rows_of, stamped_and_clean

STUDY, RUNS = "hallucination", 82  # runs: models, small ones, tuned ones, and what each answers; a tokenizer


@pytest.fixture(scope="module", autouse=True)
def made(checkout):
    checkout.ok(*MAKE, f"STUDY={STUDY}")


def test_results_keep_the_contract(checkout):
    keeps_contract(checkout, STUDY, RUNS)
    stamped_and_clean(checkout, STUDY)


def test_every_arm_was_asked_every_task_before_and_after_tuning(checkout):
    knobs = yaml.safe_load((checkout.root / "scales/tiny.yaml").read_text())[STUDY]
    folder = checkout.root / "results/tiny" / STUDY
    rows = rows_of(folder)
    asked = {row["key"]: (row["sweep"], row["model"]) for row in rows if row["sweep"].endswith("_answers")}
    models = {f"{arm}_large_{seed}" for arm in knobs["arms"] for seed in knobs["seeds"]}
    small = {f"{arm}_{size}_{seed}" for size, own in knobs["smaller"].items() for arm in own for seed in knobs["seeds"]}
    assert {model for sweep, model in asked.values() if sweep == "base_answers"} == models | small
    assert {model for sweep, model in asked.values() if sweep == "tuned_answers"} == models
    answers = rows_of(folder / "tables", "answers")
    answers = [row for row in answers if row["breakdown"] == "all" and float(row["temperature"]) == 0]
    tasks = {row["task"] for row in answers}
    assert len(tasks) == 10  # one of them a control
    assert {(row["key"], row["task"]) for row in answers} == {(key, task) for key in asked for task in tasks}
    for sweep, arms in (("models", knobs["arms"]), ("sizes", knobs["smaller"]["small"])):
        sizes = [int(row["parameters"]) for row in rows if row["sweep"] == sweep]
        [wanted] = {arm["parameters"] for arm in arms.values()}
        assert max(abs(size - wanted) for size in sizes) <= 0.02 * wanted


def test_runs_done_again_and_rows_of_git_give_the_same_and_every_parameter_reaches_it(checkout):
    makes_the_same_again(checkout, {STUDY: RUNS})
