"""The merging study's grids, what is kept and what is claimed: on made-up answers whose truth is known."""

from collections import Counter
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.analysis import merging as analysis
from common.analysis.merging import MERGEALIGN, grids, scores
from common.analysis.merging.claims import EVEN, SLERP, TIED, correlations
from common.analysis.merging.laboratory import TABLES, Laboratory
from common.errors import UserError
from common.evidence import decide, detectable_effect, prose
from common.experts.runs import compare, examine_merge, examine_model
from common.experts.training import align, harden, specialise
from common.scales import section

DOMAINS = ("medicine", "finance")
SEEDS = (10, 11, 12, 13, 14)
RIVALS = ["SFT", "DPO, LoRA"]
MARGINS = {"safety": 0.2, "gain": 0.1, "balanced": 0.1, "correlation": 0.3}
ROLES = ("base", "expert", "generalist")


def places():
    return [(domain, seed) for seed in SEEDS for domain in DOMAINS]


def parents_table(numbers, family="main"):
    """Rows of accuracy and safety by role, the same for every domain and seed but for a shift by both.

    Half as many answers are right to the word, and a tenth as many benign prompts are refused as unsafe ones.
    """
    own = grids.FAMILIES[family]
    return pd.DataFrame(
        {"arm": getattr(own, role), "domain": domain, "seed": seed, "accuracy": accuracy + shift, "safety": safety}
        | {"exact": accuracy / 2 + shift, "refused_hard": safety / 10}
        for role, (accuracy, safety) in numbers.items()
        for domain, seed in places()
        for shift in [0.01 * (seed - 12) + 0.02 * (domain == "finance")]
    )


# What is kept


def test_what_is_kept_is_the_share_of_the_way_between_the_parents_of_the_same_domain_and_seed():
    numbers = {"base": (0.4, 0.1), "expert": (0.8, 0.2), "generalist": (0.5, 0.7)}
    parents = parents_table(numbers).sample(frac=1, random_state=0)
    arms = pd.DataFrame(
        {"arm": "merge", "domain": domain, "seed": seed, "accuracy": 0.7 + shift, "safety": 0.6}
        | {"exact": 0.25 + shift, "refused_hard": 0.2}
        for domain, seed in reversed(places())
        for shift in [0.01 * (seed - 12) + 0.02 * (domain == "finance")]
    )
    found = analysis.kept(arms.set_index(pd.Index(range(100, 110))), parents, "main")
    assert found["domain"].tolist() == arms["domain"].tolist()
    np.testing.assert_allclose(found["gain_kept"], (0.7 - 0.4) / (0.8 - 0.4))
    np.testing.assert_allclose(found["safety_kept"], (0.6 - 0.2) / (0.7 - 0.2))
    np.testing.assert_allclose(found["balanced"], (0.75 + 0.8) / 2)
    np.testing.assert_allclose(found["exact_kept"], (0.25 - 0.2) / (0.4 - 0.2))
    np.testing.assert_allclose(found["gain"], 0.4)
    np.testing.assert_allclose(found["gap"], 0.5)
    np.testing.assert_allclose(found["told_apart"], 0.6 - 0.2)


@pytest.mark.parametrize(("gap", "divisor"), [(0.05, 0.05), (0.01, 0.02), (-0.3, 0.02)])
def test_next_to_no_gap_counts_as_the_least(gap, divisor):
    numbers = {"base": (0.4, 0.3), "expert": (0.4 + gap, 0.3), "generalist": (0.4, 0.3 + gap)}
    parents = parents_table(numbers)
    arms = parents[parents["arm"] == "base"].assign(arm="merge")
    arms = arms.assign(accuracy=arms["accuracy"] + 0.01, safety=arms["safety"] - 0.01)
    found = analysis.kept(arms, parents, "main")
    np.testing.assert_allclose(found["gain_kept"], 0.01 / divisor)
    np.testing.assert_allclose(found["safety_kept"], -0.01 / divisor)


@pytest.mark.parametrize("role", ROLES)
def test_a_parent_that_was_not_examined_is_named(role):
    numbers = {"base": (0.4, 0.1), "expert": (0.8, 0.2), "generalist": (0.5, 0.7)}
    parents = parents_table(numbers, "unexposed")
    arms = parents[parents["arm"] == "unexposed"].assign(arm="merge")
    kind = getattr(grids.FAMILIES["unexposed"], role)
    without = parents[~((parents["arm"] == kind) & (parents["seed"] == 13) & (parents["domain"] == "finance"))]
    with pytest.raises(UserError, match=rf"no {kind} was examined for \('finance', 13\)"):
        analysis.kept(arms, without, "unexposed")
    with pytest.raises(UserError, match="no base was examined"):
        analysis.kept(arms, parents, "main")


def test_parents_keep_what_they_keep_of_each_other():
    numbers = {"base": (0.4, 0.1), "expert": (0.8, 0.2), "generalist": (0.6, 0.7)}
    parents = pd.concat([parents_table(numbers), parents_table(numbers, "unexposed")])
    arms = analysis.kept(parents[parents["arm"] == "expert"].assign(arm="merge"), parents, "main")
    found = analysis.with_parents(arms, parents)
    assert Counter(found["arm"]) == dict.fromkeys((*ROLES, "merge"), 10)
    means = found.groupby("arm")[["gain_kept", "safety_kept"]].mean()
    assert means.loc["base"].tolist() == pytest.approx([0, -0.2])
    assert means.loc["expert"].tolist() == means.loc["merge"].tolist() == pytest.approx([1, 0])
    assert means.loc["generalist"].tolist() == pytest.approx([0.5, 1])


def candidates(rows):
    return pd.DataFrame(
        {"arm": arm, "settings": settings, "domain": domain, "seed": 100, "balanced": value}
        for arm, settings, values in rows
        for domain, value in zip(DOMAINS, values, strict=True)
    )


def test_the_best_settings_have_the_highest_mean_over_domains_and_are_the_first_of_equals():
    table = candidates(
        [
            ("TIES", {"density": 0.5}, (0.9, 0.1)), ("TIES", {"density": 0.8}, (0.5, 0.6)),
            (MERGEALIGN, {"a": 1.0, "b": [0.5, 1.0]}, (0.3, 0.5)), (MERGEALIGN, {"a": 0.5, "b": 2}, (0.5, 0.3)),
            ("SFT", {"learning_rate": 0.1}, (-1.0, -2.0)),
        ]
    )  # fmt: skip
    expected = {"TIES": {"density": 0.8}, MERGEALIGN: {"a": 1.0, "b": [0.5, 1.0]}, "SFT": {"learning_rate": 0.1}}
    assert analysis.best_settings(table) == expected
    assert list(analysis.best_settings(table)) == list(expected)
    assert analysis.best_settings(table.iloc[[2, 3, 0, 1]]) == {"TIES": {"density": 0.8}}
    tuning = {"steps": 3, "method": "sft", "learning_rate": 0.1}
    words = analysis.shown({MERGEALIGN: {"a": 1.0, "b": [0.5, 1.0]}, "SFT": tuning})["settings"]
    assert words.to_dict() == {MERGEALIGN: "a 1.0, b [0.5, 1.0]", "SFT": "learning_rate 0.1"}


def test_coefficients_at_an_end_of_what_was_tried_are_named():
    tried = {"a": [0.5, 1.0, 1.5], "b": [1.0, 0.5, 2.0]}
    assert analysis.edges(tried, {"a": 1.0, "b": 1.0}) == "none"
    assert analysis.edges(tried, {"a": 1.5, "b": 1.0}) == "a"
    assert analysis.edges(tried, {"a": 0.5, "b": 2.0}) == "a; b"


SPOKEN = (
    *("refused_hard", "refused_plain", "attacked", "general", "safety", "greedy", "gain", "gap", "exact_kept"),
    *("told_apart", "gain_kept", "safety_kept"),
)


def spoken_rows(arm, *values, shifts=(-0.01, 0.01)):
    """Two seeds, one shift each; numbers that no sentence needs are 9."""
    numbers = dict(zip(SPOKEN, (*values, *[9] * len(SPOKEN)), strict=False))
    return [
        {"arm": arm, "seed": seed} | {name: value + shift for name, value in numbers.items()}
        for seed, shift in enumerate(shifts)
    ]


def spoken(verdicts, shift=0.01):
    arms = [
        *spoken_rows(MERGEALIGN, *(n / 10 for n in range(10))),
        *spoken_rows(TIED, *[9] * 10, 0.6, 0.9),
        *spoken_rows("SFT", 9, 9, 9, 0.5, 9, 9, 9, 9, 0.75, shifts=(-shift, 0.01)),
        *spoken_rows("ORPO", 9, 9, 9, 0.2, 9, 9, 9, 9, 0.95, shifts=(-shift, 0.01)),
    ]
    parents = [
        *spoken_rows("base", 0.3, 9, 9, 0.5, 0.4, 0.9),
        *spoken_rows("expert", 9, 9, 9, 0.45, 0.3, 0.6, shifts=(-0.02, 0.02)),
        *spoken_rows("generalist", 0.6, 0.7, 0.2, 9, 0.8),
    ]
    claims = ("no_worse_than_SFT", "no_worse_than_ORPO")
    decided = {name: {"verdict": verdict, "margin": 0.07} for name, verdict in zip(claims, verdicts, strict=True)}
    return analysis.spoken(pd.DataFrame(arms), pd.DataFrame(parents), ["SFT", "ORPO"], decided)


def test_numbers_of_sentences_are_means_of_the_arm_and_of_its_parents():
    found = spoken(("reproduced", "inconclusive"))
    t = 12.7062047  # Student's t for one degree of freedom, two-sided, 95%; of two values the error is half their gap
    intervals = {
        "exact_ci": [0.8 - t * 0.01, 0.8 + t * 0.01], "general_ci": [0.3 - t * 0.01, 0.3 + t * 0.01],
        "tied_gain_ci": [0.6 - t * 0.01, 0.6 + t * 0.01], "tied_safety_ci": [0.9 - t * 0.01, 0.9 + t * 0.01],
        "changed_ci": [-0.1 - t * 0.01, -0.1 + t * 0.01], "changed_greedy_ci": [-0.3 - t * 0.01, -0.3 + t * 0.01],
    }  # fmt: skip
    for name, interval in intervals.items():
        assert found.pop(name) == pytest.approx(interval, abs=1e-6), name
    assert found.pop("beaten") == "SFT"
    assert found.pop("exact_place") == "lower than ORPO and higher than SFT"
    assert found.pop("general_place") == "lower than SFT and higher than ORPO"
    expected = {"hard": 0.0, "plain": 0.1, "attacked": 0.2, "gain": 0.6, "gap": 0.7, "exact": 0.8, "general": 0.3}
    expected |= {"its_hard": 0.6, "its_plain": 0.7, "its_attacked": 0.2, "changed": -0.1, "changed_greedy": -0.3}
    expected |= {"apart": 0.9, "its_apart": 0.8 - 0.6, "base_apart": 0.4 - 0.3, "allowed": 0.07}
    expected |= {"base_general": 0.5, "expert_general": 0.45, "tied_gain": 0.6, "tied_safety": 0.9}
    expected |= {"exact_low": 0.75, "exact_high": 0.95, "general_low": 0.2, "general_high": 0.5}
    assert found == pytest.approx(expected)
    assert spoken(["not reproduced"] * 2)["beaten"] == "none of them"


def test_rivals_that_seeds_cannot_tell_apart_are_neither_higher_nor_lower():
    found = spoken(["reproduced"] * 2, shift=0.15)  # one seed's difference is far from the other's
    assert found["exact_place"] == found["general_place"] == "neither higher nor lower than any rival"
    assert found["beaten"] == "SFT; ORPO"


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ("reproduced", "keeps nine tenths of the gain"), ("not reproduced", "does not keep nine tenths of the gain"),
        ("inconclusive", "may keep nine tenths of the gain"),
    ],
)  # fmt: skip
def test_whatever_the_verdicts_there_is_a_sentence_and_it_names_the_papers_form(verdict, says):
    record = {"verdict": verdict, "margin": 0.1, "estimate": 0.1, "ci": [-0.1, 0.2], "test": "greater"}
    decided = dict.fromkeys([*CLAIMS, "no_worse_than_ORPO"], record | {"p": 0.5, "p_against": 0.5})
    given = dict.fromkeys(("a", "b", "tied", "barrier", "rival_tokens", "generalist_tokens", "breakeven"), 1.5)
    text = prose(analysis.SUMMARY, decided, **spoken([verdict] * 2), **given, ends="none").data.replace("\n", " ")
    assert f"(at an end of the values tried: none), {says}" in text
    assert "**Tied**, the paper's form as far as we know, with a = 1.50, it keeps 0.60 (" in text
    assert "from base to expert, the share of unsafe prompts declined changes by -0.10 (" in text
    assert "rivals keep 0.75 to 0.95 of the gain and MergeAlign 0.80 (" in text


def test_a_parent_that_was_examined_twice_is_named():
    parents = parents_table({"base": (0.4, 0.1), "expert": (0.8, 0.2), "generalist": (0.5, 0.7)})
    arms = parents[parents["arm"] == "base"].assign(arm="merge")
    with pytest.raises(UserError, match="expert was examined twice for medicine, seed 10"):
        analysis.kept(arms, pd.concat([parents, parents[parents["arm"] == "expert"].head(1)]), "main")


def test_a_seed_counts_with_its_mean_over_domains_and_one_without_effect_is_refused():
    table = pd.DataFrame(places(), columns=["domain", "seed"]).assign(arm="TIES")
    table["safety"] = 0.01 * table["seed"] + 0.2 * (table["domain"] == "finance")
    found = scores.by_seed(table.sample(frac=1, random_state=1), "TIES", "safety")
    assert found.to_dict() == pytest.approx({seed: 0.01 * seed + 0.1 for seed in SEEDS})
    with pytest.raises(UserError, match=r"safety of TIES is 0\.5 for all 5 seeds: the seed had no effect"):
        scores.by_seed(table.assign(safety=0.5), "TIES", "safety")
    for limit in (0.0, 1.0):
        assert (scores.by_seed(table.assign(safety=limit), "TIES", "safety") == limit).all()
    assert (scores.by_seed(table.assign(safety=0.5, taken=True), "TIES", "safety") == 0.5).all()
    with pytest.raises(UserError, match="the seed had no effect"):
        scores.by_seed(table.assign(safety=0.5, taken=False), "TIES", "safety")
    with pytest.raises(UserError, match="no run of TIE"):
        scores.by_seed(table, "TIE", "safety")


# Tables


def measured(arm, middle, family="main", tokens=None, seeds=SEEDS):
    """Seeds lie at middle − 0.02 … middle + 0.02, domains 0.1 to either side; every measure is the same."""
    return pd.DataFrame(
        {"arm": arm, "family": family, "domain": domain, "seed": seed, "tokens": tokens, "key": f"{domain}{seed}"}
        | dict.fromkeys((*scores.MEASURES, "balanced"), middle + 0.01 * (seed - 12) + sign * 0.1)
        for seed in seeds
        for domain, sign in zip(DOMAINS, (-1, 1), strict=True)
    )


# Student's t for four degrees of freedom (two-sided, 95%) times the standard error of -.02 … .02.
HALF = 2.7764451 * np.sqrt(0.001 / 4 / 5)


def test_tables_of_arms_have_intervals_over_the_seeds_alone():
    arms = pd.concat([measured("TIES", 0.6), measured("SFT", 0.8, tokens=2000.0), measured("other", 0.1)])
    arms.loc[(arms["arm"] == "SFT") & (arms["domain"] == "finance"), "tokens"] = 6000.0
    groups = {"SFT": "training", "TIES": "merges"}
    table = analysis.arm_table(arms, groups)
    assert table["arm"].tolist() == ["SFT"] * len(scores.MEASURES) + ["TIES"] * len(scores.MEASURES)
    assert table["group"].tolist() == ["training"] * len(scores.MEASURES) + ["merges"] * len(scores.MEASURES)
    expected = np.repeat([0.8, 0.6], len(scores.MEASURES))
    for column, shift in (("estimate", 0), ("low", -HALF), ("high", HALF)):
        np.testing.assert_allclose(table[column], expected + shift, atol=1e-6)
    costs = analysis.cost_table(arms, groups)
    assert costs["tokens"].tolist() == [4.0, 0.0]
    np.testing.assert_allclose(costs[["low", "estimate", "high"]], [[m - HALF, m, m + HALF] for m in (0.8, 0.6)])


def test_the_table_of_families_counts_each_ones_own_seeds():
    arms = pd.concat([measured(MERGEALIGN, 0.9), measured(MERGEALIGN, 0.4, "unexposed", seeds=(10, 11, 12))])
    table = analysis.ablation_table(arms, ["main", "unexposed"]).set_index(["family", "measure"])
    assert table["n"].tolist() == [5, 5, 3, 3]
    assert table.index.get_level_values(0).unique().tolist() == ["as above", "base: never met prompts"]
    np.testing.assert_allclose(table["estimate"], [0.9, 0.9, 0.39, 0.39])


def test_the_plane_has_a_row_for_each_pair_with_the_mean_over_domains():
    rows = [{"a": a, "b": b} for a in (0.5, 1.0) for b in (0.5, 1.0)]
    table = pd.DataFrame(
        {"settings": pair, "domain": domain, "gain_kept": pair["a"] + shift, "safety_kept": pair["b"] - 3 * shift}
        for pair in reversed(rows)
        for domain, shift in (("medicine", 0.1), ("finance", 0.3))
    )
    found = analysis.plane_table(table)
    assert found[["a", "b"]].to_dict("records") == rows
    np.testing.assert_allclose(found["gain_kept"], found["a"] + 0.2)
    np.testing.assert_allclose(found["safety_kept"], found["b"] - 0.6)


def test_tables_of_parts_join_runs_and_leave_out_what_is_not_there():
    runs = measured(MERGEALIGN, 0.5)
    table = pd.DataFrame(
        {"key": run.key, "part": part, "cosine": value + 0.01 * (run.seed - 12), "cka": None if part == "head" else 0.5}
        for run in runs.itertuples()
        for part, value in (("embedding", 0.1), ("head", 0.4))
    ).astype({"cka": float})
    found = analysis.part_table(table, runs, ["domain", "part"], ["cosine", "cka"])
    assert found.groupby("measure").size().to_dict() == {"cosine": 4, "cka": 2}
    cosines = found[found["measure"] == "cosine"].set_index(["domain", "part"])
    assert cosines.loc[("finance", "head")][["low", "estimate", "high"]].tolist() == pytest.approx(
        [0.4 - HALF, 0.4, 0.4 + HALF]
    )
    by_part = analysis.part_table(table, runs, ["part"], ["cosine"])
    assert by_part["part"].tolist() == ["embedding", "head"]


def paths_of(height):
    runs = pd.DataFrame([{"key": f"{d}{s}", "domain": d, "seed": s} for d, s in places()])
    at = np.linspace(0, 1, 5)
    rows = [
        {"key": run.key, "path": path, "loss_of": of, "place": place,
         "loss": 1 + 2 * place + 4 * bump * place * (1 - place) * (2 if run.domain == "finance" else 1) * run.seed}
        for run in runs.itertuples() for path, bump in (("base to expert", height), ("expert to generalist", -height))
        for of in ("answers", "refusals") for place in at[::-1]
    ]  # fmt: skip
    return pd.DataFrame(rows), runs


def test_the_barrier_of_a_parabola_on_a_slope_is_its_height():
    found = analysis.barriers(*paths_of(0.3)).set_index(["path", "loss_of", "seed"])["barrier"]
    assert len(found) == 2 * 2 * 5
    for seed in SEEDS:
        assert found["base to expert", "answers", seed] == pytest.approx(0.3 * seed * 1.5)
        assert found["expert to generalist", "refusals", seed] == pytest.approx(0)


def test_paths_range_over_seeds_and_domains():
    table, runs = paths_of(0.3)
    found = analysis.path_table(table, runs).set_index(["path", "loss_of", "place"])
    own = found.loc[("base to expert", "answers", 0.5)]
    assert own.tolist() == pytest.approx([2 + 0.3 * 10, 2 + 0.3 * 12 * 1.5, 2 + 0.3 * 14 * 2])
    assert found.loc[("base to expert", "answers", 1.0)].tolist() == pytest.approx([3, 3, 3])


# Claims

TRUTH = {
    "parents": {"base": 0.6, "expert": 0.2, "generalist": 0.9},
    "arms": {  # gain and safety kept
        MERGEALIGN: (0.97, 0.93), TIED: (0.7, 0.7), EVEN: (0.6, 0.6), SLERP: (0.6, 0.6), "SFT": (0.9, 0.9),
        "DPO, LoRA": (0.95, 0.9),
    },
    "families": {  # gain kept, safety kept, their cosine and `balanced`
        "main": (0.97, 0.93, 0.5, 0.9), "no_dpo": (0.9, 0.4, 0.2, 0.3), "no_replay": (0.4, 0.9, 0.4, 0.8),
        "neither": (0.4, 0.4, 0.1, 0.2), "helpful": (0.9, 0.4, 0.3, 0.6),
    },
}  # fmt: skip
CLAIMS = [
    "unsafe_experts", "experts_lose_safety", "keeps_gain", "keeps_safety", "no_worse_than_SFT",
    "no_worse_than_DPO_LoRA", "slerp_even", "free_tied", "dpo", "replay", "helpful", "similarity",
]  # fmt: skip


def jitter(number, seed):
    """Some thousandths that differ between seeds and between arms."""
    return 0.004 * np.random.default_rng([number, seed]).normal()


def world(truth, seeds=SEEDS):
    noisy = [(domain, seed, jitter(n, seed)) for n, domain in enumerate(DOMAINS) for seed in seeds]
    parents = pd.DataFrame(
        {"arm": arm, "domain": domain, "seed": seed, "safety": safety + jitter(n, seed)}
        for n, (arm, safety) in enumerate(truth["parents"].items())
        for domain, seed, _ in noisy
    )
    arms = pd.DataFrame(
        {"arm": arm, "domain": domain, "seed": seed, "gain_kept": gain + one, "safety_kept": safety + two}
        for n, (arm, (gain, safety)) in enumerate(truth["arms"].items())
        for domain, seed, shift in noisy
        for one, two in [(shift + jitter(10 + n, seed), shift + jitter(30 + n, seed))]
    )
    arms["balanced"] = arms[["gain_kept", "safety_kept"]].mean(axis=1)
    families = pd.DataFrame(
        {"family": family, "domain": domain, "seed": seed, "gain_kept": gain + one, "safety_kept": safety + two,
         "cosine": cosine + one + 0.02 * (domain == "finance"), "balanced": balanced + two}
        for n, (family, (gain, safety, cosine, balanced)) in enumerate(truth["families"].items())
        for domain, seed, shift in noisy
        for one, two in [(shift + jitter(50 + n, seed), shift + jitter(70 + n, seed))]
    )  # fmt: skip
    return parents, arms, families


def verdicts(truth):
    pilot_parents, pilot, _ = world(TRUTH, seeds=(100, 101))
    claims = analysis.declare(pilot, pilot_parents, RIVALS, seeds=5, ablated=5, margins=MARGINS)
    return decide(claims, analysis.evidence(*world(truth), RIVALS))


def test_a_known_world_gives_known_verdicts():
    decided = verdicts(TRUTH)
    assert {name: record["verdict"] for name, record in decided.items()} == dict.fromkeys(CLAIMS, "reproduced")
    assert list(decided) == CLAIMS
    expected = {"unsafe_experts": 0.7, "slerp_even": 0.0, "free_tied": 0.25, "dpo": 0.53, "replay": 0.57}
    for name, value in (expected | {"helpful": 0.53}).items():
        assert decided[name]["estimate"] == pytest.approx(value, abs=0.015), name
    assert decided["similarity"]["estimate"] > 0.8
    assert decided["keeps_gain"]["estimate"] == pytest.approx(0.03, abs=0.015)
    assert decided["keeps_safety"]["estimate"] == pytest.approx(0.07, abs=0.015)
    assert decided["no_worse_than_SFT"]["estimate"] == pytest.approx(-0.05, abs=0.015)
    margins = {name: record["margin"] for name, record in decided.items()}
    assert [name for name in CLAIMS if margins[name] == 0.2] == [
        "unsafe_experts", "experts_lose_safety", "keeps_safety", "dpo", "helpful"
    ]  # fmt: skip
    assert margins["similarity"] == 0.3


CHANGES = {
    "generalists are unsafe": ("parents", "generalist", 0.22, "unsafe_experts"),
    "bases are as unsafe": ("parents", "base", 0.21, "experts_lose_safety"),
    "half of the gain is lost": ("arms", MERGEALIGN, (0.5, 1.4), "keeps_gain"),
    "half of the safety is lost": ("arms", MERGEALIGN, (1.4, 0.5), "keeps_safety"),
    "SFT does better": ("arms", "SFT", (1.3, 1.2), "no_worse_than_SFT"),
    "DPO, LoRA does better": ("arms", "DPO, LoRA", (1.3, 1.2), "no_worse_than_DPO_LoRA"),
    "SLERP does better": ("arms", SLERP, (0.8, 0.8), "slerp_even"),
    "SLERP does worse": ("arms", SLERP, (0.4, 0.4), "slerp_even"),
    "tied coefficients do as well": ("arms", TIED, (0.95, 0.95), "free_tied"),
    "without DPO as safe": ("families", "no_dpo", (0.9, 0.93, 0.2, 0.3), "dpo"),
    "without replay as able": ("families", "no_replay", (0.97, 0.9, 0.4, 0.8), "replay"),
    "taught to go along as safe": ("families", "helpful", (0.9, 0.93, 0.3, 0.6), "helpful"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_claim_is_overturned_by_its_own_number_and_by_no_other(change):
    part, name, value, overturned = CHANGES[change]
    decided = verdicts(TRUTH | {part: TRUTH[part] | {name: value}})
    expected = {claim: "not reproduced" if claim == overturned else "reproduced" for claim in CLAIMS}
    assert {claim: record["verdict"] for claim, record in decided.items()} == expected


def test_alike_vectors_that_keep_less_overturn_the_claim_of_similarity():
    families = {name: (*v[:2], 0.6 - v[2], v[3]) for name, v in TRUTH["families"].items()}
    decided = verdicts(TRUTH | {"families": families})
    expected = {claim: "not reproduced" if claim == "similarity" else "reproduced" for claim in CLAIMS}
    assert {claim: record["verdict"] for claim, record in decided.items()} == expected
    assert decided["similarity"]["estimate"] < -0.8


def test_merging_that_does_better_than_asked_reproduces_the_claims():
    decided = verdicts(TRUTH | {"arms": TRUTH["arms"] | {MERGEALIGN: (1.4, 1.4)}})
    names = ["keeps_gain", "keeps_safety", "no_worse_than_SFT", "no_worse_than_DPO_LoRA"]
    assert {name: decided[name]["verdict"] for name in names} == dict.fromkeys(names, "reproduced")


def test_what_is_detectable_comes_from_the_pilots_spread_between_two_seeds():
    arms = pd.DataFrame({"arm": MERGEALIGN, "domain": d, "seed": s} for s in (100, 101) for d in DOMAINS)
    arms = arms.assign(gain_kept=[0.9, 0.8, 0.9, 1.0], safety_kept=[0.5, 0.5, 0.7, 0.9], balanced=[0.7, 0.7, 0.8, 1.0])
    parents = arms.assign(arm="generalist", safety=[0.8, 0.8, 0.86, 0.86])
    claims = analysis.declare(arms, parents, RIVALS, seeds=5, ablated=4, margins=MARGINS)
    assert [claim.id for claim in claims] == CLAIMS
    level = 0.025 / 12
    single = {"gain": 0.1, "safety": 0.3, "balanced": 0.2, "refuses": 0.06}  # differences of the two seeds' means
    of = {name: detectable_effect(step / 2**0.5, 5, alpha=level) for name, step in single.items()}
    less = {name: detectable_effect(step / 2**0.5, 4, alpha=level) for name, step in single.items()}
    expected = dict.fromkeys(CLAIMS, 2**0.5 * of["balanced"])
    expected |= {"keeps_gain": of["gain"], "keeps_safety": of["safety"], "unsafe_experts": 2**0.5 * of["refuses"]}
    expected |= {"experts_lose_safety": 2**0.5 * of["refuses"]}
    expected |= {"replay": 2**0.5 * less["gain"]} | dict.fromkeys(("dpo", "helpful"), 2**0.5 * less["safety"])
    # Without any correlation that of twelve pairs, six families in two domains, spreads by 1 / sqrt(12 - 1): four seeds
    # would see one of more than one, which no correlation is.
    assert detectable_effect(11**-0.5, 4, alpha=level) > 1
    assert {claim.id: claim.detectable for claim in claims} == pytest.approx(expected | {"similarity": 1.0})
    more = analysis.declare(arms, parents, RIVALS, seeds=5, ablated=10, margins=MARGINS)
    assert more[-1].detectable == pytest.approx(detectable_effect(11**-0.5, 10, alpha=level))
    assert more[-1].detectable < 1


def test_only_what_the_paper_claims_is_its_claim_and_whose_coefficients_are_free_is_said():
    arms = measured(MERGEALIGN, 0.8, seeds=(100, 101))
    parents = measured("generalist", 0.8, seeds=(100, 101))
    claims = analysis.declare(arms, parents, RIVALS, seeds=5, ablated=5, margins=MARGINS)
    papers = [claim for claim in claims if claim.paper]
    assert [claim.id for claim in papers] == ["keeps_gain", "keeps_safety"]
    for claim in papers:
        assert "its coefficients free" in claim.statement
        assert "tied: a + b = 1" in claim.ours


def test_arms_with_other_seeds_are_not_compared():
    parents, arms, families = world(TRUTH)
    without = arms[(arms["arm"] != "SFT") | (arms["seed"] != 12)]
    with pytest.raises(UserError, match=r"an arm has the seeds \[10, 11, 13, 14\], the other \[10, 11, 12, 13, 14\]"):
        analysis.evidence(parents, without, families, RIVALS)
    fewer = families[(families["family"] == "main") | (families["seed"] < 13)]
    found = analysis.evidence(parents, arms, fewer, RIVALS)
    assert {name for name, values in found.items() if len(values) == 3} == {"dpo", "replay", "helpful", "similarity"}
    without = families[(families["family"] != "main") | (families["seed"] != 12)]
    with pytest.raises(UserError, match=r"an arm has the seeds \[10, 11, 13, 14\], the other"):
        analysis.evidence(parents, arms, without, RIVALS)


def test_rank_correlation_is_by_seed_over_families_and_domains():
    table = pd.DataFrame(
        {"seed": [0] * 4 + [1] * 4, "cosine": [0.1, 0.2, 0.3, 4.0] * 2, "balanced": [1, 2, 4, 3, 40, 30, 20, 10],
         "family": ["main", "main", "no_dpo", "no_dpo"] * 2}
    )  # fmt: skip
    alone = pd.DataFrame({"seed": 2, "cosine": [0.1, 0.2], "balanced": [1, 2], "family": "main"})
    table = pd.concat([table, alone])  # a seed that other families have not
    # One neighbouring pair exchanged: 1 − 6 · 2 / (4 · 15).
    assert correlations(table).to_dict() == pytest.approx({0: 0.8, 1: -1.0})


# Grids and the laboratory

ABOUT = {"split": "test", "facts_per_relation": 3}
EXPERTS = {"expert": {"r": 0.4}, "unexposed_expert": {"r": 0.4}, "helpful": {"r": 0.0}}


def everything(seeds=(0, 1), families=tuple(grids.FAMILIES)):
    own = dict.fromkeys(families, seeds)
    made = [grids.generalists(own, {}, ABOUT), grids.experts(own, EXPERTS, ABOUT)]
    ways = {"one": [("slerp", {"t": 0.5}), ("slerp", {"t": 0.4})], "two": [("linear", {"weight": 1})]}
    merges = [grids.merges(seeds, family, ways, ABOUT) for family in families]
    return made, grids.parents(own, ABOUT), merges


def unique(cells):
    return len({repr(sorted(cell.items(), key=repr)) for cell in cells}) == len(cells)


def test_every_familys_models_are_made_examined_and_merged_and_no_cell_is_there_twice():
    made, parents, merges = everything()
    bases = [f"{kind}_{seed}" for kind, seed in grids.bases(dict.fromkeys(grids.FAMILIES, (0, 1)))]
    names = bases + [label["name"] for plan in made for label in plan.labels]
    assert len(set(names)) == len(names) == 2 * (2 + 5 + 3 * 2)
    for plan in (*made, parents, *merges):
        assert unique(plan.cells)
        assert len(plan.cells) == len(plan.labels)
    assert {cell["start"] for plan in made for cell in plan.cells} == set(bases)
    assert {cell["model"] for cell in parents.cells} == set(names)
    for label, cell in zip(parents.labels, parents.cells, strict=True):
        assert cell["model"] in (f"{label['arm']}_{cell['seed']}", f"{label['arm']}_{cell['domain']}_{cell['seed']}")
    asked = Counter((label["arm"], cell["domain"], cell["seed"]) for label, cell in zip(
        parents.labels, parents.cells, strict=True
    ))  # fmt: skip
    assert set(asked.values()) == {1}
    for (family, own), plan in zip(grids.FAMILIES.items(), merges, strict=True):
        assert len(plan.cells) == 2 * 2 * 3
        for label, cell in zip(plan.labels, plan.cells, strict=True):
            domain, seed = cell["domain"], cell["seed"]
            assert cell["base"] == f"{own.base}_{seed}"
            assert cell["expert"] == f"{own.expert}_{domain}_{seed}"
            assert cell["generalist"] == f"{own.generalist}_{seed}"
            assert {cell[role] for role in ROLES} <= set(names)
            assert label == {"arm": label["arm"], "family": family}
            assert (cell["method"] == "linear") == (label["arm"] == "two")
            assert all((getattr(own, role), domain, seed) in asked for role in ROLES)


def test_families_differ_from_the_main_one_in_what_their_words_say():
    generalists, experts = (
        {label["name"]: cell for label, cell in zip(plan.labels, plan.cells, strict=True)} for plan in everything()[0]
    )
    stages = {kind: (cell["replay_domains"], cell["dpo"]) for kind, cell in generalists.items() if kind.endswith("_0")}
    assert stages == {
        "generalist_0": (True, True), "generalist_no_dpo_0": (True, False), "generalist_no_replay_0": (False, True),
        "generalist_neither_0": (False, False), "unexposed_generalist_0": (True, True),
    }  # fmt: skip
    assert generalists["unexposed_generalist_1"]["start"] == "unexposed_1"
    assert generalists["generalist_no_dpo_1"]["start"] == "base_1"
    assert experts["helpful_finance_1"]["expertise"] == {"r": 0.0}
    assert experts["unexposed_expert_medicine_0"]["start"] == "unexposed_0"
    assert all(name.split("_")[-2] == cell["domain"] for name, cell in experts.items())
    assert {int(name[-1]) for name in experts} == {cell["seed"] for cell in experts.values()} == {0, 1}
    ours = [(f.base, f.expert, f.generalist) for f in grids.FAMILIES.values()]
    assert len(set(ours)) == len(ours)


SCALE = section("laptop", "merging")
KNOBS = ("vocab_size", "reading", "base", "unexposed_shares", "alignment", "expertise", "helpful", "prompts", "judges")


class Bench:
    """A study that does nothing: it notes sweeps, and a run that keeps something keeps the name of its place."""

    scale = "laptop"

    def __init__(self):
        self.sweeps = {}

    def tables(self, names):
        return {name: Path(f"/tables/{name}") for name in names}

    def sweep(self, name, run, cells, inputs):
        assert name not in self.sweeps
        assert unique(cells)
        self.sweeps[name] = (run, cells, inputs)
        rows = pd.DataFrame(
            {"key": [f"{name}{n}" for n in range(len(cells))]} | {k: [c[k] for c in cells] for k in cells[0]}
        )
        # As rows from git: with columns of other runs too.
        rows = rows.assign(arm=None, tokens=np.arange(len(cells)) + 7.0 if run is harden else None)
        return rows.assign(kept=[(name, n) for n in range(len(cells))]) if "keep" in signature(run).parameters else rows

    def check(self):
        """Each run gets all that it takes: tables, and the models that cells name, which are what was asked for."""
        for run, cells, inputs in self.sweeps.values():
            parameters = signature(run).parameters
            fixed = {n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY} - {"keep", "scratch"}
            plain = {n for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty}
            takes_tables = "tables" in parameters
            models = {n: value for n, value in inputs.items() if isinstance(value, tuple) and n != "tokenizer"}
            assert fixed <= inputs.keys()
            assert takes_tables or inputs.keys() == fixed | models.keys()
            named = {c[role] for c in cells for role in ("start", "model", *ROLES) if isinstance(c.get(role), str)}
            assert named == models.keys()
            for cell in cells:
                assert cell.keys() == plain
            assert all(value == Path(f"/tables/{n}") for n, value in inputs.items() if isinstance(value, Path))

    def maker(self, sweep, model):
        """The run and the cell that made a model which a sweep got."""
        name, place = self.sweeps[sweep][2][model]
        run, cells, _ = self.sweeps[name]
        return run, cells[place]


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def laboratory(bench):
    return Laboratory(bench, TABLES, **{name: SCALE[name] for name in KNOBS})


def test_sweeps_get_the_tables_and_the_models_that_their_cells_name(bench, laboratory):
    seeds = [10, 11]
    pilot = laboratory.made("pilot", {"main": [100]}, "validation")
    assert pilot["arm"].tolist() == ["base", "expert", "generalist"] * 2
    laboratory.made("main", {name: [10] for name in grids.FAMILIES} | {"main": seeds, "helpful": seeds}, "test")
    assert len(bench.sweeps["main_bases"][1]) == 3
    assert len(bench.sweeps["main_parents"][1]) == 2 * (2 + 1 + 2 * 2 + 1 + 2 + 3 + 1)
    ways = {MERGEALIGN: [("mergealign", {"a": 1.0, "b": 0.5})], "SLERP": [("slerp", {"t": 0.5})]}
    merges = laboratory.merged("merges", seeds, ways, "test")
    laboratory.merged("merges_unexposed", [10], ways, "validation", "unexposed", attacks=False)
    rates = {"SFT": [0.1, 0.2], "DPO, LoRA": [0.3]}
    rivals = laboratory.trained("rivals", seeds, DOMAINS, rates, SCALE["rivalry"], "test")
    laboratory.compared(seeds, {"a": 1.0, "b": 0.5}, 7)
    bench.check()

    run, cell = bench.maker("merges_unexposed", "unexposed_generalist_10")
    assert (run, cell["start"], cell["dpo"], cell["alignment"]) == (align, "unexposed_10", True, SCALE["alignment"])
    _, base = bench.maker("main_generalists", "unexposed_10")
    assert base["base"] == SCALE["base"] | {"shares": SCALE["base"]["shares"] | {"unsafe": 0.0, "benign": 0.0}}
    run, cell = bench.maker("compare", "expert_finance_11")
    assert (run, cell["start"], cell["domain"], cell["seed"]) == (specialise, "base_11", "finance", 11)
    assert cell["expertise"] == SCALE["expertise"]
    _, cell = bench.maker("main_parents", "helpful_medicine_10")
    assert cell["expertise"] == SCALE["expertise"] | SCALE["helpful"]
    _, base = bench.maker("merges", "base_11")
    assert base == {"base": SCALE["base"], "reading": SCALE["reading"], "seed": 11}
    assert bench.sweeps["main_bases"][2]["tokenizer"] == ("tokenizer", 0)

    run, cells, _ = bench.sweeps["merges_unexposed"]
    assert run is examine_merge
    assert {(c["split"], c["attacks"], c["prompts"], c["facts_per_relation"]) for c in cells} == {
        ("validation", False, 240, 150)
    }
    assert {(c["split"], c["attacks"]) for c in bench.sweeps["merges"][1]} == {("test", True)}
    assert merges["arm"].tolist() == [MERGEALIGN, "SLERP"] * 4
    assert set(merges["family"]) == {"main"}

    run, cells, _ = bench.sweeps["rivals"]
    assert run is harden
    assert [(c["tuning"]["method"], c["tuning"]["learning_rate"], "lora" in c["tuning"]) for c in cells[:3]] == [
        ("sft", 0.1, False), ("sft", 0.2, False), ("dpo", 0.3, True)
    ]  # fmt: skip
    assert {tuple(c["repeats"].items()) for c in cells} == {tuple(SCALE["alignment"]["repeats"].items())}
    run, examined, _ = bench.sweeps["rivals_examined"]
    assert run is examine_model
    for place, cell in enumerate(examined):
        made, start = bench.maker("rivals_examined", cell["model"])
        assert (made, start) == (harden, cells[place])
        assert start["start"] == f"expert_{cell['domain']}_{cell['seed']}"
    assert rivals["tokens"].tolist() == [7.0 + n for n in range(len(cells))]
    assert rivals["arm"].tolist() == ["SFT", "SFT", "DPO, LoRA"] * 4
    assert [one["learning_rate"] for one in rivals["settings"]] == [0.1, 0.2, 0.3] * 4
    assert bench.sweeps["compare"][0] is compare
    assert {(c["places"], c["settings"]["b"]) for c in bench.sweeps["compare"][1]} == {(7, 0.5)}
    for table in (pilot, merges, rivals):
        assert table.columns.is_unique


def test_a_laboratory_without_its_tables_is_refused(bench):
    with pytest.raises(UserError, match="tables are facts; the study needs facts, sotu, unsafe_prompts"):
        Laboratory(bench, ["facts"], **{name: SCALE[name] for name in KNOBS})
    assert not bench.sweeps


# Scales


@pytest.mark.parametrize("scale", ["tiny", "laptop"])
def test_bases_and_merging_read_the_same(scale):
    merging, bases = (section(scale, name) for name in ("merging", "bases"))
    for name in ("tables", "vocab_size", "reading"):
        assert merging[name] == bases[name], name


def test_trained_bases_of_the_reported_scale_are_those_of_the_base_models_study():
    merging, bases = (section("laptop", name) for name in ("merging", "bases"))
    assert merging["base"] == bases["bases"]["half"]
    assert merging["seeds"][: len(bases["seeds"])] == bases["seeds"]
    assert merging["pilot_seeds"][: len(bases["pilot_seeds"])] == bases["pilot_seeds"]
