"""Intervals, tests, verdicts and sentences against closed forms, simulation and properties."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from common.errors import UserError
from common.evidence import (
    MOST_SEEDS,
    Claim,
    claims_table,
    decide,
    detectable_effect,
    equivalent,
    greater,
    holm,
    mean_interval,
    non_inferior,
    paired_differences,
    proportion_interval,
    prose,
    require_varied,
    seeds_needed,
    share_above,
    trials_needed,
    write_claims,
)

MARGIN = 0.1
KEYS = ["paper", "statement", "ours", "test", "margin", "detectable", "n_seeds"]
KEYS += ["estimate", "ci", "p", "p_holm", "p_against", "p_against_holm", "verdict", "n_to_decide", "figure"]
# Five numbers with mean 0 and standard deviation 1, so that t is mean * sqrt(5) / scale.
SHAPE = np.array([-2, -1, 0, 1, 2]) / math.sqrt(2.5)
numbers = st.floats(-1, 1, allow_subnormal=False)
samples = st.lists(numbers, min_size=5, max_size=12)


def claim(name="W8", test="greater", margin=MARGIN, **other):
    fields = {
        "paper": None,
        "statement": f"{name} is better",
        "ours": "loss by seed",
        "detectable": 0.05,
        "figure": "losses",
    }
    return Claim(id=name, test=test, margin=margin, **fields | other)


def verdict_of(differences, test="greater"):
    return decide([claim(test=test)], {"W8": differences})["W8"]["verdict"]


# Intervals


def test_t_interval_agrees_with_the_textbook_and_its_printed_quantile():
    interval = mean_interval(3 + SHAPE)
    half = 2.776445 / math.sqrt(5)  # t table, 4 degrees of freedom, .975
    assert interval.n == 5
    assert interval[:3] == pytest.approx((3, 3 - half, 3 + half), abs=1e-6)


def test_t_interval_covers_the_true_mean_in_95_percent_of_samples():
    draws = np.random.default_rng(0).normal(0.7, 2.0, (3000, 5))
    covered = np.mean([low <= 0.7 <= high for _, low, high, _ in map(mean_interval, draws)])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 3000)


def test_clopper_pearson_agrees_with_beta_quantiles():
    found = proportion_interval(7, 20)
    expected = (0.35, special.betaincinv(7, 14, 0.025), special.betaincinv(8, 13, 0.975), 20)
    assert found == pytest.approx(expected)
    assert proportion_interval(0, 10)[1:3] == pytest.approx((0, 1 - 0.025**0.1))


@pytest.mark.parametrize(("successes", "n"), [(5, 4), (-1, 4), (0, 0), (1.5, 4)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(UserError, match="successes"):
        proportion_interval(successes, n)


# Tests of a claim


def test_p_values_are_those_of_t_by_hand():
    outcome = greater(0.05 + 0.1 * SHAPE, MARGIN)
    t = 0.05 * math.sqrt(5) / 0.1
    assert outcome.p_for == pytest.approx(special.stdtr(4, -t))
    assert outcome.p_against == pytest.approx(special.stdtr(4, -t))  # as far below the margin as above 0
    worse = non_inferior(0.05 + 0.1 * SHAPE, MARGIN)
    assert worse[4:] == pytest.approx((special.stdtr(4, -t), special.stdtr(4, t)))
    same = equivalent(0.05 + 0.1 * SHAPE, MARGIN)
    assert same.p_for == pytest.approx(special.stdtr(4, -t))
    assert same.p_against == pytest.approx(special.stdtr(4, t) + special.stdtr(4, -3 * t))


def test_binomial_p_values_are_sums_of_the_distribution():
    outcome = share_above(9, 10, 0.5)
    assert outcome.p_for == pytest.approx(11 / 1024)
    assert outcome.p_against == pytest.approx(1023 / 1024)


@pytest.mark.parametrize("wide", [0.02, 0.3])
def test_evidence_against_equivalence_errs_no_more_often_than_stated(wide):
    draws = np.random.default_rng(4).normal(wide, 1, (1200, 5))
    wrong = np.mean([equivalent(draw, wide).p_against < 0.025 for draw in draws])
    assert wrong < 0.025 + 3 * math.sqrt(0.025 * 0.975 / 1200)


@given(samples, st.floats(0.01, 0.5))
def test_equivalence_implies_non_inferiority_both_ways(values, margin):
    same = equivalent(values, margin).p_for
    assert non_inferior(values, margin).p_for <= same
    assert non_inferior(np.negative(values), margin).p_for <= same


@given(samples, st.floats(0.01, 0.5))
def test_no_claim_within_a_margin_is_supported_and_refuted_at_once(values, margin):
    for test in (non_inferior, equivalent):
        outcome = test(values, margin)
        assert max(outcome.p_for, outcome.p_against) >= 0.025


@given(samples, st.floats(0, 2))
def test_larger_differences_never_turn_reproduced_into_not_reproduced(values, shift):
    if verdict_of(values) == "reproduced":
        assert verdict_of(np.add(values, shift)) == "reproduced"
    assert greater(np.add(values, shift), MARGIN).p_for <= greater(values, MARGIN).p_for + 1e-9


@given(samples)
@example([0.0, 0.0625, 0.0625, 0.0625, 0.0625])
def test_the_95_percent_interval_and_a_lone_verdict_agree(values):
    estimate, low, high, *_ = greater(values, MARGIN)
    assert low <= estimate <= high
    if min(abs(low), abs(high - MARGIN)) > 1e-9:
        # An effect that is surely there and surely smaller than what matters is no support for the claim.
        expected = "not reproduced" if high < MARGIN else "reproduced" if low > 0 else "inconclusive"
        assert verdict_of(values) == expected


@pytest.mark.parametrize(
    ("test", "constant", "expected"),
    [
        (greater, 0.01, (0, 0)),
        (greater, 0.0, (1, 0)),
        (greater, 0.2, (0, 1)),
        (non_inferior, MARGIN, (1, 1)),
        (non_inferior, 0.0, (0, 1)),
        (equivalent, 0.0, (0, 1)),
        (equivalent, -0.2, (1, 0)),
    ],
)
def test_identical_differences_take_the_limit_of_vanishing_spread(test, constant, expected):
    outcome = test([constant] * 5, MARGIN)
    assert outcome[:3] == (constant, constant, constant)
    assert outcome[4:] == expected
    if constant != MARGIN:
        nearly = test(constant + 1e-7 * SHAPE, MARGIN)
        assert nearly.p_for == pytest.approx(expected[0] if constant else 0.5 if test is greater else 0, abs=1e-6)
        assert nearly.p_against == pytest.approx(expected[1], abs=1e-6)


@pytest.mark.parametrize("test", [greater, non_inferior, equivalent])
@pytest.mark.parametrize(
    ("values", "margin", "said"),
    [
        ([0.1, 0.2, 0.3, 0.4], MARGIN, "4 seeds; at least 5"),
        ([0.1, 0.2, 0.3, 0.4, np.nan], MARGIN, "nan"),
        ([0.1, 0.2, 0.3, 0.4, np.inf], MARGIN, "inf"),
        ([[0.1, 0.2, 0.3, 0.4, 0.5]], MARGIN, "shape"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0, "margin"),
        ([0.1, 0.2, 0.3, 0.4, 0.5], np.nan, "margin"),
    ],
)
def test_bad_differences_are_refused(test, values, margin, said):
    with pytest.raises(UserError, match=said):
        test(values, margin)


def test_fewer_seeds_pass_only_when_a_lower_minimum_is_named():
    assert greater([0.1, 0.2], MARGIN, minimum_seeds=2).n == 2
    with pytest.raises(UserError, match="at least 2"):
        greater([0.1], MARGIN, minimum_seeds=1)
    with pytest.raises(UserError, match="4 trials"):
        share_above(3, 4, 0.5)


def test_a_metric_equal_for_all_seeds_is_refused_save_at_its_limit():
    varied = [0.1, 0.2, 0.3, 0.4, 0.5]
    with pytest.raises(UserError, match=r"loss \(control\) is 0.3 for all 5 seeds"):
        paired_differences(varied, [0.1 + 0.2] * 4 + [0.3], "loss")
    with pytest.raises(UserError, match="no effect"):
        require_varied([1.0] * 5, "rate")
    assert np.array_equal(paired_differences([1.0] * 5, varied, "rate", (0, 1)), 1 - np.array(varied))
    with pytest.raises(UserError, match="pairs"):
        paired_differences(varied, varied[:4], "loss")


# Power


@pytest.mark.parametrize("n", [5, 12])
def test_power_at_the_detectable_effect_is_80_percent_by_simulation(n):
    effect = detectable_effect(0.3, n)
    draws = np.random.default_rng(n).normal(effect, 0.3, (40_000, n))
    t = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(n))
    assert np.mean(t > stats.t.ppf(0.975, n - 1)) == pytest.approx(0.8, abs=4 * 0.4 / 200)


@pytest.mark.parametrize("n", [2, 5, 30])
def test_the_detectable_effect_solves_the_integral_over_all_spreads(n):
    """Given the sample variance w / (n - 1), the test is a normal one; w is chi-squared."""
    shift, critical = detectable_effect(2.0, n) / 2.0 * math.sqrt(n), stats.t.ppf(0.975, n - 1)
    power = integrate.quad(
        lambda w: stats.norm.sf(critical * math.sqrt(w / (n - 1)) - shift) * stats.chi2.pdf(w, n - 1), 0, 10 * n
    )[0]
    assert power == pytest.approx(0.8, abs=1e-4)


@given(st.floats(0.05, 5), st.integers(3, 200))
def test_seeds_needed_is_the_inverse_of_the_detectable_effect(sd, n):
    effect = detectable_effect(sd, n)
    assert seeds_needed(sd, effect * (1 + 1e-6)) == n
    assert seeds_needed(sd, effect * (1 - 1e-6)) == n + 1


def test_seeds_needed_matches_published_tables_and_is_bounded():
    assert seeds_needed(1, 0.5) == 34  # Cohen's d .5, two-sided .05, power .8: one-sample t in any power table
    assert seeds_needed(1, 0.2) == 199
    assert seeds_needed(1, 0) == MOST_SEEDS
    assert seeds_needed(1e-6, 1) == 2


def test_trials_needed_give_80_percent_power_in_the_exact_test():
    n = trials_needed(0.65, 0.5)
    critical = next(k for k in range(n + 1) if stats.binom.sf(k - 1, n, 0.5) <= 0.025)
    assert stats.binom.sf(critical - 1, n, 0.65) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("bad", [(0, 1), (np.nan, 1), (1, -1)])
def test_impossible_plans_are_refused(bad):
    with pytest.raises(UserError):
        seeds_needed(*bad)


# Claims


def test_holm_agrees_with_the_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_rejects_what_the_closed_testing_of_bonferroni_rejects(p):
    """Closure principle: a hypothesis falls when Bonferroni rejects every intersection that holds it."""
    k = range(len(p))
    subsets = [s for size in k for s in itertools.combinations(k, size + 1)]
    closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in k]
    assert holm(p) == pytest.approx(closed)


def test_holm_turns_a_verdict_when_claims_are_many():
    values = 0.26 + 0.2 * SHAPE  # p is about .022: enough alone
    assert verdict_of(values) == "reproduced"
    crowd = {f"c{i}": SHAPE for i in range(4)}
    records = decide([claim("W8"), *map(claim, crowd)], {"W8": values} | crowd)
    assert records["W8"]["verdict"] == "inconclusive"
    assert records["W8"]["p_holm"] == pytest.approx(5 * records["W8"]["p"])


def test_records_have_the_agreed_keys_in_order_of_declaration():
    claims = [claim("m2", "equivalent", paper="Sec. 3"), claim("A4", "share_above", 0.5), claim("W8")]
    records = decide(claims, {"W8": 0.5 + 0.1 * SHAPE, "A4": (12, 20), "m2": 0.01 * SHAPE})
    assert list(records) == ["m2", "A4", "W8"]
    assert all(list(record) == KEYS for record in records.values())
    assert [r["verdict"] for r in records.values()] == ["reproduced", "inconclusive", "reproduced"]
    assert [r["n_to_decide"] is None for r in records.values()] == [True, False, True]
    assert records["A4"]["n_seeds"] == 20
    assert records["m2"]["paper"] == "Sec. 3"


@given(samples, st.sampled_from(["greater", "non_inferior", "equivalent"]))
def test_an_inconclusive_claim_names_more_seeds_than_it_had(values, test):
    record = decide([claim(test=test)], {"W8": values})["W8"]
    if record["verdict"] == "inconclusive":
        assert len(values) < record["n_to_decide"] <= MOST_SEEDS
    else:
        assert record["n_to_decide"] is None


@pytest.mark.parametrize(
    ("test", "mean", "most"),
    [
        ("greater", 0.13, 0.9),
        ("greater", -0.02, 0.9),
        ("greater", 0.05, 1.0),  # either verdict may be reached
        ("non_inferior", 0.04, 0.9),
        ("equivalent", 0.03, 0.97),  # planned with a safe bound
    ],
)
def test_the_named_number_of_seeds_decides_four_times_in_five(test, mean, most):
    n = decide([claim(test=test)], {"W8": mean + 0.25 * SHAPE})["W8"]["n_to_decide"]
    draws = np.random.default_rng(7).normal(mean, 0.25, (400, n))
    decided = np.mean([verdict_of(draw, test) != "inconclusive" for draw in draws])
    assert decided > 0.8 - 3 * 0.4 / math.sqrt(400)
    assert decided <= most


@pytest.mark.parametrize(
    ("claims", "data", "said"),
    [
        ([claim("W8")], {}, "claims without data: W8"),
        ([claim("W8")], {"W8": SHAPE, "A4": SHAPE}, "data without a claim: A4"),
        ([claim("W8"), claim("W8")], {"W8": SHAPE}, "twice: W8"),
        ([], {}, "no claims"),
        ([claim("W8")], {"W8": SHAPE[:4]}, "claim W8: 4 seeds"),
        ([claim("W8", "share_above", 0.5)], {"W8": SHAPE}, "claim W8: a share needs"),
    ],
)
def test_claims_and_data_must_match(claims, data, said):
    with pytest.raises(UserError, match=said):
        decide(claims, data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("test", "different"),
        ("margin", 0),
        ("margin", math.nan),
        ("detectable", -1),
        ("statement", " "),
        ("figure", ""),
        ("name", "8W"),
    ],
)
def test_a_claim_that_fixes_nothing_is_refused(field, value):
    with pytest.raises(UserError, match="claim"):
        claim(**{field: value})
    with pytest.raises(UserError, match="at most 1"):
        claim(test="share_above", margin=1.5)


def test_claims_json_is_stable_and_readable(tmp_path):
    data = {"W8": 0.123456789 + 0.1 * SHAPE, "A4": 0.01 * SHAPE}
    claims = [claim("W8", statement="W8 ≥ baseline"), claim("A4", "equivalent")]
    write_claims(decide(claims, data), tmp_path / "one.json")
    write_claims(decide(claims, dict(reversed(data.items()))), tmp_path / "two.json")
    text = (tmp_path / "one.json").read_text()
    assert text == (tmp_path / "two.json").read_text()
    read = json.loads(text)
    assert list(read) == ["W8", "A4"]
    assert read["W8"]["estimate"] == 0.123457
    assert "W8 ≥ baseline" in text


def test_the_table_shows_one_row_per_claim():
    table = claims_table(decide([claim("W8"), claim("A4")], {"W8": 5 + SHAPE, "A4": SHAPE}))
    assert list(table.index) == ["W8", "A4"]
    assert table.loc["W8", "95% interval"] == "[3.76, 6.24]"
    assert list(table["verdict"]) == ["reproduced", "inconclusive"]
    assert table["n to decide"].map(bool).tolist() == [False, True]


@pytest.mark.parametrize(
    ("test", "mean", "spread", "verdict", "remark"),
    [
        ("greater", 0.5, 0.1, "reproduced", ""),
        ("greater", 0.05, 0.01, "not reproduced", "there, but smaller than the margin"),
        ("greater", 0.0, 0.01, "not reproduced", ""),
        ("greater", -0.5, 0.1, "not reproduced", "rather the reverse"),
        ("non_inferior", -0.5, 0.1, "reproduced", ""),
        ("equivalent", -0.5, 0.1, "not reproduced", ""),
        ("greater", 0.5, 0.37, "inconclusive", "uncorrected: reproduced"),  # p = .02, and as much for another claim
        ("equivalent", -0.62, 0.37, "inconclusive", "uncorrected: not reproduced"),
        ("greater", 0.5, 1.0, "inconclusive", ""),
    ],
)
def test_what_a_verdict_alone_would_hide_stands_behind_it(test, mean, spread, verdict, remark):
    others = {f"other{n}": 0.01 + 0.1 * SHAPE for n in range(3)}
    claims = [claim("W8", test, 0.1), *(claim(name) for name in others)]
    record = decide(claims, {"W8": mean + spread * SHAPE} | others)["W8"]
    assert record["verdict"] == verdict
    shown = claims_table({"W8": record})["verdict"].iloc[0]
    assert shown == (f"{verdict} ({remark})" if remark else verdict)


# Prose


@pytest.fixture(scope="module")
def records():
    claims = [claim(name) for name in ("up", "down", "W8")]
    return decide(claims, {"up": 5 + SHAPE, "down": -5 + SHAPE, "W8": 0.05 + SHAPE})


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{up:keeps|loses|may lose}, {down:keeps|loses|may lose}, {W8:keeps|loses|may lose}, {down:is|not|or}",
            "keeps, loses (rather the reverse), may lose, not",  # a remark stands once
        ),
        ("{up.estimate:+.2f} {up.ci:.1f} over {up.n_seeds}", "+5.00 [3.8, 6.2] over 5"),
        ("GPT-2, _W8_ and m2: {up.verdict}", "GPT-2, _W8_ and m2: reproduced"),
        ("{up:by {up.estimate:.1f}|less|open at {up.n_to_decide}}", "by 5.0"),
        ("{share:.0%} of {arm}", "25% of W8"),
        ("{share}", "0.25"),
    ],
)
def test_prose_follows_the_records(records, template, expected):
    given_numbers = {k: v for k, v in {"share": np.float64(0.25), "arm": "W8"}.items() if f"{{{k}" in template}
    assert prose(template, records, **given_numbers).data == expected


@pytest.mark.parametrize(
    "template",
    [
        "{A4.estimate}",
        "{W8.sd}",
        "{W8}",
        "{W8:keeps|loses}",
        "{W8:keeps|loses|{A4.ci}}",
        "{W8:keeps {A4.ci}|loses|open}",
        "{up.n_to_decide} more",
        "{up.verdict:.2f}",
        "{up.estimate",
        "{missing:.2f}",
        "",
    ],
)
def test_prose_refuses_what_it_cannot_fill(records, template):
    with pytest.raises(UserError, match="prose"):
        prose(template, records, **({} if template else {"unused": 1.0}))


@pytest.mark.parametrize(
    "typed",
    ["0.3 nats", "gains 3%", "W8.5", "_5_", "1e-5", "(12)", "8-bit", "by-3", "−2", "{W8:a|loses 4%|c}", "**7**"],
)
def test_prose_refuses_typed_numbers(records, typed):
    with pytest.raises(UserError, match="typed"):
        prose(typed, records)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_prose_refuses_numbers_that_are_none(records, value):
    with pytest.raises(UserError, match="rests on it"):
        prose("{loss}", records, loss=value)


def test_an_effect_that_is_sure_but_too_small_to_matter_does_not_reproduce_a_claim():
    tiny = [0.0040, 0.0041, 0.0042, 0.0043, 0.0044]
    claim = Claim(
        id="W4", paper=None, statement="s", ours="o", test="greater", margin=0.02, detectable=0.01, figure="f"
    )
    assert decide([claim], {"W4": tiny})["W4"]["verdict"] == "not reproduced"
