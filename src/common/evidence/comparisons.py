"""Tests of a claim: the evidence for it and, apart from that, the evidence against it.

A test is a function of the differences between two arms, one per seed, and a margin: the smallest effect that
matters. Its two p-values are one-sided, so that .025 each corresponds to the 95% interval.

Identical differences leave t undefined. The limit as the spread goes to zero is taken: an interval of no width,
and p = 0 where the difference lies strictly on the alternative's side of the threshold, else 1.
"""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from common.errors import UserError
from common.evidence.intervals import is_constant, mean_interval, proportion_interval, sample

MINIMUM_SEEDS = 5


class Outcome(NamedTuple):
    """What a test found: estimate, 95% interval, sample size, one-sided p for and against the claim."""

    estimate: float
    low: float
    high: float
    n: int
    p_for: float
    p_against: float


def require_varied(values: ArrayLike, name: str, limits: tuple[float, ...] = ()) -> NDArray[np.float64]:
    """`values` `(n,)` of one arm, checked: a metric that is the same for every seed means seeds had no effect.

    `limits`: values at which a metric may rightly stand still, as a rate may at 0 or 1.
    Raises `UserError` where all values are equal (and not at a limit), on NaN, inf and n < 2.
    """
    vector = sample(values, 2)
    if is_constant(vector) and vector[0] not in limits:
        raise UserError(f"{name} is {vector[0]:.6g} for all {vector.size} seeds: the seed had no effect")
    return vector


def paired_differences(
    treated: ArrayLike, control: ArrayLike, name: str, limits: tuple[float, ...] = ()
) -> NDArray[np.float64]:
    """Treated minus control by seed, `(n,)`; both `(n,)` in the same order of seeds.

    Raises `UserError` where an arm's metric is the same for every seed (see `require_varied`) or lengths differ.
    """
    arms = [
        require_varied(values, f"{name} ({arm})", limits)
        for arm, values in (("treated", treated), ("control", control))
    ]
    if arms[0].size != arms[1].size:
        raise UserError(f"{name}: {arms[0].size} treated and {arms[1].size} control runs; pairs need as many")
    return arms[0] - arms[1]


def minus(one: pd.Series, other: pd.Series) -> pd.Series:
    """The difference of two arms, or other measures, by seed; `UserError` where they have not the same seeds."""
    if set(one.index) != set(other.index) or one.isna().any():
        raise UserError(f"an arm has the seeds {sorted(one.dropna().index)}, the other {sorted(other.index)}")
    return one - other


def greater(differences: ArrayLike, margin: float, minimum_seeds: int = MINIMUM_SEEDS) -> Outcome:
    """A is larger than B. For: mean difference > 0. Against: mean difference < margin.

    `differences`: A − B by seed, `(n,)`. An effect between 0 and the margin that is surely positive supports
    both; the interval tells. Raises `UserError` on NaN, inf, a margin ≤ 0 or fewer than `minimum_seeds`.
    """
    vector = _checked(differences, margin, minimum_seeds)
    return _outcome(vector, _tail(vector, 0.0, "greater"), _tail(vector, margin, "less"))


def non_inferior(differences: ArrayLike, margin: float, minimum_seeds: int = MINIMUM_SEEDS) -> Outcome:
    """A is not worse than B by the margin. For: mean difference < margin. Against: mean difference > margin.

    `differences`: how much worse A is than B, by seed, `(n,)`: A − B for a loss, B − A for a score.
    Raises `UserError` on NaN, inf, a margin ≤ 0 or fewer than `minimum_seeds`.
    """
    vector = _checked(differences, margin, minimum_seeds)
    return _outcome(vector, _tail(vector, margin, "less"), _tail(vector, margin, "greater"))


def equivalent(differences: ArrayLike, margin: float, minimum_seeds: int = MINIMUM_SEEDS) -> Outcome:
    """A equals B within the margin. For: |mean difference| < margin. Against: |mean difference| > margin.

    `differences`: A − B by seed, `(n,)`. For: two one-sided tests, the larger p (Schuirmann, 1987).
    Against: the chance, were the mean on a bound, of an estimate as far out on either side (after Hodges
    and Lehmann, 1954): the two-sided t-test as the margin goes to 0, the one-sided one where it is wide against
    the standard error. The nearer tail alone would err up to twice as often as stated.
    Raises `UserError` on NaN, inf, a margin ≤ 0 or fewer than `minimum_seeds`.
    """
    vector = _checked(differences, margin, minimum_seeds)
    p_for = max(_tail(vector, margin, "less"), _tail(vector, -margin, "greater"))
    outward = vector if vector.mean() >= 0 else -vector
    p_against = _tail(outward, margin, "greater") + _tail(outward, -margin, "greater")
    return _outcome(vector, p_for, p_against)


def share_above(successes: int, n: int, margin: float, minimum_seeds: int = MINIMUM_SEEDS) -> Outcome:
    """A proportion lies above the margin. For: share > margin. Against: share < margin. Exact binomial tests.

    Raises `UserError` unless 0 ≤ successes ≤ n, n ≥ `minimum_seeds` and 0 < margin < 1.
    """
    if not 0 < margin < 1:
        raise UserError(f"margin of a share is {margin}; it must lie between 0 and 1")
    interval = proportion_interval(successes, n)
    if interval.n < minimum_seeds:
        raise UserError(f"{interval.n} trials; at least {minimum_seeds} are needed")
    p_for, p_against = (
        float(stats.binomtest(int(successes), interval.n, margin, alternative=side).pvalue)
        for side in ("greater", "less")
    )
    return Outcome(*interval, p_for, p_against)


def _checked(differences: ArrayLike, margin: float, minimum_seeds: int) -> NDArray[np.float64]:
    if not (np.isfinite(margin) and margin > 0):
        raise UserError(f"margin is {margin}; the smallest effect that matters must be finite and above 0")
    return sample(differences, minimum_seeds)


def _tail(vector: NDArray[np.float64], threshold: float, side: Literal["greater", "less"]) -> float:
    """One-sided p of "the mean is `side` than the threshold"."""
    if is_constant(vector):
        beyond = vector[0] > threshold if side == "greater" else vector[0] < threshold
        return 0.0 if beyond else 1.0
    return float(stats.ttest_1samp(vector, threshold, alternative=side).pvalue)


def _outcome(vector: NDArray[np.float64], p_for: float, p_against: float) -> Outcome:
    return Outcome(*mean_interval(vector), p_for, p_against)
