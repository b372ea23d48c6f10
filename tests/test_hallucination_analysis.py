"""What the study of hallucination claims and draws: on made-up answers whose truth is known."""

import warnings
from functools import cache
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.transforms import Bbox

from common.analysis import hallucination as analysis
from common.analysis.hallucination.claims import share
from common.analysis.hallucination.declaring import pooled
from common.analysis.hallucination.rates import RECALLED, STORIES
from common.errors import UserError
from common.evidence import decide, detectable_effect, prose
from common.figures import save_figure
from common.hallucination.world import QUARTILES
from common.plots import hallucination as plots

SEEDS = (0, 1, 2, 3, 4)
BLOCKS = {"third": ["recurrent", "recurrent", "attention"], "two thirds": ["attention", "attention", "recurrent"]}
ARMS = {
    "Llama": {"family": "llama", "shape": {"layers": 3}, "parameters": 500},
    "Mamba-2": {"family": "mamba2", "shape": {"layers": 3}, "parameters": 500},
    "LSTM": {"family": "lstm", "shape": {"layers": 3}, "parameters": 500},
    "third": {"family": "recurrent_gemma", "shape": {"layers": 3, "blocks": BLOCKS["third"]}, "parameters": 500},
    "two thirds": {
        "family": "recurrent_gemma", "shape": {"layers": 3, "blocks": BLOCKS["two thirds"]}, "parameters": 500
    },
}  # fmt: skip
SMALL = {name: ARMS[name] | {"parameters": 200} for name in ("Llama", "Mamba-2")}
RATES = {name: [0.01] for name in ("Llama", "Mamba-2", "LSTM", "third")}
TASKS = {"recall": "factuality", "claims": "factuality", "conflict": "faithfulness", "endings": "faithfulness"}
CONTROL = {"proverbs": "factuality"}
# Shares of wrong answers by kind, aspect and (size, stage): as the paper has it.
TRUTH = {
    ("attention", "factuality"): (0.6, 0.3, 0.3), ("attention", "faithfulness"): (0.7, 0.4, 0.2),
    ("recurrent", "factuality"): (0.7, 0.5, 0.5), ("recurrent", "faithfulness"): (0.5, 0.5, 0.5),
    ("hybrid", "factuality"): (None, 0.4, 0.4), ("hybrid", "faithfulness"): (None, 0.45, 0.4),
}  # fmt: skip
SETTINGS = (("small", "base"), ("large", "base"), ("large", "instruct"))
MEMORISED = {"attention": 0.7, "hybrid": 0.5, "recurrent": 0.3}
ITEMS = 50
CHANCE = 0.05
BASIS = analysis.Basis({stage: list(TASKS) for stage in ("base", "instruct")}, list(ARMS), list(ARMS))


def made_answers(truth=TRUTH, memorised=MEMORISED, seeds=SEEDS, noise=0.01):
    rows = []
    for arm, own in ARMS.items():
        kind = analysis.kind_of(own)
        for place, (size, stage) in enumerate(SETTINGS):
            if size == "small" and arm not in SMALL:
                continue
            for seed in seeds:
                about = {"arm": arm, "kind": kind, "size": size, "stage": stage, "seed": seed, "temperature": 0.0}
                about["parameters"] = (SMALL if size == "small" else ARMS)[arm]["parameters"]
                for number, (task, aspect) in enumerate((TASKS | CONTROL).items()):
                    wrong = truth[kind, aspect][place] + noise * (((seed * 7 + number * 3 + place) % 5) - 2)
                    one = about | {"task": task, "aspect": aspect, "items": ITEMS, "memorised": None, "chance": CHANCE}
                    one |= {"unknown": 0.1 * place}
                    rows.append(one | {"breakdown": "all", "value": "all", "wrong": wrong})
                    for nth, quartile in enumerate(QUARTILES):
                        value = wrong + 0.05 * (nth - 1.5)
                        rows.append(one | {"breakdown": "frequency", "value": quartile, "wrong": value})
                    if task == "conflict":
                        for name, counts in (("distractors", "013"), ("distance", "024")):
                            for count in counts:
                                value = wrong + 0.02 * int(count)
                                rows.append(one | {"breakdown": name, "value": count, "wrong": value})
                    if task == "endings":
                        said = memorised[kind] + noise * (seed - 2)
                        rows.append(
                            one | {"breakdown": "asked", "value": "otherwise", "wrong": said, "memorised": said}
                        )
    table = pd.DataFrame(rows)
    counts = (table["wrong"] * ITEMS).round().astype(int)
    table["outcomes"] = [" ".join("1" * count + "0" * (ITEMS - count)) for count in counts]
    # Samples at a temperature count for nothing.
    return pd.concat([table, table.assign(temperature=1.0, wrong=0.99)], ignore_index=True)


def made_runs():
    rows = [
        {"architecture": arm, "seed": seed, "learning_rate": 0.003, "parameters": arm["parameters"], "tokens": 900}
        | dict.fromkeys([*RECALLED, STORIES], 1.0 + seed / 9)
        for arm in ARMS.values()
        for seed in SEEDS
    ]
    return pd.DataFrame(rows).assign(key=[str(number) for number in range(len(rows))])


def made_calibration():
    """Of conflicts one model of an arm is never right, and of another arm all but one."""
    rows = made_answers().query("breakdown == 'all' and temperature == 0")
    table = rows.assign(error=rows["wrong"] / 2, auroc=0.5 + rows["wrong"] / 3)
    conflict = table["task"] == "conflict"
    table.loc[conflict & (table["seed"] == 3) & (table["arm"] == "LSTM"), "auroc"] = None
    table.loc[conflict & (table["seed"] != 3) & (table["arm"] == "third"), "auroc"] = None
    return table


FIGURES = {
    "early": (lambda: analysis.early_table(made_answers()), plots.early),
    "rarity": (lambda: analysis.rarity_table(made_answers()), plots.rarity),
    "map": (lambda: analysis.map_table(made_answers()), plots.by_task),
    "size": (lambda: analysis.size_table(made_answers(), list(TASKS)), plots.size),
    "tuning": (lambda: analysis.tuning_table(made_answers(), list(TASKS)), plots.tuning),
    "ladder": (lambda: analysis.ladder_table(made_answers(), ARMS, list(TASKS)), plots.ladder),
    "between": (lambda: analysis.between_table(made_answers()), plots.between),
    "temperature": (lambda: analysis.temperature_table(made_answers()), plots.temperature),
    "calibration": (lambda: analysis.calibration_table(made_calibration()), plots.calibration),
}


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        mpl.use("agg")
        yield
        plt.close("all")


@cache
def drawn(name):
    """The table and the figure, which tests share as drawing takes long."""
    make, draw = FIGURES[name]
    table = make()
    return table, draw(table)


@cache
def declared():
    pilot = made_answers(seeds=(100, 101, 102))
    return tuple(analysis.declare(pilot, BASIS, seeds=5, margin=0.05, slight=0.08))


def decided(**options):
    return decide(list(declared()), analysis.evidence(made_answers(**options), BASIS))


def test_the_papers_world_gives_the_papers_verdicts():
    found = decided()
    ours = {"hybrid": "not reproduced", "stories_attention": "not reproduced", "stories_recurrent": "inconclusive"}
    expected = dict.fromkeys(found, "reproduced") | ours  # of which the paper says nothing
    assert {name: record["verdict"] for name, record in found.items()} == expected
    assert found["rare"]["estimate"] == pytest.approx(0.5 - 0.3)
    assert found["endings"]["estimate"] == pytest.approx(0.7 - 0.3)
    assert found["size_attention_faithfulness"]["estimate"] == pytest.approx(0.3, abs=0.02)
    assert found["tuning_recurrent"]["estimate"] == pytest.approx(0, abs=0.02)
    assert found["universal"]["estimate"] == pytest.approx(0.2, abs=0.02)
    assert found["tuning_differs"]["estimate"] == pytest.approx(0.2, abs=0.02)
    assert found["rare_each"]["estimate"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("changed", "overturned"),
    [
        ({("recurrent", "factuality"): (0.7, 0.3, 0.3)}, {"rare"}),
        ({("hybrid", "factuality"): (None, 0.02, 0.02)}, {"universal"}),
        ({("recurrent", "faithfulness"): (0.9, 0.5, 0.5)}, {"size_recurrent_faithfulness"}),
        (
            {("attention", "faithfulness"): (0.4, 0.4, 0.4)},
            {"size_attention_faithfulness", "tuning_attention", "tuning_differs"},
        ),
        ({("recurrent", "faithfulness"): (0.5, 0.5, 0.2)}, {"tuning_recurrent"}),
    ],
)
def test_other_worlds_overturn_what_they_contradict(changed, overturned):
    verdicts = {name: record["verdict"] for name, record in decided(truth=TRUTH | changed).items()}
    assert {name: verdicts[name] for name in overturned} == dict.fromkeys(overturned, "not reproduced")


def test_a_claim_tells_which_tasks_and_arms_it_rests_on():
    basis = analysis.Basis(
        {"base": ["recall", "conflict"], "instruct": ["recall", "conflict", "endings"]},
        ["Llama", "Mamba-2"],
        ["Llama", "LSTM"],
    )
    claims = analysis.declare(made_answers(seeds=(100, 101)), basis, seeds=5, margin=0.05, slight=0.08)
    ours = {claim.id: claim.ours for claim in claims}
    assert ours["tuning_attention"].endswith(
        "mean over conflict, endings (base models have read only the form of conflict); arms that follow: Llama"
    )
    assert ours["tuning_recurrent"].endswith("arms that follow: Mamba-2")
    assert ours["size_recurrent_faithfulness"].endswith("mean over conflict; Mamba-2")  # LSTM has one size
    assert ours["rare"].endswith("recurrent (Mamba-2, LSTM) minus attention (Llama)")
    assert ours["endings"].endswith("attention (Llama) minus recurrent (LSTM)")
    assert ours["hybrid"].endswith("attention (Llama) minus hybrid (third, two thirds)")


def test_claims_of_one_aspect_share_the_pilots_spread_and_seeds_that_agree_do_not_make_it_none():
    names = [claim.id for claim in declared()]
    found = {name: np.array([0.0, 0.0]) for name in names}
    found |= {"rare": np.array([0.1, 0.3]), "endings": np.array([0.0, 0.2]), "hybrid": np.array([0.0, 0.7])}
    spreads = pooled(found)
    # Variances of pairs are half the squared difference: .02, .02 and .245, the first among 4, the last among 7.
    assert spreads["rare_each"] == spreads["size_attention_factuality"] == pytest.approx((0.02 / 4) ** 0.5)
    assert spreads["tuning_recurrent"] == pytest.approx(0.035**0.5)
    assert spreads["tuning_differs"] == pytest.approx(0.07**0.5)
    assert spreads["differs"] == pytest.approx((0.02 / 4 + 0.02) ** 0.5)
    # `universal`, alone of its kind, does not vary: 13 claims that are no contrast share what there is.
    assert spreads["universal"] == pytest.approx(((0.02 + 0.02 + 0.245) / 13) ** 0.5)
    assert list(spreads) == names
    assert min(pooled({name: np.array([0.1, 0.1]) for name in names}).values()) > 0
    pilot = analysis.evidence(made_answers(seeds=(100, 101, 102)), BASIS)
    told = {claim.id: claim.detectable for claim in declared()}
    assert told["rare"] == pytest.approx(detectable_effect(pooled(pilot)["rare"], 5, alpha=0.025 / len(names)))


def test_models_that_keep_to_the_proverb_overturn_the_claim_on_endings():
    found = decided(memorised={"attention": 0.3, "hybrid": 0.5, "recurrent": 0.7})
    assert found["endings"]["verdict"] == "not reproduced"
    assert found["endings"]["estimate"] == pytest.approx(-0.4)


def test_behind_on_rare_facts_and_on_endings_alike_is_no_difference_of_where():
    # As far behind on both: a gap of any sign would not do, and the size of a difference is never below zero.
    found = decided(memorised={"attention": 0.3, "hybrid": 0.5, "recurrent": 0.5})
    assert found["differs"]["estimate"] == pytest.approx(0, abs=0.01)
    assert found["differs"]["verdict"] == "not reproduced"


def test_tasks_on_which_all_guess_count_for_no_mean():
    pilot = made_answers(seeds=(100, 101)).query("temperature == 0")
    guessed = pilot["task"] == "claims"
    pilot.loc[guessed, ["wrong", "chance"]] = 0.5
    pilot.loc[guessed & (pilot["arm"] == "LSTM"), "wrong"] = 0.42  # 58 of 100 right, which guessing often gives
    told = ["recall", "conflict", "endings"]
    assert analysis.basis(pilot, 0.05).tasks == {"base": told, "instruct": told}
    answers = made_answers(noise=0.0)
    answers.loc[answers["task"] == "claims", "wrong"] = 0.9
    found = analysis.evidence(answers, analysis.Basis({"base": told, "instruct": told}, list(ARMS), list(ARMS)))
    assert found["size_attention_factuality"] == pytest.approx([0.3] * 5)
    # An aspect of which nothing tells has all its tasks.
    pilot.loc[pilot["aspect"] == "faithfulness", ["wrong", "chance"]] = 0.9, 0.5
    assert analysis.basis(pilot, 0.05).tasks["base"] == ["recall", "conflict", "endings"]


def test_arms_that_do_not_follow_a_story_count_for_nothing_that_is_said_of_tuning():
    pilot = made_answers(seeds=(100, 101)).query("temperature == 0")
    base = (pilot["task"] == "conflict") & (pilot["stage"] == "base")
    pilot.loc[base & (pilot["arm"] == "LSTM"), "wrong"] = 1 - CHANCE
    basis = analysis.basis(pilot, 0.05)
    assert basis.following == ["Llama", "third", "two thirds", "Mamba-2"]
    assert basis.knowing == ["Llama", "third", "two thirds", "Mamba-2", "LSTM"]
    answers = made_answers(noise=0.0)
    answers.loc[(answers["arm"] == "LSTM") & (answers["stage"] == "instruct"), "wrong"] = 0.0
    assert analysis.evidence(answers, basis)["tuning_recurrent"] == pytest.approx([0.0] * 5)
    # Where no recurrent arm follows all are kept: a claim on none could not be decided.
    pilot.loc[base & (pilot["kind"] == "recurrent"), "wrong"] = 1 - CHANCE
    assert analysis.basis(pilot, 0.05).following == ["Llama", "third", "two thirds", "Mamba-2", "LSTM"]


def test_arms_that_do_not_know_the_proverbs_say_nothing_of_endings():
    pilot = made_answers(seeds=(100, 101)).query("temperature == 0")
    pilot.loc[(pilot["task"] == "proverbs") & (pilot["arm"] == "LSTM"), "wrong"] = 1 - CHANCE
    basis = analysis.basis(pilot, 0.05)
    assert basis.knowing == ["Llama", "third", "two thirds", "Mamba-2"]
    assert "proverbs" not in basis.tasks["base"] + basis.tasks["instruct"]
    answers = made_answers(noise=0.0)
    answers.loc[(answers["arm"] == "LSTM") & (answers["breakdown"] == "asked"), "wrong"] = 0.0
    assert analysis.evidence(answers, basis)["endings"] == pytest.approx([0.4] * 5, abs=0.03)


def test_one_recurrent_arm_that_knows_rare_facts_overturns_what_is_said_of_each():
    answers = made_answers(noise=0.0)
    answers.loc[(answers["arm"] == "LSTM") & (answers["task"] == "recall"), "wrong"] = 0.1
    found = analysis.evidence(answers, BASIS)
    assert found["rare_each"] == pytest.approx([0.1 - 0.375] * 5)
    assert found["rare"] == pytest.approx([(0.1 - 0.375 + 0.2) / 2] * 5)


def test_the_bootstrap_over_seeds_and_items_is_about_as_wide_as_its_parts_say():
    answers = made_answers(noise=0.0)
    found = analysis.bootstrapped(answers, BASIS, decided(noise=0.0)).set_index("claim")
    # Seeds are alike; what is left is the drawing of items, the same for all arms of a seed.
    rare = answers.query("task == 'recall' and value == 'rarest' and stage == 'base' and size == 'large' and seed == 0")
    own = rare[rare["temperature"] == 0].set_index("arm")["outcomes"]
    said = {arm: np.array(text.split(), float) for arm, text in own.items()}
    by_item = (said["Mamba-2"] + said["LSTM"]) / 2 - said["Llama"]
    width = 2 * 1.96 * by_item.std() / (ITEMS * len(SEEDS)) ** 0.5
    assert found.loc["rare", "high"] - found.loc["rare", "low"] == pytest.approx(width, rel=0.15)
    assert found.loc["rare", "low"] < found.loc["rare", "estimate"] < found.loc["rare", "high"]
    assert found["agree"].all()


def test_each_arm_weighs_the_same_and_samples_weigh_nothing():
    answers = made_answers(noise=0.0)
    doubled = pd.concat([answers, answers[(answers["arm"] == "LSTM") & (answers["task"] == "recall")]])
    doubled.loc[doubled["arm"] == "LSTM", "wrong"] = 0.9
    wanted = {"kind": "recurrent", "task": "recall", "size": "large", "stage": "base"}
    assert share(doubled, **wanted).tolist() == pytest.approx([(0.9 + 0.5) / 2] * 5)
    with pytest.raises(UserError, match="nothing was answered with breakdown=all, task=chess"):
        share(answers, task="chess")


def test_seeds_that_do_not_pair_are_refused():
    answers = made_answers()
    lost = answers[~((answers["kind"] == "attention") & (answers["seed"] == 3))]
    with pytest.raises(UserError, match="cannot be paired"):
        analysis.evidence(lost, BASIS)


def test_kinds_follow_from_layers_and_arms_without_a_comparison_are_refused():
    assert [analysis.kind_of(arm) for arm in ARMS.values()] == [
        "attention", "recurrent", "recurrent", "hybrid", "hybrid"
    ]  # fmt: skip
    every = {"family": "recurrent_gemma", "shape": {"layers": 2, "blocks": ["attention"]}}
    assert analysis.kind_of(every) == "attention"
    assert analysis.ladder_share(ARMS["third"]) == pytest.approx(1 / 3)
    cut = {"family": "recurrent_gemma", "shape": {"layers": 2, "blocks": BLOCKS["third"]}}
    assert analysis.kind_of(cut) == "recurrent"
    analysis.check_arms(ARMS, {"small": SMALL}, RATES)
    for sizes, message in (
        ({}, "smaller sizes are none; allowed: one or more, none called large"),
        ({"large": SMALL}, "smaller sizes are large; allowed"),
        ({"small": SMALL, "middle": SMALL | {"LSTM": ARMS["LSTM"]}}, "unlike arms; those of the first: Llama, Mamba-2"),
    ):
        with pytest.raises(UserError, match=message):
            analysis.check_arms(ARMS, sizes, RATES)
    fewer = {name: arm for name, arm in ARMS.items() if name != "two thirds"}
    for arms, small, rates, message in (
        ({"Llama": ARMS["Llama"]}, SMALL, {"Llama": [1]}, "the study needs one of hybrid, recurrent"),
        (ARMS, {"Llama": SMALL["Llama"]}, RATES, "arms of the size small are Llama; the study needs one of recurrent"),
        (ARMS | {"LSTM": ARMS["LSTM"] | {"parameters": 510}}, SMALL, RATES, r"arms have \[500, 510\] parameters"),
        (fewer, SMALL, RATES, "makes no ladder"),
        (ARMS, SMALL | {"GRU": SMALL["Mamba-2"]}, RATES, "smaller arms GRU are not among the arms with rates: Llama"),
        (ARMS, SMALL, RATES | {"GRU": [1]}, "rates of GRU, which are not among the arms"),
        (ARMS, SMALL, {"Llama": [1], "LSTM": [1], "third": [1]}, "no rates for Mamba-2, nor for another arm"),
    ):
        with pytest.raises(UserError, match=message):
            analysis.check_arms(arms, {"small": small}, rates)


def test_models_are_named_and_their_answers_found():
    runs = analysis.named(made_runs(), ARMS, "large")
    assert runs["model"].tolist()[:2] == ["Llama_large_0", "Llama_large_1"]
    assert runs["kind"].tolist() == [analysis.kind_of(arm) for arm in ARMS.values() for _ in SEEDS]
    evaluated = pd.DataFrame({"key": ["a", "b"], "model": ["Llama_large_0", "LSTM_large_2"]})
    rows = pd.DataFrame({"key": ["b", "a", "a"], "wrong": [0.1, 0.2, 0.3]})
    found = analysis.of_models(evaluated, rows, runs, "base")
    assert found[["arm", "seed", "stage", "wrong"]].to_numpy().tolist() == [
        ["LSTM", 2, "base", 0.1], ["Llama", 0, "base", 0.2], ["Llama", 0, "base", 0.3]
    ]  # fmt: skip
    with pytest.raises(UserError, match="no rows of LSTM_large_2"):
        analysis.of_models(evaluated, rows[1:], runs, "base")
    with pytest.raises(UserError, match="loss of LSTM on stories is 1 for all 5 seeds"):
        analysis.named(made_runs().assign(**{STORIES: 1.0}), ARMS, "large")
    assert len(analysis.named(made_runs().query("seed == 0"), ARMS, "large")) == len(ARMS)  # a rate tried on one seed


def test_the_rate_with_the_lowest_loss_on_recall_and_stories_is_chosen_and_an_end_of_the_range_told():
    losses = {("Llama", 0.001): (1.0, 1.0), ("Llama", 0.01): (1.8, 0.1), ("Llama", 0.1): (9.0, 9.0)}
    losses["LSTM", 0.01] = 3.0, 3.0
    runs = pd.DataFrame(
        {"arm": arm, "learning_rate": rate, **dict.fromkeys(RECALLED, recall), STORIES: stories}
        for (arm, rate), (recall, stories) in losses.items()
    )
    rates = {"Llama": [0.001, 0.01, 0.1], "LSTM": [0.01]}
    table = analysis.rates_table(runs, rates)
    assert table["score"].tolist() == pytest.approx([1.0, 0.95, 9.0, 3.0])
    assert table["chosen"].tolist() == [False, True, False, True]
    assert table["edge"].tolist() == [False, False, False, True]
    arms = {"Llama": ARMS["Llama"], "LSTM": ARMS["LSTM"], "other": ARMS["LSTM"]}
    assert analysis.chosen_rates(table, arms) == {"Llama": 0.01, "LSTM": 0.01, "other": 0.01}
    with pytest.raises(UserError, match=r"LSTM was not tried at 0\.3"):
        analysis.rates_table(runs, rates | {"LSTM": [0.01, 0.3]})


def test_a_model_that_has_not_learnt_stops_the_study():
    runs = analysis.named(made_runs(), ARMS, "large").assign(learnt=1.2)
    analysis.check_learnt(runs.assign(learnt_facts=True))
    with pytest.raises(UserError, match=r"most frequent facts: LSTM_large_2 1\.22; allowed: 1\.2 nats"):
        analysis.check_learnt(runs.assign(learnt_facts=runs["model"] != "LSTM_large_2"))


def test_skill_is_what_is_right_above_chance_and_guesses_are_told():
    answers = made_answers()
    hardly = (answers["task"] == "conflict") & (answers["arm"] == "LSTM")
    answers.loc[hardly, "wrong"] = 1 - CHANCE - 0.04
    table = analysis.skill_table(answers, 0.05)
    assert table.loc[("large", "attention", "Llama"), "recall, estimate"] == pytest.approx(1 - 0.3 - CHANCE, abs=0.02)
    assert table.index[~table["copies"]].tolist() == [("large", "recurrent", "LSTM")]


def test_examples_are_picked_by_group_whatever_was_answered():
    about = {"size": "large", "stage": "instruct", "seed": 0, "prompt": "p", "right": "x", "task": "recall"}
    rows = [
        about | {"arm": arm, "value": value, "answer": f" {said}", "correct": float(said == "x")}
        for arm, said in (("Llama", "x"), ("LSTM", "y"))
        for value in QUARTILES
    ]
    table = analysis.examples_table(pd.DataFrame(rows), ["LSTM", "Llama"], 0)
    assert table.to_dict("list") == {"LSTM": ["y"], "Llama": ["x ✓"]}
    assert table.index.tolist() == [("recall", "p", "x")]
    # Any name in the form is right: the first on the list is not the answer.
    rows = [one | {"task": "formats", "value": "again", "right": "Africa, Africa, stop."} for one in rows[::4]]
    table = analysis.examples_table(pd.DataFrame(rows), ["LSTM", "Llama"], 0)
    assert table.index.tolist() == [("formats", "p", "X, X, stop.")]


def test_what_was_matched_is_told_by_arm():
    table = analysis.matched_table(analysis.named(made_runs(), ARMS, "large"))
    assert table.loc[("large", "hybrid", "third"), ["parameters", "seeds"]].tolist() == [500, 5]
    assert table[STORIES].tolist() == pytest.approx([1 + 2 / 9] * 5)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_saved_and_no_text_stands_on_another_or_leaves_the_page(name, tmp_path, texts):
    table, figure = drawn(name)
    page = figure.bbox
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        save_figure(figure, tmp_path, name, table)
    assert len(texts) > 5
    for (one, here), (other, there) in combinations(texts, 2):
        assert not here.padded(-1).overlaps(there.padded(-1)), (one, other)
    for line, box in texts:
        assert Bbox.intersection(box, page).bounds == pytest.approx(box.bounds), line


@pytest.mark.parametrize("name", ["early", "map", "calibration"])
def test_every_share_is_a_dot_in_the_row_of_its_arm(name):
    table, figure = drawn(name)
    table = table.assign(panel=table["task"] + ", " + table["measure"]) if name == "calibration" else table
    column = {"early": "measure", "map": "task", "calibration": "panel"}[name]
    for ax in (ax for ax in figure.axes if ax.get_visible()):
        own = table[table[column] == ax.get_title(loc="left")].set_index("arm")
        (points,) = (found for found in ax.collections if isinstance(found, PathCollection))
        name_of = ax.yaxis.get_major_formatter()
        assert {name_of(y): x for x, y in points.get_offsets()} == pytest.approx(own["estimate"].to_dict())


@pytest.mark.parametrize(
    ("name", "column"), [("tuning", "stage"), ("between", "count"), ("temperature", "temperature")]
)
def test_every_arm_is_a_line_through_its_shares(name, column):
    table, figure = drawn(name)
    panel = {"tuning": "aspect", "between": "between", "temperature": "task"}[name]
    for ax, (_, own) in zip(figure.axes, table.groupby(panel, sort=False), strict=True):
        assert len(ax.containers) == len(ARMS)
        for container in ax.containers:
            line, arm = container.lines[0], container.get_label()
            shares = own[own["arm"] == arm].sort_values(column)["estimate"]
            assert line.get_ydata().tolist() == pytest.approx(shares.tolist())


def test_the_figure_of_rarity_goes_from_the_most_frequent_facts_to_the_rarest_with_guessing_beside():
    table, figure = drawn("rarity")
    assert table["guess"].tolist() == pytest.approx([1 - CHANCE] * len(table))
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(QUARTILES)
    lines = {container.get_label(): container.lines[0].get_ydata() for container in ax.containers}
    assert set(lines) == set(ARMS)
    # As made up: .05 more from each quarter to the next, around the share of the aspect.
    assert lines["Llama"].tolist() == pytest.approx([0.225, 0.275, 0.325, 0.375], abs=0.011)
    assert lines["LSTM"].tolist() == pytest.approx([0.425, 0.475, 0.525, 0.575], abs=0.011)


def test_the_lowest_panel_of_each_column_has_its_ticks_named_and_no_other():
    figure = drawn("map")[1]
    named = [ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes]
    shown = [ax.get_visible() for ax in figure.axes]
    assert shown == [True] * 5 + [False]
    assert named[:5] == [False, False, True, True, True]


@pytest.mark.parametrize(("name", "most"), [("between", 0.11), ("temperature", 0.04)])
def test_points_set_apart_stay_near_their_place_and_around_it(name, most):
    table, figure = drawn(name)
    column = {"between": "count", "temperature": "temperature"}[name]
    panel = {"between": "between", "temperature": "task"}[name]
    for ax, (_, own) in zip(figure.axes, table.groupby(panel, sort=False), strict=True):
        wanted = np.sort(own[column].unique())
        moved = np.array([container.lines[0].get_xdata() for container in ax.containers]) - wanted
        assert len(set(moved[:, 0])) == len(ARMS)
        assert moved.mean(axis=0) == pytest.approx([0.0] * len(wanted), abs=1e-9)
        assert np.abs(moved).max() <= most


def test_an_arm_with_no_two_models_that_have_an_auroc_has_no_interval_of_it():
    table = analysis.calibration_table(made_calibration()).set_index(["task", "measure", "arm"])
    assert set(table.index.get_level_values("task")) == {"recall", "conflict"}
    assert ("conflict", "AUROC", "LSTM") in table.index
    assert ("conflict", "AUROC", "third") not in table.index
    assert ("conflict", "calibration error", "third") in table.index
    nowhere = analysis.calibration_table(made_calibration().assign(auroc=None))
    assert set(nowhere["measure"]) == {"calibration error"}


def test_words_tell_gaps_by_rarity_and_which_arm_follows_stories():
    answers = made_answers(noise=0.0)
    own = (answers["arm"] == "LSTM") & (answers["value"] == QUARTILES[-1])
    answers.loc[own, "wrong"] += 0.1 * np.resize([1, 2], own.sum())
    even = (answers["kind"] == "recurrent") & (answers["arm"] == "Mamba-2") & (answers["value"] == QUARTILES[0])
    answers.loc[even, "wrong"] -= 0.2
    skills = analysis.skill_table(answers, 0.05)
    checked = pd.DataFrame({"claim": ["rare", "endings"], "agree": [True, False]})
    words = analysis.spoken(with_unanswerable(answers), skills, checked, BASIS)
    assert (words["answerable"], words["unknown"]) == (pytest.approx(-0.2), pytest.approx(0.4))
    assert words["guessed"] == "unanswerable"
    assert words["unsaid_attention"] == pytest.approx(0.2)
    assert words["counted"] == "conflict, endings (base models have read only the form of conflict)"
    assert words["gaps"].endswith("Mamba-2 +0.00 to +0.20")
    assert words["growing"] == "LSTM, Mamba-2"
    assert words["behind"] == "LSTM"
    assert words["others"] == "+0.20, [+0.20, +0.20]"
    assert (words["follower"], words["followed"]) == ("Llama", pytest.approx(0.6 - CHANCE))
    assert words["disagreeing"] == "endings"
    assert words["guessing"] == "none"
    prose(analysis.SUMMARY, decided(), **words)
    everywhere = made_answers(noise=0.0).assign(unknown=0.0)
    assert analysis.spoken(with_unanswerable(everywhere), skills, checked, BASIS)["others"] == "not there, as all are"


def test_a_claim_that_only_the_correction_keeps_open_reads_as_its_statement_has_it():
    skills = analysis.skill_table(made_answers(), 0.05)
    checked = pd.DataFrame({"claim": ["rare"], "agree": [True]})
    words = analysis.spoken(with_unanswerable(made_answers()), skills, checked, BASIS)
    left = {"verdict": "inconclusive", "p": 0.99, "p_against": 0.007, "n_to_decide": 9, "margin": 0.08}
    records = decided() | {name: decided()[name] | left for name in ("size_recurrent_faithfulness", "tuning_recurrent")}
    records["rare_each"] = records["rare_each"] | left | {"p": 0.006, "p_against": 0.98}
    text = " ".join(prose(analysis.SUMMARY, records, **words).data.split())
    assert "recurrent models stays as it is, within ±0.08, is open (uncorrected: not reproduced): " in text
    assert "recurrent models as it is, within ±0.08, is open (uncorrected: not reproduced): " in text
    assert "Even the best of them at each seed may be worse (uncorrected: reproduced): " in text


def test_the_ladder_climbs_from_no_attention_to_more():
    table = analysis.ladder_table(made_answers(noise=0.0), ARMS, list(TASKS))
    own = table[(table["aspect"] == "faithfulness") & (table["stage"] == "instruct")]
    assert own["share"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert own["estimate"].tolist() == pytest.approx([0.4, 0.4])


def with_unanswerable(answers):
    """With rows of `unanswerable`, which tuning makes worse where there is an answer and better where there is none."""
    own = answers[(answers["task"] == "conflict") & (answers["breakdown"] == "all")]
    halves = [
        own.assign(
            task="unanswerable", breakdown="answerable", value=value, wrong=np.where(own["stage"] == "base", 0.5, after)
        )
        for value, after in (("yes", 0.7), ("no", 0.1))
    ]
    return pd.concat([answers, own.assign(task="unanswerable", wrong=0.0), *halves], ignore_index=True)


def test_what_tuning_gains_is_told_by_task_and_where_an_answer_is_apart_from_where_none_is():
    table = analysis.gained_table(with_unanswerable(made_answers(noise=0.0)))
    assert table.loc[("attention", "Llama"), "conflict"] == pytest.approx(0.2)
    assert table.loc[("attention", "Llama"), "recall"] == pytest.approx(0.0)
    assert table["answerable"].tolist() == pytest.approx([-0.2] * len(ARMS))
    assert table["unanswerable"].tolist() == pytest.approx([0.4] * len(ARMS))
