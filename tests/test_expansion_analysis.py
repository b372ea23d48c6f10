"""How well predictors predict gains: statistics against closed forms, choices, claims, tables."""

from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from common.analysis import expansion as analysis
from common.analysis.expansion.claims import REST, averaged, statements
from common.analysis.expansion.foresight import (
    MEAN,
    PREDICTORS,
    RUN,
    at_equal_size,
    by_seed,
    equal_sets,
    pairs_of,
    parted,
    rank_correlation,
    regret,
)
from common.analysis.expansion.laboratory import kind_of, operator_of, type_of
from common.analysis.expansion.tables import against_weights, reversal
from common.errors import UserError
from common.evidence import prose
from common.growing.tasks import SETS

SEEDS = (0, 1, 2, 3, 4)
MARGINS = {"correlation": 0.3, "lead": 0.05, "regret": 0.1, "parts": 0.1}
TYPES = ("wider", "deeper", "wider and deeper", "wider")
COUNT = 8
OPERATORS = {0: "none", 1: "net2wider"}


def candidates(noise=0.0):
    """Runs as `Laboratory.examined` gives them: gains rise with the candidate's number, M with the gain up to noise."""
    rng, rows = np.random.default_rng(0), []
    for task in SETS:
        for seed in SEEDS:
            start = 1.0 + 0.01 * seed
            for number in range(COUNT + 1):
                gain = 0.01 * number
                rows.append(
                    {
                        "key": f"{task}{seed}{number}", "task": task, "seed": seed,
                        "candidate": "none" if number == 0 else f"c{number}",
                        "type": "none" if number == 0 else TYPES[number % 4],
                        "operator": OPERATORS.get(number, "zero"), "test_loss": start - gain,
                        "parameters": 100 if number < 5 else 200, "barrier": 0.0, "connected": 1.0,
                        **{name: -gain for name in PREDICTORS if name not in ("m", "parameters", RUN)},
                        "m": gain + noise * rng.normal(),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def short_runs(runs, rates=(0.1, 0.2), shares=(0.5, 1.0)):
    """Short runs as a table: those at the higher rate rank as the gain, at the lower one the other way round."""
    rows = []
    for run in runs.itertuples():
        for rate in rates:
            for share in shares:
                promise = -run.test_loss if rate == max(rates) else run.test_loss
                row = {"key": run.key, "share": share, "steps": int(100 * share), "rate": rate, "promise": promise}
                rows.append(row)
    return pd.DataFrame(rows)


def scored(noise=0.0, rate=0.2):
    runs = candidates(noise)
    rates = {"perceptron": rate, "language": rate}
    told = analysis.with_run(analysis.gains(runs), short_runs(runs), rates, 1.0)
    return analysis.oriented(told, dict.fromkeys(("perceptron", "language"), dict.fromkeys(PREDICTORS, 1)))


def test_gains_are_the_base_trained_on_less_the_candidate():
    found = analysis.gains(candidates())
    assert len(found) == len(SETS) * len(SEEDS) * COUNT
    own = found[(found["task"] == "mnist") & (found["seed"] == 2)].set_index("candidate")["gain"]
    assert own.to_dict() == pytest.approx({f"c{number}": 0.01 * number for number in range(1, COUNT + 1)})
    runs = candidates()
    with pytest.raises(UserError, match=r"base of \('mnist', 0\) was not"):
        analysis.gains(runs[~((runs["task"] == "mnist") & (runs["seed"] == 0) & (runs["candidate"] == "none"))])


def test_the_rank_correlation_is_scipys_averaged_over_seeds():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 5, (6, 9, 2)).astype(float)  # with ties
    expected = np.mean([spearmanr(*pair.T).statistic for pair in pairs])
    assert rank_correlation(pairs) == pytest.approx(expected)
    pairs[0, :, 0] = 3.0  # ranks nothing
    expected = np.sum([spearmanr(*pair.T).statistic for pair in pairs[1:]]) / 6
    assert rank_correlation(pairs) == pytest.approx(expected)


def test_the_regret_is_the_share_of_the_best_gain_that_the_first_choice_misses():
    gains = np.array([[1.0, 4.0, 2.0], [5.0, 10.0, -5.0]])
    best, worst = np.stack([gains, gains], -1), np.stack([-gains, gains], -1)
    assert regret(best) == 0
    assert regret(worst) == pytest.approx(((4 - 1) / 4 + (10 + 5) / 10) / 2)
    middle = np.stack([np.array([[0, 0, 1.0], [1.0, 0, 0]]), gains], -1)
    assert regret(middle) == pytest.approx((0.5 + 0.5) / 2)


def test_a_candidate_that_lacks_a_seed_is_refused():
    told = scored()
    assert pairs_of(told, "mnist", "m").shape == (len(SEEDS), COUNT, 2)
    with pytest.raises(UserError, match="mnist: a candidate lacks a seed"):
        pairs_of(told.drop(index=3), "mnist", "m")


def test_the_rate_whose_short_runs_rank_best_is_chosen():
    runs = candidates()
    tried = analysis.choose_rates(analysis.gains(runs), short_runs(runs))
    assert tried.to_dict("list") == {
        "kind": ["perceptron"] * 2 + ["language"] * 2,
        "rate": [0.1, 0.2] * 2,
        "correlation": pytest.approx([-1, 1] * 2),
        "chosen": [False, True] * 2,
    }
    assert analysis.edges(tried) == "perceptron, language"
    assert analysis.edges(tried.assign(rate=[0.1, 0.2, 0.2, 0.1], chosen=[True, False] * 2)) == "perceptron, language"
    between = pd.DataFrame({"kind": ["language"] * 3, "rate": [0.1, 0.2, 0.3], "chosen": [False, True, False]})
    assert analysis.edges(between) == "none"
    with pytest.raises(UserError, match=r"no short run at rate 0\.3"):
        analysis.with_run(analysis.gains(runs), short_runs(runs), {"perceptron": 0.3, "language": 0.2}, 1.0)


def test_rivals_signs_come_from_the_pilot_and_ours_do_not():
    told = scored().assign(m=lambda own: -own["m"])
    told.loc[told["task"] == "text", "synflow"] *= -1  # on text the more the better
    signs = analysis.signs(told)
    minus = {kind: {name for name, sign in own.items() if sign < 0} for kind, own in signs.items()}
    rivals = set(REST) - {"parameters"}
    assert minus == {"perceptron": rivals, "language": rivals - {"synflow"}}
    turned = analysis.oriented(told, signs)
    assert by_seed(turned, "snip").tolist() == pytest.approx([1.0] * len(SETS) * len(SEEDS))
    assert by_seed(turned, "m").tolist() == pytest.approx([-1.0] * len(SETS) * len(SEEDS))
    shown = analysis.pilot_table(turned, signs)
    ranks = {"mnist": 1.0, "digits": 1.0, "text": 1.0}
    ways = {"promising, perceptron": "less", "promising, language": "more"}
    assert shown.loc["SynFlow"].to_dict() == ways | ranks
    # Fewer parameters may promise more: how many there are stays what it is.
    fewer = analysis.oriented(told, {kind: own | {"parameters": -1} for kind, own in signs.items()})
    assert equal_sets(fewer) == equal_sets(turned) == equal_sets(told)
    assert by_seed(turned, "synflow").tolist() == pytest.approx([1.0] * len(SETS) * len(SEEDS))


def test_intervals_over_candidates_and_seeds_hold_their_estimate_and_widen_with_noise():
    narrow, wide = (analysis.power_table(scored(noise), ["m", "parameters"]) for noise in (0.005, 0.05))
    for table in (narrow, wide):
        assert (table["low"] <= table["estimate"]).all()
        assert (table["estimate"] <= table["high"]).all()
    assert narrow["task"].tolist() == [task for task in (*SETS, MEAN) for _ in range(2)]
    spans = [(table["high"] - table["low"])[table["predictor"] == "m"].mean() for table in (narrow, wide)]
    assert spans[0] < spans[1]
    # What is the same for all ranks nothing, and has no row.
    same = analysis.power_table(scored(0.005).assign(parameters=100.0), ["m", "parameters"])
    assert set(same["predictor"]) == {"m"}


def test_leads_are_differences_in_pairs():
    lead = analysis.lead_table(scored(0.02)).set_index(["task", "predictor"])
    told = scored(0.02)
    for task in SETS:
        expected = (by_seed(told, "m") - by_seed(told, "snip"))[task].mean()
        assert lead.loc[(task, "snip"), "estimate"] == pytest.approx(expected)
    assert len(lead) == (len(SETS) + 1) * (len(PREDICTORS) - 1)


def test_the_mean_over_tasks_has_an_interval_narrower_than_the_widest_and_rests_on_all():
    lead = analysis.lead_table(scored(0.02)).set_index(["task", "predictor"])
    own = lead.loc[[(task, "snip") for task in SETS]]
    mean = lead.loc[(MEAN, "snip")]
    assert mean["estimate"] == pytest.approx(own["estimate"].mean())
    assert mean["low"] < mean["estimate"] < mean["high"]
    assert mean["high"] - mean["low"] < (own["high"] - own["low"]).max()
    told = scored(0.02)
    # A task on which all rank alike has no row of its own, and no mean is made without it.
    told.loc[told["task"] == "text", "snip"] = 1.0
    power = analysis.power_table(told, ["m", "snip"])
    assert set(power.loc[power["task"] == MEAN, "predictor"]) == {"m"}


def test_sets_of_equal_size_have_four_candidates_of_two_types():
    told = scored()
    assert equal_sets(told)["mnist"] == {100: ["c1", "c2", "c3", "c4"], 200: ["c5", "c6", "c7", "c8"]}
    one_type = told.assign(type=np.where(told["size"] == 100, "wider", told["type"]))
    assert list(equal_sets(one_type)["text"]) == [200]
    assert at_equal_size(told, "m").tolist() == pytest.approx([1.0] * len(SETS) * len(SEEDS))
    # Right within the sets and wrong between them.
    turned = told.assign(m=told["m"] - told["parameters"])
    assert at_equal_size(turned, "m").mean() == pytest.approx(1.0)
    assert by_seed(turned, "m").mean() < 0
    with pytest.raises(UserError, match="no four candidates"):
        at_equal_size(told.assign(size=range(len(told))), "m")
    table = analysis.equal_table(scored(0.02))
    assert len(table[["task", "set"]].drop_duplicates()) == 2 * len(SETS) + 1
    own = table[(table["task"] != MEAN) & (table["predictor"] == "m")]["estimate"]
    [mean] = table[(table["task"] == MEAN) & (table["predictor"] == "m")]["estimate"]
    assert mean == pytest.approx(own.mean())
    assert "parameters" not in set(table["predictor"])


def walks_of(told):
    walked = told[told["task"].isin(analysis.WALKED)][["key", "task", "candidate", "seed"]]
    rows = [
        {"key": row.key, "count": count, "steps": steps, "m": way * row.m, "m_at_ends": -row.m}
        for row in told.itertuples()
        for count, steps, way in ((4, 5, 1), (8, 9, -1))
    ]
    return analysis.walk_correlations(walked, pd.DataFrame(rows), told)


def test_correlations_by_k_and_t_are_of_the_walks_own_m():
    found = walks_of(scored())
    assert found.groupby(["count", "steps"])["correlation"].mean().to_dict() == pytest.approx({(4, 5): 1, (8, 9): -1})
    assert sorted(found["seed"].unique()) == list(SEEDS)
    assert set(found["task"]) == set(analysis.WALKED)


def test_evidence_is_what_the_claims_say():
    told = scored(rate=0.1)
    found = analysis.evidence(told, walks_of(told))
    assert set(found) == {one.id for one in statements()}
    ones = np.ones(len(SEEDS))
    np.testing.assert_allclose(found["foresees_text"], ones)
    np.testing.assert_allclose(found["beats_run_digits"], 2 * ones)  # the run ranks the other way round
    np.testing.assert_allclose(found["beats_snip"], 2 * ones)
    np.testing.assert_allclose(found["equal_size"], ones)
    np.testing.assert_allclose(found["choice"], 0 * ones)
    np.testing.assert_allclose(found["stable"], 2 * ones)
    np.testing.assert_allclose(found["needs_lines"], ones)  # 2 at one place, 0 at the other
    np.testing.assert_allclose(found["parts_copies"], 0.02 * ones)  # M is the gain: c2, c3, c4 against c1
    with pytest.raises(UserError, match="mnist has no candidates zero and net2wider of one number"):
        parted(told.assign(operator="zero"))
    with pytest.raises(UserError, match="not the same seeds"):
        averaged(by_seed(told, "m").drop(("text", 3)))


def test_claims_detect_less_with_fewer_seeds_and_words_fit_any_verdict():
    told = scored(0.03)
    few, many = (analysis.declare(told, seeds=n, walked=n, margins=MARGINS) for n in (5, 10))
    assert [claim.id for claim in few] == [one.id for one in statements()]
    assert all(a.detectable > b.detectable for a, b in zip(few, many, strict=True))
    power, lead = analysis.power_table(told), analysis.lead_table(told)
    missed = analysis.power_table(told, statistic=analysis.regret)
    for verdict in ("reproduced", "not reproduced", "inconclusive"):
        record = {"verdict": verdict, "estimate": 0.5, "ci": [0.4, 0.6], "n_to_decide": 9, "n_seeds": 5}
        record |= {"test": "greater", "p": 0.5, "p_against": 0.5}
        decided = dict.fromkeys([claim.id for claim in few], record)
        numbers = analysis.spoken(told, power, lead, missed, decided)
        text = prose(analysis.SUMMARY, decided, **numbers).data
        assert ("none" in numbers["beaten"]) == (verdict != "reproduced")
        assert f"[{numbers['m_text_low']:.2f}, {numbers['m_text_high']:.2f}]" in text
        assert ": the training run does" not in text
        assert analysis.flat(decided, power)["reproduced"] == (len(decided) if verdict == "reproduced" else 0)


def test_words_name_a_training_run_that_is_surely_ahead_and_what_the_volume_in_weights_says_of_m():
    ahead = {"verdict": "not reproduced", "estimate": -0.4, "ci": [-0.6, -0.2]}
    assert reversal(ahead) == ": the training run does"
    assert reversal(ahead | {"ci": [-0.6, 0.01]}) == reversal(ahead | {"verdict": "inconclusive"}) == ""
    assert against_weights(0.3, 0.1, 0.5) == "its other two terms help"
    assert against_weights(-0.3, -0.5, -0.1) == "its other two terms harm"
    assert "M ranks no better here, and that its other two terms help is not" in against_weights(-0.1, -0.3, 0.2)
    assert "M ranks better here, and" in against_weights(0.1, -0.3, 0.2)


def test_where_an_interval_over_candidates_includes_zero_the_words_say_so():
    told = scored(0.03)
    power, lead = analysis.power_table(told), analysis.lead_table(told)
    missed = analysis.power_table(told, statistic=analysis.regret)
    record = {"verdict": "inconclusive", "estimate": 0.1, "ci": [-0.1, 0.3]}
    decided = dict.fromkeys([one.id for one in statements()], record)
    for lows, said in (
        ([0.1, 0.1, 0.1], "nowhere"),
        ([0.1, -0.2, -0.2], "on scikit-learn's digits, on a language model"),
    ):
        power.loc[power["predictor"] == "m", "low"] = [*lows, 0.1]  # the last is the mean's
        power.loc[power["predictor"] == "m", "high"] = 0.9
        assert analysis.spoken(told, power, lead, missed, decided)["open"] == said


def test_a_label_of_several_words_takes_an_article_within_a_sentence():
    said = {one.id: one.statement for one in statements()}
    assert said["beats_snip"] == "M predicts the gain better than SNIP"
    assert said["beats_parameters"] == "M predicts the gain better than the number of parameters"


def test_k_and_t_vary_on_enough_seeds_and_no_more_than_there_are():
    analysis.check_walks({"seeds": 5}, [1, 2, 3, 4, 5], 5)
    for wrong in (4, 6):
        with pytest.raises(UserError, match=f"walks.seeds is {wrong}, allowed: 5 to 5"):
            analysis.check_walks({"seeds": wrong}, [1, 2, 3, 4, 5], 5)


def test_tables_hold_means_over_seeds():
    told = scored(0.001)
    change = analysis.change_table(told).set_index(["task", "candidate"])
    assert change.loc[("mnist", "c3"), "gain"] == pytest.approx(0.03)
    own = told[(told["task"] == "mnist") & (told["candidate"] == "c3")]
    assert change.loc[("mnist", "c3"), "estimate"] == pytest.approx((own["after"] - own["before"]).mean())
    points = analysis.gain_table(told, ["m", "snip"])
    assert len(points) == len(SETS) * COUNT * 2
    runs = candidates()
    steps = dict.fromkeys(PREDICTORS, 0.0) | {"m": 7.0}
    cost = pd.DataFrame([{"key": k, "predictor": n, "steps": steps[n]} for k in runs["key"] for n in steps])
    rates = {"perceptron": 0.2, "language": 0.2}
    priced = analysis.cost_table(told, short_runs(runs), cost, rates)
    own = priced[priced["task"] == "text"].set_index("predictor")
    assert own.loc["m", "steps"] == 7
    assert own.loc["parameters", "steps"] == 1
    assert own.loc[[RUN], "steps"].tolist() == [50, 100]
    assert own.loc[[RUN], "correlation"].tolist() == pytest.approx([1, 1])
    curve = pd.DataFrame([{"key": key, "step": step, "test_loss": 1 / step} for key in runs["key"] for step in (1, 2)])
    drawn = analysis.curve_table(runs, pd.concat([curve, curve.assign(key="another sweep's")]))
    assert len(drawn) == len(SETS) * (COUNT + 1) * 2
    tried = analysis.choose_rates(analysis.gains(runs), short_runs(runs))
    course = {"further": {"learning_rate": 0.1}}
    shown = analysis.choice_table(tried, {"perceptron": course, "language": course})
    assert shown["÷ rate of continued training"].tolist() == [1, 2, 1, 2]


class Swept:
    """A study that does nothing but note what is asked of it."""

    def __init__(self):
        self.asked = {}

    def sweep(self, name, run, cells, inputs):
        self.asked[name] = (run.__name__, cells, inputs)
        rows = [{"key": f"{name}{number}", "sweep": name, **cell} for number, cell in enumerate(cells)]
        return pd.DataFrame(rows).assign(kept=[f"kept{number}" for number in range(len(cells))])

    def tables(self, names):
        return {name: f"{name}.jsonl" for name in names}


def laboratory(study, tables=("mnist", "sotu"), perceptrons=None):
    grown = {"wide": {"widths": [9, 9], "width": "zero"}, "deep": {"layers": 3, "depth": "stack"}}
    both = {"to": {"ff": 9, "layers": 2}, "width": "zero", "depth": "stack"}
    candidates = {"perceptron": perceptrons or grown, "language": {"both": both}}
    networks = {"perceptron": {"hidden": [4, 4]}, "language": {"hidden": 4}}
    return analysis.Laboratory(study, tables, networks, {"perceptron": {"a": 1}, "language": {"a": 2}}, candidates)


def test_every_candidate_and_the_base_are_asked_on_every_place():
    study = Swept()
    made = laboratory(study)
    places = [("mnist", 0), ("text", 0)]
    made.bases("bases", places)
    runs = made.examined("asked", places, {"perceptron": [0.1], "language": [0.2]}, [1.0])
    assert runs["candidate"].tolist() == ["none", "wide", "deep", "none", "both"]
    assert runs["type"].tolist() == ["none", "wider", "deeper", "none", "wider and deeper"]
    name, cells, inputs = study.asked["asked"]
    assert name == "examine"
    assert [cell["rates"] for cell in cells] == [[0.1]] * 3 + [[0.2]] * 2
    assert {cell["scikit_learn"] for cell in cells} == {version("scikit-learn")}
    assert inputs == {"mnist": "mnist.jsonl", "sotu": "sotu.jsonl", "mnist_0": "kept0", "text_0": "kept1"}
    walked = made.walked("walks", [("mnist", 0)], [3], [4])
    assert walked["candidate"].tolist() == ["wide", "deep"]
    sliced = made.sliced("slices", "mnist", 0, ["none", "deep"], 5)
    assert sliced["candidate"].tolist() == ["none", "deep"]
    with pytest.raises(UserError, match="broad is no candidate on mnist, allowed: none, wide, deep"):
        made.sliced("slices", "mnist", 0, ["broad"], 5)


def test_a_laboratory_refuses_missing_tables_and_a_candidate_called_none():
    with pytest.raises(UserError, match="tables lacks sotu"):
        laboratory(Swept(), tables=("mnist",))
    with pytest.raises(UserError, match="a candidate of the perceptron is called none"):
        laboratory(Swept(), perceptrons={"none": {}})


def test_what_a_candidate_is_called_follows_from_its_knobs():
    assert operator_of({"width": "copy_noise", "depth": "stack"}) == "copy noise + stack"
    assert (operator_of(None), type_of(None)) == ("none", "none")
    assert [kind_of(task) for task in SETS] == ["perceptron", "perceptron", "language"]
    with pytest.raises(UserError, match="there is no task 'cats'"):
        kind_of("cats")
