"""From runs to what claims rest on: on made-up runs whose answers are known."""

import zlib

import numpy as np
import pandas as pd
import pytest

from common.analysis import quantization as analysis
from common.analysis.quantization.claims import ON_LOSS, ON_SHARPNESS
from common.analysis.quantization.runs import differences
from common.analysis.quantization.words import by_sharpness, weights_with_outliers
from common.errors import UserError
from common.evidence import decide, detectable_effect, prose

UNIFORM = float(np.log(512))
BASE = analysis.BASELINE


def made_runs(effects, seeds=(1, 2, 3, 4, 5), rates=(0.01,), noise=0.001):
    """Runs whose loss is the seed's own plus the setting's effect; None as effect: the run diverged."""
    rows = []
    for setting, effect in effects.items():
        for rate in rates:
            for seed in seeds:
                jitter = noise * np.random.default_rng([seed, zlib.crc32(setting.encode()), int(rate * 1e6)]).normal()
                loss = None if effect is None else 4 + seed / 10 + effect + jitter
                rows.append(
                    {
                        "key": f"{setting}-{rate}-{seed}",
                        "setting": setting,
                        "learning_rate": rate,
                        "seed": seed,
                        "loss_text": loss,
                        "uniform_loss": UNIFORM,
                        "diverged_at": 7 if effect is None else None,
                        "sharpness": None if effect is None else 0.1 * np.exp(effect + jitter + seed / 9),
                    }
                )
    return pd.DataFrame(rows).astype({"loss_text": float, "sharpness": float, "diverged_at": float})


def made_tables(runs):
    """Tables that the baseline's runs returned, with known outlier rises (.5) and zero shares (.6 and .2)."""
    keys = runs.loc[runs["setting"] == BASE, "key"]
    outliers = [
        {"key": key, "setting": "A4 tensor", "scale": scale, "loss": 4 + 0.5 * (scale > 1) * (1 + n / 99)}
        for n, key in enumerate(keys)
        for scale in (1.0, 16.0)
    ]
    layers = [
        {"key": key, "layer": layer, "setting": setting, "zero_share": share + n / 999 + shift}
        for n, key in enumerate(keys)
        for setting, share in (("G4 tensor", 0.6), ("A4 tensor", 0.2))
        for layer, shift in (("a", -0.1), ("b", 0.1))
    ]
    shares = pd.DataFrame(layers).assign(cosine=1.0, l2=0.0)
    tables = {"outliers": pd.DataFrame(outliers)}
    for name, setting in (("gradient_errors", "G4 tensor"), ("output_errors", "A4 tensor")):
        tables[name] = shares[(shares["setting"] == setting)]
    # A share that differs between seeds in one of the two only, so that the difference does.
    tables["output_errors"] = tables["output_errors"].assign(
        zero_share=tables["output_errors"]["zero_share"] ** 2 + 0.16
    )
    return tables.__getitem__


def test_differences_pair_by_seed_and_take_the_seeds_that_both_have():
    runs = made_runs({BASE: 0.0, "W8 channel": 0.3}, seeds=range(10), noise=0)
    fewer = runs[(runs["setting"] == BASE) | (runs["seed"] < 4)].sample(frac=1, random_state=0)
    found = differences(fewer, "W8 channel", BASE, "loss_text")
    np.testing.assert_allclose(found, [0.3] * 4)


def test_a_diverged_run_counts_with_the_loss_of_knowing_nothing():
    runs = made_runs({BASE: 0.0, "m2 8 tensor": None}, noise=0)
    expected = UNIFORM - (4 + np.arange(1, 6) / 10)
    np.testing.assert_allclose(differences(runs, "m2 8 tensor", BASE, "loss_text"), expected)
    with pytest.raises(UserError, match="sharpness is missing in a run of m2 8 tensor"):
        differences(runs, "m2 8 tensor", BASE, "log_sharpness")


@pytest.mark.parametrize(
    ("treated", "problem"), [("W2 tensor", "no run has the setting"), ("W8 channel", "same seeds")]
)
def test_arms_that_cannot_be_paired_are_refused(treated, problem):
    runs = made_runs({BASE: 0.0, "W8 channel": 0.3})
    runs.loc[(runs["setting"] == "W8 channel") & (runs["seed"] == 5), "seed"] = 99
    with pytest.raises(UserError, match=problem):
        differences(runs, treated, BASE, "loss_text")


def test_the_best_rate_is_chosen_by_mean_loss_after_divergence():
    runs = made_runs({BASE: 0.0}, seeds=(1, 2), rates=(0.01, 0.02, 0.04), noise=0)
    runs.loc[runs["learning_rate"] == 0.02, "loss_text"] -= 0.1
    runs.loc[runs["learning_rate"] == 0.04, "loss_text"] -= 0.5
    table = analysis.choose_learning_rates(runs, "loss_text")
    assert table.loc[table["chosen"], "learning_rate"].tolist() == [0.04]
    assert analysis.edges(table) == BASE
    lost = (runs["learning_rate"] == 0.04) & (runs["seed"] == 1)
    runs.loc[lost, ["loss_text", "diverged_at"]] = [np.nan, 3]
    table = analysis.choose_learning_rates(runs, "loss_text")
    assert table.loc[table["chosen"], "learning_rate"].tolist() == [0.02]
    assert analysis.edges(table) == "none"


def test_reported_cells_take_the_chosen_rate_and_every_seed():
    rates = pd.DataFrame({"setting": ["a", "a", "b"], "learning_rate": [1.0, 2.0, 3.0], "chosen": [False, True, True]})
    cells = analysis.cells_at(rates, ["a", "b"], shape=["s"], seed=[1, 2])
    assert [(c["recipe"], c["learning_rate"], c["seed"], c["shape"]) for c in cells] == [
        ("a", 2.0, 1, "s"),
        ("a", 2.0, 2, "s"),
        ("b", 3.0, 1, "s"),
        ("b", 3.0, 2, "s"),
    ]
    with pytest.raises(UserError, match="no learning rate was chosen for c"):
        analysis.cells_at(rates, ["c"], seed=[1])


def test_groups_are_components():
    labels = [BASE, "W8 channel", "A4 token", "G4 token", "m1 4 tensor", "m2 8 channel log", "W8 channel + A8 token"]
    assert list(analysis.groups_of(labels).values()) == [
        "weights", "activations", "gradients", "moments", "moments", "together",
    ]  # fmt: skip


def test_tables_leave_out_settings_that_diverged_and_the_notes_name_them():
    runs = made_runs({BASE: 0.0, "W8 channel": 0.3, "m2 8 tensor": None})
    texts = {"loss_text": "a text"}
    assert set(analysis.difference_table(runs, texts)["setting"]) == {"W8 channel"}
    assert set(analysis.perplexity_table(runs, texts)["setting"]) == {BASE, "W8 channel"}
    assert set(analysis.sharpness_table(runs)["setting"]) == {"W8 channel"}
    notes = analysis.divergence_notes(runs, {"W8 channel": "weights", "m2 8 tensor": "moments"})
    assert notes == {"moments": "m2 8 tensor: 5 of 5 runs diverged, at steps 7 to 7"}


def test_perplexity_and_sharpness_are_geometric_means():
    runs = made_runs({BASE: 0.0, "W8 channel": 0.3}, noise=1e-9)
    row = analysis.perplexity_table(runs, {"loss_text": "a text"}).iloc[1]
    assert row["estimate"] == pytest.approx(np.exp(4.3 + 0.3))
    assert row["low"] < row["estimate"] < row["high"]
    assert analysis.sharpness_table(runs)["estimate"].tolist() == [pytest.approx(np.exp(0.3))]


def test_every_claim_is_decided_from_the_runs_and_a_known_world_gives_known_verdicts():
    worse = {"W4 tensor": 0.3, "W4 channel": 0.1, "A4 token": 0.2, "A4 tensor": 0.3, "G4 token": 0.4, "G4 tensor": 0.6}
    worse |= {"G8 token": 0.1, "m1 4 tensor": 0.5, "m2 8 channel": None}
    effects = {setting: worse.get(setting, 0.0) for setting in [BASE, *sorted(analysis.SETTINGS - {BASE})]}
    pilot = made_runs(effects, seeds=(100, 101), rates=(0.01, 0.02))
    runs, hard = made_runs(effects), made_runs({BASE: 0.5, "A4 token": 1.5}, noise=0.002)
    rates = analysis.choose_learning_rates(pilot, "loss_text")
    margins = {"margin": 0.02, "sharpness_margin": 0.1, "zero_margin": 0.1}
    claims = analysis.declare(
        pilot, rates, made_tables(pilot), loss="loss_text", seeds=5, **margins, outlier_scale=16.0
    )
    found = analysis.evidence(runs, hard, made_tables(runs), loss="loss_text", outlier_scale=16.0)
    decided = decide(claims, found)
    verdicts = {name: record["verdict"] for name, record in decided.items()}
    assert verdicts.pop("W8A8G8") == "reproduced"
    assert set(verdicts.values()) == {"reproduced"}
    assert decided["outliers"]["estimate"] == pytest.approx(0.5, rel=0.05)
    assert decided["outliers_trained"]["estimate"] == pytest.approx(0.8, abs=0.01)
    assert decided["m2_linear"]["estimate"] == pytest.approx(UNIFORM - 4.3, abs=0.002)
    assert {name for name, one in decided.items() if "knows nothing" in one["ours"]} == {"m2_linear", "m2_remedy"}
    assert len(decided) == len(ON_LOSS) + len(ON_SHARPNESS) + 3
    opposite = {setting: -effect if effect else effect for setting, effect in effects.items()}
    turned = decide(claims, found | {"W4_tensor": differences(made_runs(opposite), "W4 tensor", BASE, "loss_text")})
    assert turned["W4_tensor"]["verdict"] == "not reproduced"


def test_words_fit_any_verdict_and_hold_what_is_computed():
    effects = dict.fromkeys(analysis.SETTINGS, 0.1) | {BASE: 0.0, "m2 8 channel": None, "A4 token": -0.1}
    runs = made_runs(effects, noise=0.01)
    sharpness = analysis.sharpness_table(runs)
    ids = [one.id for one in (*ON_LOSS, *ON_SHARPNESS)] + ["outliers", "outliers_trained", "sparse"]
    record = {"test": "greater", "estimate": float(np.log(2)), "ci": [0.4, 0.6], "p": 0.5, "p_against": 0.5}
    for verdict in ("reproduced", "not reproduced", "inconclusive"):
        decided = dict.fromkeys(ids, record | {"verdict": verdict})
        text = prose(analysis.SUMMARY, decided, **analysis.spoken(runs, runs, sharpness, decided, "loss_text")).data
        assert "evenly spaced levels 5 of 5 runs diverge" in text
        assert "sharpness at the end is 2 times full precision's" in text
        assert "it does not for:\nA4 token ×0.9" in text


def test_only_four_bit_activations_and_gradients_are_told_apart_by_their_sharpness():
    rows = [
        ("W4 tensor", 2.0),
        ("A4 token", 1.0),
        ("A8 token", 2.0),
        ("G4 tensor", 2.0),
        ("W8 channel + A4 token", 2.0),
    ]
    table = pd.DataFrame([{"setting": s, "low": r - 0.1, "high": r + 0.1, "estimate": r} for s, r in rows])
    assert by_sharpness(table) == ("G4 tensor ×2.00 [1.90, 2.10]", "A4 token ×1.00 [0.90, 1.10]")
    assert by_sharpness(table.iloc[:1]) == ("none", "none")


def test_what_weights_cost_with_outliers_is_the_rise_over_what_they_cost_without():
    runs = made_runs({BASE: 0.0, "W4 tensor": 0.1}, noise=0.002)
    hard = made_runs({BASE: 0.5, "W4 tensor": 0.9}, noise=0.003)
    said = weights_with_outliers(runs, hard, "loss_text")
    rise = float(said.split("changes by ")[1].split(" ")[0])
    assert rise == pytest.approx(0.3, abs=0.005)
    assert said.endswith("outliers are not a matter of activations alone.")
    assert "that it rises is not shown" in weights_with_outliers(hard, runs, "loss_text")
    assert weights_with_outliers(runs, hard[hard["setting"] == BASE], "loss_text") == ""


def test_outliers_grow_by_the_means_of_the_first_channels_and_the_others():
    table = pd.DataFrame(
        [
            {"model": model, "token": token, "channel": channel, "magnitude": value * (1 + token)}
            for model, first in (("usual", 1.0), ("hard", 6.0))
            for token in (0, 1)
            for channel, value in enumerate((first, first, 1.0, 3.0))
        ]
    )
    assert analysis.outlier_growth(table, "hard", 2) == pytest.approx(3.0)
    assert analysis.outlier_growth(table, "usual", 2) == pytest.approx(0.5)


def test_more_seeds_make_smaller_effects_detectable():
    effects = dict.fromkeys([BASE, *sorted(analysis.SETTINGS - {BASE})], 0.0)
    pilot = made_runs(effects, seeds=(100, 101), rates=(0.01, 0.02))
    rates = analysis.choose_learning_rates(pilot, "loss_text")
    margins = {"margin": 0.02, "sharpness_margin": 0.1, "zero_margin": 0.1, "outlier_scale": 16.0}
    few, many = (
        analysis.declare(pilot, rates, made_tables(pilot), loss="loss_text", seeds=seeds, **margins)
        for seeds in (5, 20)
    )
    assert all(more.detectable < 0.5 * less.detectable for less, more in zip(few, many, strict=True))


def test_what_is_detectable_comes_from_the_pilots_own_differences_at_the_chosen_rates():
    effects = dict.fromkeys([BASE, *sorted(analysis.SETTINGS - {BASE})], 0.0)
    pilot = made_runs(effects, seeds=(100, 101, 102), rates=(0.01, 0.02))
    rates = analysis.choose_learning_rates(pilot, "loss_text")
    rates["chosen"] = rates["learning_rate"] == 0.01
    at_best = pilot["learning_rate"] == 0.01
    pilot.loc[~at_best, "loss_text"] += 5 * pilot["seed"]
    pilot.loc[at_best & (pilot["setting"] == "W8 channel"), "loss_text"] += [0.0, 1.0, 2.0]
    margins = {"margin": 0.02, "sharpness_margin": 0.1, "zero_margin": 0.1, "outlier_scale": 16.0}
    claims = analysis.declare(pilot, rates, made_tables(pilot), loss="loss_text", seeds=5, **margins)
    detectable = {claim.id: claim.detectable for claim in claims}
    expected = detectable_effect(1.0, 5, alpha=0.025 / len(claims))
    assert detectable["W8"] == pytest.approx(expected, rel=0.02)
    assert detectable["A8"] < 0.01 * expected


def test_surfaces_come_from_one_run_of_each_part():
    runs, hard = made_runs({BASE: 0.0}, seeds=(1, 2)), made_runs({BASE: 0.0}, seeds=(8, 9))
    rows = [
        {"key": key, "token": 0, "channel": c, "magnitude": 1.0 + c}
        for key in [*runs["key"], *hard["key"]]
        for c in (0, 1)
    ]
    table = analysis.surface_table({"usual": runs, "hard": hard}, pd.DataFrame(rows))
    assert table["model"].tolist() == ["usual", "usual", "hard", "hard"]
    with pytest.raises(UserError, match="none of these runs was examined"):
        analysis.of_runs(runs, pd.DataFrame(rows[-2:]))


def test_panels_of_outliers_name_bits_and_component_and_hold_perplexities():
    rows = [
        {"key": "a", "seed": seed, "setting": setting, "scale": 2.0, "loss": loss}
        for seed, loss in ((1, 1.0), (2, 2.0))
        for setting in ("A8 token", "W4 channel")
    ]
    table = analysis.outlier_table(pd.DataFrame(rows))
    assert table["panel"].tolist() == ["8-bit activations", "4-bit weights"]
    assert table["mean"].tolist() == pytest.approx([np.exp([1, 2]).mean()] * 2)
    assert (table["low"].iloc[0], table["high"].iloc[0]) == pytest.approx((np.e, np.e**2))


def test_settings_whose_sign_differs_on_another_text_are_named_with_their_interval():
    row = {"seeds": 5}
    table = pd.DataFrame(
        [
            row | {"setting": setting, "text": text, "low": low, "high": high, "estimate": (low + high) / 2}
            for setting, first, second in (
                ("worse on both", (0.1, 0.2), (0.1, 0.3)),
                ("turned", (0.1, 0.2), (-0.3, -0.1)),
                ("worse there only", (-0.1, 0.1), (0.1, 0.3)),
                ("open there", (0.1, 0.2), (-0.1, 0.3)),
            )
            for text, (low, high) in (("a", first), ("b", second))
        ]
    )
    expected = "turned -0.200 [-0.300, -0.100]; worse there only +0.200 [+0.100, +0.300]"
    assert analysis.disagreements(table) == expected
    assert analysis.disagreements(table[table["setting"] == "worse on both"]) == "none"


def test_the_table_of_effects_says_how_many_runs_diverged():
    runs = made_runs({BASE: 0.0, "m2 8 tensor": None}).assign(quantized_layers=3, error_second_moment=np.nan)
    errors = [f"error_{name}" for name in ("weights", "activations", "gradients", "first_moment")]
    table = analysis.effect_table(runs.assign(**dict.fromkeys(errors, 0.25)))
    assert table["diverged"].tolist() == ["0 of 5", "5 of 5"]
    assert table["weights"].tolist() == ["0.25"] * 2
    assert table["second moment"].tolist() == ["–"] * 2
