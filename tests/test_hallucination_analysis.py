"""What the study of hallucination claims and draws: on made-up answers whose truth is known."""

import warnings
from itertools import combinations

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.transforms import Bbox

from common.analysis import hallucination as analysis
from common.analysis.hallucination.claims import share
from common.analysis.hallucination.rates import PROBES
from common.errors import UserError
from common.evidence import decide
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
TASKS = {"recall": "factuality", "claims": "factuality", "conflict": "faithfulness", "endings": "faithfulness"}
# Shares of wrong answers by kind, aspect and (size, stage): as the paper has it.
TRUTH = {
    ("attention", "factuality"): (0.6, 0.3, 0.3), ("attention", "faithfulness"): (0.7, 0.4, 0.2),
    ("recurrent", "factuality"): (0.7, 0.5, 0.5), ("recurrent", "faithfulness"): (0.5, 0.5, 0.5),
    ("hybrid", "factuality"): (None, 0.4, 0.4), ("hybrid", "faithfulness"): (None, 0.45, 0.4),
}  # fmt: skip
SETTINGS = (("small", "base"), ("large", "base"), ("large", "instruct"))
MEMORISED = {"attention": 0.7, "hybrid": 0.5, "recurrent": 0.3}


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
                for number, (task, aspect) in enumerate(TASKS.items()):
                    wrong = truth[kind, aspect][place] + noise * (((seed * 7 + number * 3 + place) % 5) - 2)
                    one = about | {"task": task, "aspect": aspect, "items": 50, "memorised": None}
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
    # Samples at a temperature count for nothing.
    return pd.concat([table, table.assign(temperature=1.0, wrong=0.99)], ignore_index=True)


def made_runs():
    rows = [
        {"architecture": arm, "seed": seed, "learning_rate": 0.003, "parameters": arm["parameters"], "tokens": 900}
        | dict.fromkeys(PROBES, 1.0 + seed / 9)
        for arm in ARMS.values()
        for seed in SEEDS
    ]
    return pd.DataFrame(rows).assign(key=[str(number) for number in range(len(rows))])


FIGURES = {
    "early": (lambda: analysis.early_table(made_answers()), plots.early),
    "map": (lambda: analysis.map_table(made_answers()), plots.by_task),
    "size": (lambda: analysis.size_table(made_answers()), plots.size),
    "tuning": (lambda: analysis.tuning_table(made_answers()), plots.tuning),
    "ladder": (lambda: analysis.ladder_table(made_answers(), ARMS), plots.ladder),
    "between": (lambda: analysis.between_table(made_answers()), plots.between),
}


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        mpl.use("agg")
        yield
        plt.close("all")


def decided(**options):
    pilot = made_answers(seeds=(100, 101, 102))
    return decide(
        analysis.declare(pilot, seeds=5, margin=0.05, slight=0.08), analysis.evidence(made_answers(**options))
    )


def test_the_papers_world_gives_the_papers_verdicts():
    found = decided()
    assert {name: record["verdict"] for name, record in found.items()} == dict.fromkeys(found, "reproduced")
    assert found["rare"]["estimate"] == pytest.approx(0.5 - 0.3)
    assert found["endings"]["estimate"] == pytest.approx(0.7 - 0.3)
    assert found["size_attention_faithfulness"]["estimate"] == pytest.approx(0.3, abs=0.02)
    assert found["tuning_recurrent"]["estimate"] == pytest.approx(0, abs=0.02)
    assert {name for name in found if name.startswith("universal")} == {
        f"universal_{name}" for name in ("llama", "mamba_2", "lstm", "third", "two_thirds")
    }


@pytest.mark.parametrize(
    ("changed", "overturned"),
    [
        ({("recurrent", "factuality"): (0.7, 0.3, 0.3)}, {"rare"}),
        ({("recurrent", "faithfulness"): (0.6, 0.6, 0.6)}, {"differs"}),
        ({("recurrent", "faithfulness"): (0.9, 0.5, 0.5)}, {"size_recurrent_faithfulness"}),
        ({("attention", "faithfulness"): (0.4, 0.4, 0.4)}, {"size_attention_faithfulness", "tuning_attention"}),
        ({("recurrent", "faithfulness"): (0.5, 0.5, 0.2)}, {"tuning_recurrent"}),
    ],
)
def test_other_worlds_overturn_what_they_contradict(changed, overturned):
    verdicts = {name: record["verdict"] for name, record in decided(truth=TRUTH | changed).items()}
    assert {name: verdicts[name] for name in overturned} == dict.fromkeys(overturned, "not reproduced")


def test_models_that_keep_to_the_proverb_overturn_the_claim_on_endings():
    found = decided(memorised={"attention": 0.3, "hybrid": 0.5, "recurrent": 0.7})
    assert found["endings"]["verdict"] == "not reproduced"
    assert found["endings"]["estimate"] == pytest.approx(-0.4)


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
        analysis.evidence(lost)


def test_kinds_follow_from_layers_and_arms_without_a_comparison_are_refused():
    assert [analysis.kind_of(arm) for arm in ARMS.values()] == [
        "attention", "recurrent", "recurrent", "hybrid", "hybrid"
    ]  # fmt: skip
    every = {"family": "recurrent_gemma", "shape": {"layers": 2, "blocks": ["attention"]}}
    assert analysis.kind_of(every) == "attention"
    assert analysis.ladder_share(ARMS["third"]) == pytest.approx(1 / 3)
    cut = {"family": "recurrent_gemma", "shape": {"layers": 2, "blocks": BLOCKS["third"]}}
    assert analysis.kind_of(cut) == "recurrent"
    analysis.check_arms(ARMS, SMALL)
    for arms, small, message in (
        ({"Llama": ARMS["Llama"]}, SMALL, "the study needs one of hybrid, recurrent"),
        (ARMS, {"Llama": SMALL["Llama"]}, "small arms are Llama; the study needs one of recurrent"),
        (ARMS | {"LSTM": ARMS["LSTM"] | {"parameters": 510}}, SMALL, r"arms have \[500, 510\] parameters"),
        ({name: arm for name, arm in ARMS.items() if name != "third"}, SMALL, "makes no ladder"),
        (ARMS, SMALL | {"GRU": SMALL["Mamba-2"]}, "small arms GRU are not among the arms"),
    ):
        with pytest.raises(UserError, match=message):
            analysis.check_arms(arms, small)


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
        analysis.named(made_runs().assign(**{PROBES[-1]: 1.0}), ARMS, "large")


def test_the_rate_with_the_lowest_loss_on_recall_and_stories_is_chosen():
    losses = {("Llama", 0.001): (1.0, 1.0), ("Llama", 0.01): (1.8, 0.1), ("LSTM", 0.01): (3.0, 3.0)}
    runs = pd.DataFrame(
        {"arm": arm, "learning_rate": rate, **dict.fromkeys(PROBES[:-1], recall), PROBES[-1]: stories}
        for (arm, rate), (recall, stories) in losses.items()
    )
    rates = {"Llama": [0.001, 0.01], "LSTM": [0.01]}
    assert analysis.chosen_rates(runs, rates) == {"Llama": 0.01, "LSTM": 0.01}
    with pytest.raises(UserError, match=r"LSTM was not tried at 0\.3"):
        analysis.chosen_rates(runs, rates | {"LSTM": [0.01, 0.3]})


def test_what_was_matched_is_told_by_arm():
    table = analysis.matched_table(analysis.named(made_runs(), ARMS, "large"))
    assert table.loc[("large", "hybrid", "third"), ["parameters", "seeds"]].tolist() == [500, 5]
    assert table[PROBES[-1]].tolist() == pytest.approx([1 + 2 / 9] * 5)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_saved_and_no_text_stands_on_another_or_leaves_the_page(name, tmp_path, texts):
    make, draw = FIGURES[name]
    table = make()
    figure = draw(table)
    page = figure.bbox
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        save_figure(figure, tmp_path, name, table)
    assert len(texts) > 5
    for (one, here), (other, there) in combinations(texts, 2):
        assert not here.padded(-1).overlaps(there.padded(-1)), (one, other)
    for line, box in texts:
        assert Bbox.intersection(box, page).bounds == pytest.approx(box.bounds), line


@pytest.mark.parametrize("name", ["early", "map"])
def test_every_share_is_a_dot_in_the_row_of_its_arm(name):
    make, draw = FIGURES[name]
    table = make()
    column = {"early": "measure", "map": "task"}[name]
    for ax in (ax for ax in draw(table).axes if ax.get_visible()):
        own = table[table[column] == ax.get_title(loc="left")].set_index("arm")
        (points,) = (found for found in ax.collections if isinstance(found, PathCollection))
        name_of = ax.yaxis.get_major_formatter()
        assert {name_of(y): x for x, y in points.get_offsets()} == pytest.approx(own["estimate"].to_dict())


@pytest.mark.parametrize(("name", "column"), [("tuning", "stage"), ("between", "count")])
def test_every_arm_is_a_line_through_its_shares(name, column):
    make, draw = FIGURES[name]
    table, panel = make(), {"tuning": "aspect", "between": "between"}[name]
    for ax, (_, own) in zip(draw(table).axes, table.groupby(panel, sort=False), strict=True):
        assert len(ax.containers) == len(ARMS)
        for container in ax.containers:
            line, arm = container.lines[0], container.get_label()
            shares = own[own["arm"] == arm].sort_values(column)["estimate"]
            assert line.get_ydata().tolist() == pytest.approx(shares.tolist())


def test_the_ladder_climbs_from_no_attention_to_more():
    table = analysis.ladder_table(made_answers(noise=0.0), ARMS)
    own = table[(table["aspect"] == "faithfulness") & (table["stage"] == "instruct")]
    assert own["share"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert own["estimate"].tolist() == pytest.approx([0.4, 0.4])
