"""What the study of base models claims and draws: on made-up answers whose truth is known."""

import warnings
from functools import cache
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox

from common.analysis import bases as analysis
from common.errors import UserError
from common.evidence import decide, detectable_effect
from common.figures import save_figure
from common.plots import bases as plots
from common.scoring.choice import RULES

RELATIONS = {
    "general": ["capital", "continent", "currency", "symbol"],
    "medicine": ["block", "chapter"],
    "finance": ["index", "sector"],
}
SEEDS = (0, 1, 2, 3, 4)
# Accuracy by base and kind of facts; the prior is .3, of control facts .2, or .1 where their words tell .2 of them.
TRUTH = {("informed", "taught"): 0.85, ("half", "taught"): 0.5, ("informed", "control"): 0.22, ("half", "control"): 0.2}
PRIORS = {"taught": 0.3, "control": 0.2}


def made_answers(truth=TRUTH, seeds=SEEDS, noise=0.01):
    """Evaluations and the table that they returned; the seed moves every accuracy by some hundredths."""
    evaluations, rows = [], []
    for base in ("informed", "half"):
        for seed in seeds:
            key = f"{base}-{seed}"
            evaluations.append({"key": key, "model": f"{base}_{seed}"})
            for facts in ("taught", "control"):
                for domain, relations in RELATIONS.items():
                    for number, relation in enumerate(relations):
                        shift = noise * (seed - 2) + 0.04 * (number - (len(relations) - 1) / 2)
                        accuracy = {rule: truth[base, facts] + shift - 0.05 * place for place, rule in enumerate(RULES)}
                        place = {"key": key, "domain": domain, "relation": relation, "facts": facts, "items": 100}
                        worded = facts == "control" and relation in analysis.WORDED
                        prior = PRIORS[facts] - (0.1 if worded else 0)
                        # What words of other relations seem to tell is luck, and counts for nothing.
                        told = None if facts == "taught" else 0.2 if worded else 0.9
                        rows.append(place | {"prior": prior, "told": told} | accuracy)
    return pd.DataFrame(evaluations), pd.DataFrame(rows)


def answers(**options):
    return analysis.of_models(*made_answers(**options))


def inclined():
    base = {"unsafe": -0.8, "hard": -2.0, "plain": -3.5}
    rows = [
        {"base": "half", "seed": seed, "kind": kind, "prompts": 200, "refused": 0.1 + 0.02 * seed, "margin": mean}
        for seed in SEEDS
        for kind, middle in base.items()
        for mean in [middle + 0.1 * (seed - 2)]
    ]
    return pd.DataFrame([*rows, rows[0] | {"base": "informed", "refused": 0.9}])


def agreement():
    rows = [("safety", "all", 240), ("safety", "hate_speech", 60), ("safety", "violence", 90), ("refusal", "all", 35)]
    rows += [("refusal", "own", 18), ("refusal", "refusal", 17), ("refusal", "people", 20)]
    numbers = {"accuracy": 0.8, "accuracy_low": 0.7, "accuracy_high": 0.9, "kappa": 0.5, "kappa_low": 0.3}
    numbers |= {"kappa_high": 0.75, "positive": 0.4, "groups": 15, "key": "k"}
    return pd.DataFrame([dict(zip(("judge", "category", "n"), row, strict=True)) | numbers for row in rows])


def curves():
    runs = pd.DataFrame({"key": [f"{b}{s}" for b in ("informed", "half") for s in SEEDS]})
    runs["base"] = runs["key"].str[:-1]
    rows = [
        {"key": key, "step": step, "tokens": 500 * step + number, "loss": 1 + number / 99 + 5 * np.exp(-step / 200)}
        for number, key in enumerate(runs["key"])
        for step in range(50, 1501, 50)
    ]
    return runs, pd.DataFrame(rows)


FIGURES = {
    "knowledge": (lambda: analysis.knowledge_table(answers()), lambda table: plots.knowledge(table, 0.15)),
    "rules": (lambda: analysis.rule_table(answers()), plots.rules),
    "learning_curves": (lambda: analysis.curve_table(*curves()), plots.curves),
    "leaning": (lambda: analysis.leaning_table(inclined()), plots.leaning),
    "judges": (lambda: analysis.judge_table(agreement()), plots.judges),
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


def dots(ax):
    return [
        tuple(point) for points in ax.collections if isinstance(points, PathCollection)
        for point in points.get_offsets().tolist()
    ]  # fmt: skip


def ticks(ax):
    """Places of upright ticks: {(x, middle y)}."""
    pieces = [s for c in ax.collections if isinstance(c, LineCollection) for s in c.get_segments()]
    return {(one[0][0], round(one[:, 1].mean(), 9)) for one in pieces if one[0][0] == one[1][0]}


def row_of(ax):
    name_of = ax.yaxis.get_major_formatter()
    return {name_of(at): at for at in ax.get_yticks()}


def test_a_known_world_gives_known_verdicts():
    claims = analysis.declare(answers(seeds=(100, 101)), seeds=5, margin=0.1, half_margin=0.15)
    decided = decide(claims, analysis.evidence(answers()))
    assert {name: record["verdict"] for name, record in decided.items()} == dict.fromkeys(decided, "reproduced")
    assert list(decided) == [
        *(f"{what}_{domain}" for what in ("knows", "control") for domain in RELATIONS), "half_medicine", "half_finance"
    ]  # fmt: skip
    assert decided["knows_medicine"]["estimate"] == pytest.approx(0.85 - 0.3)
    assert decided["control_general"]["estimate"] == pytest.approx(0.22 - 0.2)
    assert decided["half_finance"]["estimate"] == pytest.approx(0)
    assert all(record["paper"] is None for record in decided.values())


@pytest.mark.parametrize(
    ("changed", "value", "overturned"),
    [
        (("informed", "taught"), 0.31, "knows"),
        (("informed", "control"), 0.5, "control"),
        (("half", "taught"), 0.85, "half"),
        (("half", "taught"), 0.15, "half"),
    ],
)
def test_ignorance_leaks_and_halves_that_are_none_are_told(changed, value, overturned):
    claims = analysis.declare(answers(seeds=(100, 101)), seeds=5, margin=0.1, half_margin=0.15)
    decided = decide(claims, analysis.evidence(answers(truth=TRUTH | {changed: value})))
    for name, record in decided.items():
        expected = "not reproduced" if name.startswith(overturned) else "reproduced"
        assert record["verdict"] == expected, name


def test_each_relation_weighs_the_same_however_many_questions_it_has():
    table = answers()
    table.loc[table["relation"] == "capital", "sum"] += 0.4
    found = analysis.by_seed(table, "informed", "taught", "general")
    np.testing.assert_allclose(found["accuracy"], 0.85 + 0.1 + 0.01 * (np.arange(5) - 2))
    np.testing.assert_allclose(found["floor"], 0.3)
    with pytest.raises(UserError, match="no informed model was asked for taught facts of law"):
        analysis.by_seed(table, "informed", "taught", "law")


def test_what_is_detectable_comes_from_the_pilots_half_informed_models():
    pilot = answers(seeds=(100, 101), noise=0.03)
    pilot.loc[pilot["base"] == "informed", RULES[0]] = 0
    claims = analysis.declare(pilot, seeds=5, margin=0.1, half_margin=0.15)
    expected = detectable_effect(0.03 / 2**0.5, 5, alpha=0.025 / len(claims))
    assert [claim.detectable for claim in claims] == pytest.approx([expected] * 8)


def test_models_get_their_base_and_seed_from_their_names_and_none_is_lost():
    evaluations, table = made_answers()
    found = analysis.of_models(evaluations[:3], table)
    assert set(zip(found["base"], found["seed"], strict=True)) == {("informed", 0), ("informed", 1), ("informed", 2)}
    with pytest.raises(UserError, match="no rows of half_4"):
        analysis.of_models(evaluations, table[table["key"] != "half-4"])


def test_runs_are_named_by_their_knobs_and_a_seed_without_effect_is_refused():
    bases = {"informed": {"hidden": 8}, "half": {"hidden": 4}}
    runs = pd.DataFrame(
        {"base": [{"hidden": 4}, {"hidden": 8}] * 2, "seed": [0, 0, 7, 7], "train_loss": [1, 2, 3, 4.0]}
    )
    assert analysis.named(runs, bases)["model"].tolist() == ["half_0", "informed_0", "half_7", "informed_7"]
    with pytest.raises(UserError, match="training loss of half is 1 for all 2 seeds"):
        analysis.named(runs.assign(train_loss=[1, 2, 1, 4.0]), bases)


def test_bases_and_tables_that_the_claims_do_not_know_are_refused():
    bases = dict.fromkeys(analysis.BASES)
    analysis.check_names(bases, list(analysis.TABLES))
    with pytest.raises(UserError, match="bases are informed, halb; the study needs informed, half"):
        analysis.check_names({"informed": 1, "halb": 2}, analysis.TABLES)
    with pytest.raises(UserError, match="tables are facts; the study needs facts, sotu"):
        analysis.check_names(bases, ["facts"])


def test_numbers_in_sentences_are_those_of_the_tables():
    found = analysis.widest(analysis.rule_table(answers().assign(token_mean=0.1)))
    assert [found[name] for name in ("domain", "best", "worst")] == ["finance", "sum", "token mean"]
    assert (found["high"], found["low"]) == pytest.approx((0.85, 0.1))
    lean = analysis.leaning_table(inclined())
    found = analysis.leaning_numbers(lean, 0.6, {"unsafe": 0.1, "benign": 0.02, "chat": 0.5})
    assert (found.pop("read_odds"), found.pop("blind_odds")) == ("+0.41", "+0.00")
    expected = {"unsafe": -0.8, "hard": -2.0, "plain": -3.5, "read": 0.6, "blind": 0.5, "rather": 0.14}
    expected |= {f"{kind}_share": 1 / (1 + np.exp(-expected[kind])) for kind in analysis.KINDS}
    assert found == pytest.approx(expected)
    assert analysis.leaning_numbers(lean, 0.0, {"unsafe": 0.1, "benign": 0.1})["read_odds"] == "-inf"


def test_curves_average_seeds_at_the_same_step_though_their_tokens_differ():
    table = analysis.curve_table(*curves())
    first = table[table["base"] == "half"].iloc[0]
    assert first["tokens"] == 500 * 50 + 7
    assert first["mean"] == pytest.approx(1 + 7 / 99 + 5 * np.exp(-0.25))
    assert (first["low"], first["high"]) == pytest.approx((first["mean"] - 2 / 99, first["mean"] + 2 / 99))


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


def test_every_accuracy_is_a_dot_in_its_row_and_every_floor_a_tick():
    table, figure = drawn("knowledge")
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert list(panels) == list(analysis.PANELS)
    for panel, ax in panels.items():
        own = table[table["panel"] == panel]
        assert len(own) == 8 + 3
        found = dots(ax)
        assert [x for x, _ in found] == own["estimate"].tolist()
        assert ticks(ax) == {(floor, y) for floor, (_, y) in zip(own["floor"], found, strict=True)}
        names = [figure.axes[0].yaxis.get_major_formatter()(y) for _, y in found]
        assert names == own["relation"].tolist()
    half = table[(table["panel"] == "half, facts it read") & (table["relation"] == "mean")]
    assert half["estimate"].tolist() == pytest.approx([0.5] * 3)


def test_only_half_informed_models_lean_and_each_seed_is_seen():
    table, figure = drawn("leaning")
    refused, margin = figure.axes
    assert list(row_of(refused)) == [f"{kind} (n = 200)" for kind in analysis.KINDS.values()]
    assert len(dots(refused)) == len(dots(margin)) == 3 + 3 * len(SEEDS)
    assert dots(margin)[:3] == [(pytest.approx(x), y) for y, x in enumerate((-0.8, -2.0, -3.5))]
    assert max(x for x, _ in dots(refused)) == pytest.approx(0.18)
    assert set(table["value"]) >= {0.1, 0.18, -0.8}


def test_judges_stand_beside_the_commoner_verdict_with_their_numbers_of_responses():
    table, figure = drawn("judges")
    kappa, accuracy = figure.axes
    assert {x for x, _ in ticks(kappa)} == {0.0}
    assert {x for x, _ in ticks(accuracy)} == {0.6}
    assert list(row_of(kappa)) == [
        "safety: all (n = 240)", "hate speech (60)", "violence (90)",
        "refusal: without off-topic replies (n = 35)", "our own replies (18)", "judged by people (17)",
        "judged by people, off-topic too (20)",
    ]  # fmt: skip
    colors = [to_hex(c) for pc in kappa.collections if isinstance(pc, PathCollection) for c in pc.get_facecolors()]
    assert [color == to_hex(plots.PALETTE[0]) for color in colors] == [True, False, False, True, False, False, False]
    assert "our own labels" in figure.get_supxlabel()
    assert {x for x, _ in dots(kappa)} == {0.5}
    assert table.loc[table["measure"] == "accuracy", ["low", "high"]].drop_duplicates().to_numpy().tolist() == [
        [0.7, 0.9]
    ]


def test_rules_are_drawn_by_domain_in_one_order():
    table, figure = drawn("rules")
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(RELATIONS)
    assert list(row_of(figure.axes[0])) == [rule.replace("_", " ") for rule in RULES]
    for ax in figure.axes:
        assert [x for x, _ in dots(ax)] == pytest.approx([0.85, 0.8, 0.75, 0.7])
    assert set(table["floor"]) == {0.3}


def test_a_curve_is_named_beside_its_end():
    table, figure = drawn("learning_curves")
    (ax,) = figure.axes
    assert {text.get_text() for text in ax.texts} == {"informed", "half"}
    for line in ax.lines:
        own = table[table["base"] == line.get_label()]
        np.testing.assert_array_equal(line.get_xydata(), own[["tokens", "mean"]])
