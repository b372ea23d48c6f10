"""Confidence intervals: of a mean by t, of a proportion exactly."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from common.errors import UserError

SPREAD_FLOOR = 1e-12  # relative spread below which differences of doubles are rounding, not variation


class Interval(NamedTuple):
    """A point estimate (`mean`, or the statistic that stands in its place), its interval and sample size."""

    mean: float
    low: float
    high: float
    n: int


def sample(values: ArrayLike, minimum: int) -> NDArray[np.float64]:
    """`values` as a finite vector `(n,)` with n ≥ `minimum`, which itself is at least 2; else `UserError`."""
    if minimum < 2:
        raise UserError(f"minimum number of seeds is {minimum}; a spread needs at least 2")
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise UserError(f"expected one value per seed, shape (n,), got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise UserError(f"value {vector[~np.isfinite(vector)][0]} among {vector.size} values; all must be finite")
    if vector.size < minimum:
        raise UserError(f"{vector.size} seeds; at least {minimum} are needed")
    return vector


def is_constant(vector: NDArray[np.float64]) -> bool:
    """Whether all values are equal up to the rounding of double precision."""
    return bool(np.ptp(vector) <= SPREAD_FLOOR * np.abs(vector).max())


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval of a mean.

    `values`: `(n,)`, n ≥ 2, independent; paired differences are values like any other. Identical values give
    an interval of no width, the limit as the spread goes to zero. Raises `UserError` on NaN, inf or n < 2.
    """
    vector = sample(values, 2)
    mean = float(vector.mean())
    if is_constant(vector):
        return Interval(mean, mean, mean, vector.size)
    low, high = stats.ttest_1samp(vector, 0.0).confidence_interval(confidence)
    return Interval(mean, float(low), float(high), vector.size)


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson, 1934).

    Raises `UserError` unless `successes` and `n` are whole numbers with 0 ≤ successes ≤ n and n ≥ 1.
    """
    if successes != int(successes) or n != int(n) or not 0 <= successes <= n or n < 1:
        raise UserError(f"{successes} successes of {n}; need whole numbers, 0 ≤ successes ≤ n and n ≥ 1")
    test = stats.binomtest(int(successes), int(n))
    low, high = test.proportion_ci(confidence, method="exact")
    return Interval(test.statistic, float(low), float(high), int(n))
