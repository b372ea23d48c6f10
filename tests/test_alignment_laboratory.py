"""The study's sweeps: each run gets what it takes, models that were made under the names that cells have."""

import inspect
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter, ValidationError

from common.alignment.evaluation import MEASURES
from common.alignment.runs import Asked
from common.analysis.alignment import laboratory, parameters
from common.errors import UserError

SEEDS = [10, 11]
LORA = {"r": 8, "lora_alpha": 16}
RECIPE = {"steps": 4, "batch_size": 4, "lora": LORA}
TUNING = RECIPE | {"learning_rate": 0.01}
RECIPES = {"sft": RECIPE | {"method": "sft"}, "dpo": RECIPE | {"method": "dpo", "beta": 0.1}}
RATES = {"sft": [0.1, 0.2, 0.3], "dpo": [0.01, 0.02]}
CROSSING = [
    {"start": start, "data": data, "aim": aim, "method": method}
    for start, data, aim, method in product(
        ("base", "instruct"), ("hh-like", "beavertails-like"), ("harmless", "helpful", "mix"), ("sft", "dpo")
    )
]
ASKING = {"items": 4, "written": 2, "unsafe": 5, "facts_asked": 3, "instructions": 6, "attacks": []}


class Books:
    """Does no run, but checks that each could be called, and gives numbers by chance."""

    scale = "tiny"

    def __init__(self):
        self.swept = {}

    def tables(self, names):
        return {name: Path(f"{name}.jsonl") for name in names}

    def sweep(self, name, run, cells, inputs):
        assert name not in self.swept, f"{name} is swept twice"
        signature, rng = inspect.signature(run), np.random.default_rng(0)
        rows = []
        for number, cell in enumerate(cells):
            named = {value for value in cell.values() if isinstance(value, str)}
            own = {k: v for k, v in inputs.items() if k in signature.parameters or k in named}
            places = {name: Path("there") for name in ("keep", "scratch") if name in signature.parameters}
            signature.bind(**cell, **own, **places)
            for key in ("start", "adapter", "reference", "first", "second", "third", "fourth"):
                assert cell.get(key) is None or cell[key] in own, f"{name}: {key} {cell.get(key)} was not made"
            quantized = cell.get("tuning", {}).get("lora", {}).get("quantized", False)
            rows.append(
                cell | dict.fromkeys(MEASURES, rng.random()) | {
                    "key": f"{name}{number}", "kept": f"{name}{number}", "reward": rng.random(), "distinct_pairs": 50,
                    "base_dtype": "nf4" if quantized else cell.get("base_dtype", "float32"), "base_bytes": 100,
                }
            )  # fmt: skip
        self.swept[name] = pd.DataFrame(rows)
        return self.swept[name]


@pytest.fixture
def made():
    books = Books()
    reviews = {
        "passages": 5, "tuning": TUNING | {"method": "sft"}, "recipe": TUNING | {"method": "dpo"},
        "sampling": {"wanted": "good", "pairs": 5, "samples": 2, "max_new_tokens": 8, "temperature": 1.0},
    }  # fmt: skip
    base = {"shares": {"general": 0.9, "unsafe": 0.1}}
    return books, laboratory.Laboratory(
        books,
        laboratory.TABLES,
        320,
        {"facts_per_relation": 9},
        base,
        {"unsafe": 0.0},
        {},
        {},
        reviews,
        RECIPES,
        RATES,
        ASKING,
    )


def test_a_study_is_swept_from_bases_to_merges(made):
    books, own = made
    starts = own.starts("main", SEEDS, ["base", "instruct", "unseen"], "test")
    assert starts["start"].tolist() == ["base"] * 2 + ["instruct"] * 2 + ["unseen"] * 2
    assert starts["adapter"].tolist() == ["none"] * 6
    assert books.swept["main_unseen"]["base"][0]["shares"] == {"general": 0.9, "unsafe": 0.0}
    crossing = own.tuned("crossing", "crossing", CROSSING, SEEDS, "test")
    assert len(crossing) == 48
    assert not crossing.duplicated(["dataset", "aim", "method", "start", "seed"]).any()
    assert set(crossing["seed"]) == set(SEEDS)
    # References are shared by aims: one for each start, data and seed.
    assert len(books.swept["crossing_references"]) == 8
    packed = own.tuned("quantised", "quantised", [arm | {"quantized": True} for arm in CROSSING[:6]], SEEDS, "test")
    assert set(packed["adapter"]) == {"qlora"}
    assert set(packed["base_dtype"]) == set(books.swept["quantised_asked"]["base_dtype"]) == {"nf4"}
    ways = {"slerp": {"method": "slerp", "settings": {"t": 0.5}}}
    across = {"dare": {"method": "dare_linear", "settings": {"weight": 0.5, "density": 0.5}}}
    merged = own.merged("merges", ways, across, ["base", "instruct"], SEEDS, "test")
    assert merged["method"].tolist() == (["sft"] * 2 + ["dpo"] * 2 + ["sft+dpo"] * 2) * 2
    of_both = books.swept["merges"].iloc[5]
    assert [of_both[name].split()[3:] for name in ("first", "second", "third", "fourth")] == [
        [aim, method, "11"] for method in ("sft", "dpo") for aim in ("harmless", "helpful")
    ]
    first = books.swept["merges"].iloc[2]
    assert first["first"] == "crossing base beavertails-like harmless dpo 10"
    assert first["method"] == "slerp"


def test_reviews_have_readers_and_pairs_of_their_own(made):
    books, own = made
    own.starts("main", SEEDS, ["base"], "test")
    arm = {"start": "reader", "data": "reviews", "aim": "sentiment", "method": "dpo"}
    arms = [arm | {"loss_type": loss, "beta": beta} for loss in ("sigmoid", "ipo") for beta in (0.05, 0.5)]
    table = own.losses("losses", arms, SEEDS, prompts=8, split="test")
    assert table.groupby(["loss_type", "beta"]).size().to_dict() == {
        **dict.fromkeys(product(("sigmoid", "ipo"), (0.05, 0.5)), 2), ("untuned", 0.0): 2
    }  # fmt: skip
    assert own.sentiment["name"].tolist() == ["sentiment"]
    assert len(books.swept["losses_references"]) == 2  # one a reader


def test_recipes_have_the_rate_of_the_highest_score_from_then_on(made):
    books, own = made
    own.starts("pilot", [100], ["base"], "validation")
    arms = parameters.arms(["base hh-like harmless,helpful sft,dpo"])
    table = own.rated("rates", arms, 100, "validation")
    for method, several in RATES.items():
        score = {}
        for rate in several:
            tuned, asked = books.swept[f"rates {method} {rate}"], books.swept[f"rates {method} {rate}_asked"]
            assert {one["learning_rate"] for one in tuned["tuning"]} == {rate}
            assert {one["split"] for one in asked["asking"]} == {"validation"}
            score[rate] = (asked["declined"].iloc[0] + asked["win_rate"].iloc[1]) / 2  # what each aim asks for
        best = max(score, key=score.get)
        assert table.loc[table["chosen"] & (table["method"] == method), "learning_rate"].tolist() == [best]
        assert table[table["method"] == method].set_index("learning_rate")["score"].to_dict() == pytest.approx(score)
        assert own.recipes[method].learning_rate == best
    own.tuned("crossing", "crossing", arms, [100], "test")
    used = {one["method"]: one["learning_rate"] for one in books.swept["crossing"]["tuning"]}
    assert used == table[table["chosen"]].set_index("method")["learning_rate"].to_dict()


def test_models_that_were_not_made_are_missed(made):
    _, own = made
    own.starts("main", SEEDS, ["base"], "test")
    with pytest.raises(AssertionError, match=r"first crossing base .* was not made"):
        own.merged("merges", {"slerp": {"method": "slerp", "settings": {"t": 0.5}}}, {}, ["base"], SEEDS, "test")


def test_other_tables_are_refused():
    with pytest.raises(UserError, match="the study needs"):
        laboratory.Laboratory(Books(), ["facts"], 320, {}, {}, {}, {}, {}, {}, {}, {}, {})


def test_arms_are_every_combination_of_alternatives():
    found = parameters.arms(["base hh-like harmless,mix sft,dpo", "base hh-like mix dpo quantized=true n=50,100"])
    assert len(found) == 6
    assert found[1] == {"start": "base", "data": "hh-like", "aim": "harmless", "method": "dpo"}
    assert found[5] == {
        "start": "base", "data": "hh-like", "aim": "mix", "method": "dpo", "quantized": True, "n": 100
    }  # fmt: skip
    assert parameters.places(["base hh-like mix dpo n=50"], quantized=False) == [
        {"dataset": "hh-like", "aim": "mix", "method": "dpo", "start": "base"}
    ]


@pytest.mark.parametrize(
    "line", ["base hh-like mix", "base hh-like mix dpo 50", "lion hh-like mix dpo", "base x y dpo"]
)
def test_a_line_that_is_no_arm_is_named(line):
    with pytest.raises(UserError, match=f"arm '{line}'"):
        parameters.arms([line])


def test_a_crossing_that_is_not_balanced_or_not_of_one_kind_is_refused():
    with pytest.raises(UserError, match="arms are not balanced in start and data: base and hh-like 1"):
        parameters.places(["base hh-like mix dpo", "instruct hh-like mix sft,dpo"], quantized=False)
    lines = ["base hh-like mix sft quantized=true", "base hh-like mix dpo"]
    with pytest.raises(UserError, match="arm base hh-like mix dpo: quantized must be true, as of all arms beside it"):
        parameters.places(lines, quantized=True)


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (parameters.Lines, ["base hh-like mix dpo loss_type=ipoo"], "arm 'base hh-like mix dpo loss_type=ipoo'"),
        (parameters.Way, {"method": "slerpp", "settings": {"t": 0.5}}, "Input should be 'linear', 'slerp'"),
        (parameters.Way, {"method": "slerp", "settings": {"density": 0.5}}, "density"),
        (parameters.Way, {"method": "dare_linear", "settings": {"weight": [0.5] * 4, "density": 7}}, "density"),
        (Asked, ASKING | {"unsafe": -3}, "greater than 0"),
    ],
)
def test_what_a_parameter_may_not_be_is_refused_before_anything_runs(kind, value, says):
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(kind).validate_python(value)


def test_ways_to_merge_may_be_of_two_models_or_of_four():
    for weight in (1.0, [0.5, 0.5], [0.5] * 4):
        parameters.Way(method="dare_linear", settings={"weight": weight, "density": 0.5})


def test_a_best_rate_at_the_end_of_what_was_tried_is_told(made):
    _, own = made
    own.starts("pilot", [100], ["base"], "validation")
    table = own.rated("rates", parameters.arms(["base hh-like harmless sft,dpo"]), 100, "validation")
    for _, several in table.groupby("method"):
        ends = several["learning_rate"].isin([several["learning_rate"].min(), several["learning_rate"].max()])
        assert (several["edge"] == (several["chosen"] & ends)).all()
