"""From a table of runs to tables, plateaus and claims: effects that were put in are found, faults are refused."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from alignment_runs import CELLS, QUANTISED, SEEDS, made_runs
from common.analysis import alignment as analysis
from common.analysis.alignment import claims, paper
from common.analysis.alignment.beside import rank_interval
from common.analysis.alignment.plateaus import NotIdentified, fit_plateau
from common.errors import UserError
from common.evidence import decide, prose

MARGINS = {"score": 0.03, "interaction": 0.03, "equal": 0.05, "nontoxic": 0.5, "decisions": 0.1, "log_odds": 1.0}
SIZES = np.array([50.0, 100, 200, 400, 800])
RUNS = made_runs()
TRIED = pd.DataFrame(
    {"method": ["sft", "sft", "dpo", "dpo"], "learning_rate": [0.1, 0.2, 0.1, 0.2], "edge": [False, True, False, False]}
)


def decided(runs, **claimed):
    spread = analysis.spreads(runs[runs["part"] == "crossing"])
    declared = analysis.declare(spread, seeds=len(SEEDS), margins=MARGINS, **claimed)
    return decide(declared, analysis.evidence(runs, CELLS, QUANTISED))


def verdicts(**changes):
    return {name: record["verdict"] for name, record in decided(made_runs(**changes)).items()}


# Claims


def test_every_effect_that_was_put_in_is_found():
    assert set(verdicts().values()) == {"reproduced"}


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("better_data", {"clean": 0.0, "clean_sft": 0.0}),
        ("better_data_sft", {"clean_sft": 0.0}),
        ("sft_base", {"suits": -0.1}),
        ("dpo_instruct", {"suits": -0.2}),
        ("dpo_faithful", {"opposite_dpo": 0.0}),
        ("mixtures_hurt", {"mix": 0.0, "mix_dpo": 0.0}),
        ("mixtures_hurt_dpo", {"mix_dpo": 0.0}),
        ("dare_mitigates", {"dare": 0.0}),
        ("slerp_degrades", {"slerp": 0.02}),
        ("lora_qlora", {"nf4": 0.1}),
    ],
)
def test_each_claim_falls_with_its_own_effect(claim, changes):
    assert verdicts(noise=0.01, **changes)[claim] == "not reproduced"


def test_differences_are_those_that_were_put_in_where_there_is_no_noise():
    found = claims.evidence(made_runs(noise=1e-6), CELLS, QUANTISED)
    means = {name: values.mean() for name, values in found.items()}
    # Clean data: .1, with SFT .05 more. A mix gets what sets aims apart once more, less what mixing takes.
    expected = {
        "better_data": 0.125, "better_data_sft": 0.05, "dpo_faithful": 0.2, "mixtures_hurt": 0.08,
        "mixtures_hurt_dpo": 0.06, "dare_mitigates": 0.04, "slerp_degrades": 0.08, "lora_qlora": 0.0, "unseen_dpo": 0.0,
        "unseen_margin": 27.0, "unseen_sft": 0.8,
        "sft_base": 0.08 + 0.025 - 0.1 + 0.02, "dpo_instruct": 0.08 - 0.025 + 0.1 - 0.02,
    }  # fmt: skip
    assert means == pytest.approx(expected, abs=1e-4)


def test_rows_of_slerp_in_the_paper_are_nearer_to_the_other_methods_parents():
    printed = analysis.slerp_rows()
    assert len(printed) == 4
    assert (printed["other"] < printed["own"]).all()  # the paper's
    first = printed[(printed["start"] == "base") & (printed["method"] == "sft")].iloc[0]
    assert first["own"] == pytest.approx(abs(-9.115 - (1.863 + 1.571) / 2))
    assert first["other"] == pytest.approx(abs(-9.115 - (-3.701 - 9.375) / 2))


def test_fidelity_does_not_reward_what_a_method_gives_every_model():
    crossing = analysis.scored(RUNS[RUNS["part"] == "crossing"])
    lifted = crossing.assign(declined=crossing["declined"] + 0.2, win_rate=crossing["win_rate"] - 0.1)
    pd.testing.assert_series_equal(claims.fidelity(crossing), claims.fidelity(lifted))
    turned = crossing.assign(aim=crossing["aim"].map({"harmless": "helpful", "helpful": "harmless", "mix": "mix"}))
    pd.testing.assert_series_equal(claims.fidelity(turned), -claims.fidelity(crossing))


def test_detectable_effects_are_those_of_the_differences():
    """The spread that the declaration reckons with is that of the evidence, from many made-up seeds."""
    many = tuple(range(150))
    runs = made_runs(noise=0.05, seeds=many)
    found = claims.evidence(runs, CELLS, QUANTISED)
    spread = claims.spreads(runs[runs["part"] == "crossing"])
    for one in claims.STATEMENTS:
        reckoned = spread[one.spread] * np.sqrt(sum(weight**2 / n for weight, n in one.arms))
        # Scores of a mix are means of two measures and vary less than the others'.
        assert found[one.id].std(ddof=1) == pytest.approx(reckoned, rel=0.35), one.id


def test_words_follow_verdicts_and_need_every_number():
    numbers = analysis.spoken(RUNS)
    assert numbers["packed_bytes"] == pytest.approx(1.9 / 2.7)
    assert (numbers["swapped"], numbers["slerp_rows"]) == (4, 4)
    assert numbers["start_knowledge"] == pytest.approx(
        RUNS[(RUNS["part"] == "starts") & (RUNS["start"] != "unseen")]["knowledge"].mean()
    )
    said = prose(analysis.SUMMARIES[1], decided(RUNS), **numbers).data
    assert "Clean data do better" in said
    assert "Clean data do not do notably better" in prose(
        analysis.SUMMARIES[1], decided(made_runs(clean=0.0, clean_sft=0.0)), **numbers
    ).data.replace("\n", " ")


def test_what_mixing_costs_is_what_the_measure_adds_and_what_is_left_of_both_aims():
    """By hand: own aims' score is half of declined and win rate, `both` a quarter of each aim's four."""
    numbers, crossing = analysis.spoken(RUNS), analysis.scored(RUNS[RUNS["part"] == "crossing"])
    means = crossing.groupby("aim")[["declined", "win_rate"]].mean()
    own = (means.loc["harmless", "declined"] + means.loc["helpful", "win_rate"]) / 2
    both = means.loc[["harmless", "helpful"]].to_numpy().mean()
    assert numbers["by_measure"] == pytest.approx(own - both)
    assert numbers["single_both"] == pytest.approx(both)
    cost = claims.cost_of_mixing(crossing).mean()
    assert cost == pytest.approx(numbers["by_measure"] + numbers["single_both"] - numbers["mix_both"])


def test_halves_of_dare_stand_beside_mixed_data_with_an_interval_paired_by_seed():
    numbers = analysis.spoken(made_runs(noise=1e-6))
    assert numbers["halves_gain"] == pytest.approx(0.02, abs=1e-4)
    assert numbers["halves_gain_ci"] == pytest.approx([0.02, 0.02], abs=1e-4)
    assert numbers["halves_balanced"] - numbers["mix_data_balanced"] == pytest.approx(0.02, abs=1e-4)


def test_it_is_said_that_nothing_beats_declining_everything_only_where_nothing_does():
    poor = RUNS.assign(balanced=0.45 + 0.01 * (RUNS["seed"] % 2))
    numbers = analysis.spoken_of_limits(poor, TRIED)
    assert (numbers["above"], numbers["best"]) == ("none", pytest.approx(0.454, abs=1e-3))  # three of five seeds even
    assert numbers["arms"] == 24 + 12 + 4 * 5 + 2 + 2 * 2 * 5 + 3 * 2 + 4 + 2
    assert "Nothing here shows" in prose(analysis.ALL_LIMITS[0], {}, **_seen(numbers)).data
    merged = (poor["part"] == "merges") & (poor["merge"] == "ties") & (poor["method"] == "dpo")
    numbers = analysis.spoken_of_limits(poor.assign(balanced=poor["balanced"].mask(merged, 0.7)), TRIED)
    assert (numbers["above"], numbers["best"]) == ("2", pytest.approx(0.7))  # from either start
    assert "Nothing here shows" not in prose(analysis.ALL_LIMITS[0], {}, **_seen(numbers)).data


def _seen(numbers):
    return {name: value for name, value in numbers.items() if not name.startswith("unseen")}


def test_a_rate_at_an_end_of_those_tried_is_named():
    assert analysis.edges(TRIED) == "SFT, the highest"
    assert analysis.edges(TRIED.assign(edge=False)) == "none"
    lowest = TRIED.assign(edge=[True, False, False, False])
    assert analysis.edges(lowest) == "SFT, the lowest"


def test_without_bases_that_never_met_a_prompt_nothing_is_claimed_or_said_of_them():
    without = RUNS[RUNS["start"] != "unseen"]
    found = decided(without, unseen=False)
    assert list(found) == [name for name in decided(RUNS) if not name.startswith("unseen")]
    assert found["better_data"]["detectable"] < decided(RUNS)["better_data"]["detectable"]  # fewer share the level
    assert "never met" not in prose(analysis.SUMMARIES[0], found, **analysis.spoken(without)).data
    assert "never met" not in prose(analysis.ALL_LIMITS[0], found, **analysis.spoken_of_limits(without, TRIED)).data
    assert "never met" in prose(analysis.ALL_LIMITS[1], found, **analysis.spoken_of_limits(RUNS, TRIED)).data
    with pytest.raises(UserError, match="claims without data: unseen_dpo, unseen_margin, unseen_sft"):
        decided(without)
    with pytest.raises(UserError, match="data without a claim: unseen_dpo"):
        decided(RUNS, unseen=False)


def test_models_taken_as_they_are_have_the_same_numbers_for_every_seed_and_no_others_may():
    rows = RUNS.copy()
    place = rows.index[(rows["part"] == "starts") & (rows["start"] == "base")]
    same = [name for name in rows if name != "seed"]
    rows.loc[place[1:], same] = rows.loc[place[0], same].to_numpy()
    with pytest.raises(UserError, match="starts: another seed has the same numbers: start base, seed 11"):
        analysis.mixtures(rows, ["declined"])
    rows.loc[place, "taken"] = True
    table = analysis.mixtures(rows, ["declined"]).set_index(["start", "aim"])
    assert table.loc[("base", "none"), ["low", "high"]].tolist() == [rows.loc[place[0], "declined"]] * 2
    with pytest.raises(UserError, match="starts: missing"):
        analysis.mixtures(rows.drop(place[2]), ["declined"])


def test_a_pilot_of_one_seed_or_without_a_spread_is_refused():
    crossing = RUNS[RUNS["part"] == "crossing"]
    with pytest.raises(UserError, match="one seed"):
        analysis.spreads(crossing[crossing["seed"] == SEEDS[0]])
    with pytest.raises(UserError, match="balanced is missing or the same"):
        analysis.spreads(crossing.assign(balanced=1.0))


# What a table of runs must hold


def without(part, place=0):
    rows = RUNS.index[RUNS["part"] == part]
    return RUNS.drop(rows[place])


@pytest.mark.parametrize("part", ["crossing", "quantised", "merges", "unseen", "starts"])
def test_a_run_that_is_missing_is_named(part):
    place = 2 if part == "starts" else 0  # the start that met no prompt
    with pytest.raises(UserError, match=r"missing|no run"):
        claims.evidence(without(part, place), CELLS, QUANTISED)


def test_a_cell_that_is_missing_for_all_seeds_is_named():
    cell = CELLS[7]
    gone = RUNS[(RUNS["part"] != "crossing") | (RUNS[list(cell)] != pd.Series(cell)).any(axis=1)]
    with pytest.raises(UserError, match="missing: dataset hh-like, aim helpful, method dpo, start instruct, seed 10"):
        claims.evidence(gone, CELLS, QUANTISED)


def changed(part, **values):
    rows = RUNS.copy()
    place = rows.index[rows["part"] == part][0]
    for name, value in values.items():
        rows.loc[place, name] = value
    return rows


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("part", "measure"), [("crossing", "declined"), ("merges", "win_rate"), ("unseen", "margin")])
def test_a_measure_that_is_no_number_is_refused(part, measure, value):
    with pytest.raises(UserError, match=f"{part}: {measure} is missing or not finite"):
        claims.evidence(changed(part, **{measure: value}), CELLS, QUANTISED)


def test_a_run_that_is_there_twice_is_refused():
    with pytest.raises(UserError, match="there twice"):
        claims.evidence(pd.concat([RUNS, RUNS[RUNS["part"] == "crossing"].head(1)]), CELLS, QUANTISED)


def test_seeds_with_identical_numbers_are_refused():
    rows = RUNS.copy()
    cell = rows.index[(rows["part"] == "crossing") & (rows[list(CELLS[3])] == pd.Series(CELLS[3])).all(axis=1)]
    columns = [name for name in rows if name != "seed"]
    rows.loc[cell[1], columns] = rows.loc[cell[0], columns].to_numpy()
    with pytest.raises(UserError, match=r"another seed has the same numbers: .* seed 11"):
        claims.evidence(rows, CELLS, QUANTISED)


def test_runs_that_are_in_no_grid_are_refused():
    with pytest.raises(UserError, match="not in the grid"):
        claims.evidence(RUNS, CELLS[1:], QUANTISED)


def test_qlora_must_be_packed_and_lora_must_not():
    with pytest.raises(UserError, match="base of nf4"):
        claims.evidence(changed("quantised", base_dtype="float32"), CELLS, QUANTISED)
    with pytest.raises(UserError, match="base of nf4"):
        claims.evidence(changed("crossing", base_dtype="nf4"), CELLS, QUANTISED)


def test_a_column_or_a_part_that_is_not_there_is_named():
    with pytest.raises(UserError, match="lack the column win_rate"):
        analysis.part(RUNS.drop(columns="win_rate"), "crossing", analysis.CELL, ["win_rate"])
    with pytest.raises(UserError, match="no run of pilot"):
        analysis.part(RUNS, "pilot", analysis.CELL, ["win_rate"])


# The paper's tables


@pytest.mark.parametrize(
    ("table", "rows", "where", "value"),
    [
        (paper.table_2, 48, {"model": "Mistral", "aim": "mix", "method": "dpo", "measure": "nontoxic"}, -9.419),
        (paper.table_2, 48, {"model": "Mistral-Instruct", "aim": "none", "method": "sft", "measure": "exact"}, 0.385),
        (paper.table_3, 54, {"row": "dare-sft+dpo", "start": "instruct", "measure": "win_rate"}, 9.363),
        (paper.table_4, 128, {"dataset": "hh-like", "model": "Mistral", "aim": "harmless", "method": "dpo",
                              "measure": "exact"}, 0.149),
        (paper.table_5, 64, {"model": "Vicuna", "aim": "helpful", "method": "dpo", "measure": "win_rate"}, 20.449),
    ],
)  # fmt: skip
def test_the_papers_numbers_are_where_they_are_printed(table, rows, where, value):
    found = table()
    assert len(found) == rows
    assert not found.isna().any(axis=None)
    assert found[(found[list(where)] == pd.Series(where)).all(axis=1)]["paper"].tolist() == [value]


def test_the_papers_tables_agree_where_they_print_the_same():
    """Table 2 is of BeaverTails by QLoRA, as are rows of table 4."""
    keys = ["model", "aim", "method", "measure"]
    fourth = paper.table_4()
    both = paper.table_2().merge(fourth[fourth["dataset"] == "beavertails-like"], on=keys, suffixes=("", "_4"))
    assert len(both) == 24
    assert (both["paper"] == both["paper_4"]).all()


@pytest.mark.parametrize(("name", "rows"), [("T2", 48), ("T3", 54), ("T4", 64), ("T5", 64)])
def test_tables_stand_beside_the_papers_row_by_row(name, rows):
    table = analysis.beside_paper(RUNS, name)
    assert len(table) == rows
    row = table[table["measure"] == "nontoxic"].iloc[3]
    part = "quantised" if name == "T4" else "crossing"
    if name in ("T4", "T5"):
        own = RUNS[(RUNS["part"] == part) & (RUNS[list(CELLS[0])] == row[list(CELLS[0])]).all(axis=1)]
        assert row["estimate"] == pytest.approx(own["nontoxic"].mean())
    shown = analysis.wide(table)
    assert set(shown.columns.get_level_values(1)) == {"ours", "paper"}
    assert not shown.isna().any(axis=None)
    with pytest.raises(UserError, match="allowed: T2, T3, T4, T5"):
        analysis.beside_paper(RUNS, "T1")


def test_agreement_is_full_with_numbers_that_rise_as_the_papers():
    table = analysis.beside_paper(RUNS, "T5")
    alike = analysis.agreement({"T5": table.assign(estimate=1 + 2 * table["paper"])})
    assert alike["correlation"].tolist() == pytest.approx([1.0] * 4)
    assert analysis.agreement({"T5": table.assign(estimate=-table["paper"])})["correlation"].max() == pytest.approx(-1)


def test_a_row_of_ours_counts_once_beside_the_mean_of_the_papers_rows():
    tables = {name: analysis.beside_paper(RUNS, name) for name in analysis.TABLES}
    found = analysis.agreement(tables).set_index(["table", "measure"])
    assert found["rows"].groupby("table").max().to_dict() == {"T2": 14, "T3": 18, "T4": 8, "T5": 8}
    own = tables["T5"][tables["T5"]["measure"] == "nontoxic"]
    ours, papers = {}, {}
    for row in own.itertuples():
        cell = (row.start, row.aim, row.method)
        ours[cell] = row.estimate
        papers.setdefault(cell, []).append(row.paper)
    assert {len(several) for several in papers.values()} == {2}  # LLaMA-1 and Mistral, Mistral-Instruct and Vicuna
    rank = spearmanr(list(ours.values()), [np.mean(several) for several in papers.values()]).statistic
    assert found.loc[("T5", "nontoxic"), "correlation"] == pytest.approx(rank)


def test_intervals_of_rank_correlations_hold_the_true_one_as_often_as_they_say():
    # By hand: .5 of 20 rows is .5493 ± 1.96 √((1 + .125) / 17) in arctanh.
    assert rank_interval(0.5, 20) == pytest.approx((0.0451, 0.7830), abs=1e-3)
    assert rank_interval(1.0, 9) == (1.0, 1.0)
    rng, true = np.random.default_rng(0), 6 / np.pi * np.arcsin(0.6 / 2)  # of two normals correlated by .6
    held = []
    for _ in range(500):
        drawn = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=12)
        low, high = rank_interval(float(spearmanr(*drawn.T).statistic), 12)
        held.append(low <= true <= high)
    assert np.mean(held) > 0.92


def test_correlations_whose_interval_excludes_zero_are_named():
    rows = [("T2", "exact", 0.1, -0.4, 0.6), ("T5", "exact", -0.9, -1.0, -0.2), ("T5", "win_rate", 0.8, 0.3, 0.9)]
    found = pd.DataFrame(rows, columns=["table", "measure", "correlation", "low", "high"])
    said = prose(analysis.AGREEMENT, {}, **analysis.agreed(found)).data
    assert "excludes zero: exact in T5 (-0.90), win_rate in T5 (+0.80) (of 3)" in said
    assert "zero: none (of 1)" in prose(analysis.AGREEMENT, {}, **analysis.agreed(found.head(1))).data


def test_hyper_parameters_stand_beside_the_papers():
    sft = {"method": "sft", "steps": 50, "batch_size": 16, "learning_rate": 0.005, "lora": {"r": 8, "lora_alpha": 16}}
    table = analysis.table_6({"sft": sft, "dpo": sft | {"method": "dpo", "beta": 0.1, "max_grad_norm": 0.5}})
    assert table.loc["learning_rate"].tolist() == ["0.005", "2e-4", "0.005", "5e-5"]
    assert table.loc["r"].tolist() == ["8", "64", "8", "16"]
    assert table.loc["max_grad_norm", ("dpo", "ours")] == "0.5"
    assert table.loc["schedule", ("sft", "ours")] == "cosine"
    assert "none" not in table.to_numpy()


# Tables of figures


def test_means_of_figures_are_means_of_runs():
    own = RUNS[(RUNS["part"] == "crossing") & (RUNS["start"] == "base") & (RUNS["method"] == "dpo")]
    table = analysis.compared(RUNS, "dataset")
    row = table[(table["start"] == "base") & (table["method"] == "dpo") & (table["measure"] == "win_rate")]
    for data, estimate in zip(row["dataset"], row["estimate"], strict=True):
        assert estimate == pytest.approx(own[own["dataset"] == data]["win_rate"].mean())
    assert set(table["n"]) == {len(SEEDS)}


def test_shares_of_the_largest_are_by_seed_and_end_at_one():
    table = analysis.of_largest(RUNS, ["score"])
    last = table[table["pairs"] == 800]
    assert (last[["low", "estimate", "high"]] == 1).all(axis=None)
    own = RUNS[(RUNS["part"] == "sizes") & (RUNS["dataset"] == "hh-like") & (RUNS["method"] == "sft")]
    score = (own["declined"] + own["win_rate"]) / 2
    shares = score[own["pairs"] == 50].to_numpy() / score[own["pairs"] == 800].to_numpy()
    first = table[(table["dataset"] == "hh-like") & (table["method"] == "sft") & (table["pairs"] == 50)]
    assert first["estimate"].tolist() == pytest.approx([shares.mean()])


def test_a_share_of_nothing_is_left_out():
    rows = RUNS.copy()
    none = (rows["part"] == "sizes") & (rows["dataset"] == "hh-like")
    rows.loc[none, "resisted"] = 0.001 * rows.loc[none, "win_rate"]
    table = analysis.of_largest(rows, ["resisted"])
    assert set(table["dataset"]) == {"beavertails-like"}


def test_the_frontier_is_what_no_point_beats():
    table = analysis.frontier(RUNS)
    for row in table.itertuples():
        beaten = any(
            other.reward > row.reward and other.kl <= row.kl for other in table.itertuples() if other.Index != row.Index
        )
        assert row.best == (not beaten)
    worse = RUNS.copy()
    worse.loc[(worse["loss_type"] == "ipo") & (worse["beta"] == 0.1), "reward"] -= 3
    again = analysis.frontier(worse)
    assert not again[(again["loss_type"] == "ipo") & (again["beta"] == 0.1)]["best"].any()


def test_adapters_are_compared_in_the_cells_that_have_both():
    table = analysis.adapters(RUNS, QUANTISED, ["win_rate"])
    assert set(table["adapter"]) == {"lora", "qlora"}
    assert set(table["start"]) == {"base"}  # every other cell
    lora = table[(table["adapter"] == "lora") & (table["method"] == "sft")]["estimate"].item()
    own = RUNS[(RUNS["part"] == "crossing") & (RUNS["start"] == "base") & (RUNS["method"] == "sft")]
    assert lora == pytest.approx(own["win_rate"].mean())


def test_merges_stand_beside_what_they_are_made_of():
    table = analysis.merges(RUNS, ["balanced"])
    one = table[(table["start"] == "base") & (table["method"] == "sft")]
    assert set(one["arm"]) == {"harmless", "helpful", "mix", "slerp", "dare", "dare_half", "ties", "linear"}
    assert set(table[table["method"] == "sft+dpo"]["arm"]) == {"dare"}


def test_what_was_not_selected_or_not_trained_stands_beside():
    table = analysis.selections(RUNS, ["declined"])
    assert set(table["selection"]) == {"all", "random", "dissimilar", "diverse", "entropy"}
    crossing = RUNS[(RUNS["part"] == "crossing") & (RUNS["dataset"] == "hh-like") & (RUNS["aim"] == "mix")]
    crossing = crossing[(crossing["method"] == "dpo") & (crossing["start"] == "base")]
    assert len(crossing) == len(SEEDS)
    whole = table.set_index("selection").loc["all", "estimate"]
    assert whole == pytest.approx(crossing["declined"].mean())
    two = RUNS.assign(dataset=RUNS["dataset"].where(RUNS["selection"] != "entropy", "beavertails-like"))
    with pytest.raises(UserError, match="pairs are selected for 2 arms, allowed: one"):
        analysis.selections(two, ["declined"])
    before = analysis.unseen(RUNS, ["margin"]).set_index("method")["estimate"]
    assert before.to_dict() == pytest.approx({"none": 0.0, "sft": 5.0, "dpo": 27.0}, abs=0.1)


def test_all_measures_are_means_over_the_crossing_and_of_the_starts():
    table = analysis.means(RUNS)
    assert list(table.columns) == [(s, m) for s in ("base", "instruct") for m in ("dpo", "none", "sft")]
    own = RUNS[(RUNS["part"] == "crossing") & (RUNS["start"] == "base") & (RUNS["method"] == "sft")]
    assert table.loc["shifted", ("base", "sft")] == pytest.approx(own["shifted"].mean())


# Plateaus


def curve(scale, plateau=0.8, rise=0.4, noise=0.0, seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    exact = plateau - rise * np.exp(-SIZES / scale)
    return exact + noise * rng.normal(size=(seeds, len(SIZES))) + noise * rng.normal(size=(seeds, 1))


@settings(max_examples=25)
@given(scale=st.floats(40, 350), plateau=st.floats(-2, 2), rise=st.sampled_from([-0.5, 0.3, 2.0]))
def test_a_curve_without_noise_is_found(scale, plateau, rise):
    fit = fit_plateau(SIZES, curve(scale, plateau, rise))
    assert fit.scale[0] == pytest.approx(scale, rel=0.02)
    assert fit.plateau[0] == pytest.approx(plateau, abs=0.01 * abs(rise))
    assert fit.rise[0] == pytest.approx(rise, rel=0.05)
    np.testing.assert_allclose(fit.at(SIZES), curve(scale, plateau, rise)[0], atol=0.01 * abs(rise))


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = []
    for seed, (scale, seeds) in itertools.product(range(40), [(120, 3), (200, 5)]):
        fit = fit_plateau(SIZES, curve(scale, noise=0.02, seeds=seeds, seed=seed))
        held.append([fit.plateau[1] <= 0.8 <= fit.plateau[2], fit.scale[1] <= scale <= fit.scale[2]])
    assert (np.mean(held, axis=0) > 0.88).all()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (curve(1500, noise=0.01), "no plateau in sight"),
        (curve(15, rise=2.0, noise=0.01), "over by the first size"),
        (curve(100, rise=0.0, noise=0.02), "no significant change"),
        (curve(350, noise=0.06, seeds=3, seed=5), "seeds disagree|no plateau|no significant change"),
    ],
)
def test_a_plateau_that_runs_cannot_tell_is_refused(values, why):
    with pytest.raises(NotIdentified, match=why):
        fit_plateau(SIZES, values)


def test_noise_alone_seldom_has_a_plateau():
    found = 0
    for seed in range(200):
        try:
            fit_plateau(SIZES, curve(100, rise=0.0, noise=0.02, seed=seed))
            found += 1
        except NotIdentified:
            continue
    assert found <= 16  # one in twenty would be 10


@pytest.mark.parametrize(("sizes", "values"), [(SIZES[:3], curve(100)[:, :3]), (SIZES, curve(100)[:2])])
def test_few_sizes_or_seeds_identify_no_plateau(sizes, values):
    with pytest.raises(NotIdentified, match=r"seeds and \d sizes, needed: 3 and 4"):
        fit_plateau(sizes, values)


@pytest.mark.parametrize(("sizes", "values"), [(SIZES, np.full((3, 5), np.nan)), (SIZES[::-1], curve(9))])
def test_broken_numbers_are_no_plateau_but_an_error(sizes, values):
    with pytest.raises(UserError) as error:
        fit_plateau(sizes, values)
    assert not isinstance(error.value, NotIdentified)


def test_a_table_of_plateaus_says_why_there_is_none():
    rows = analysis.part(analysis.scored(RUNS), "sizes", ["dataset", "method", "pairs"], ["score", "knowledge"])
    fits, table = analysis.plateau_table(rows, ["dataset", "method"], ["score", "knowledge"])
    assert {name[-1] for name in fits} == {"score"}
    assert len(table) == 8
    assert (table["why"] == "").tolist() == (table["measure"] == "score").tolist()
    low, high = fits["hh-like", "sft", "score"].scale[1:]
    assert low < 150 < high
