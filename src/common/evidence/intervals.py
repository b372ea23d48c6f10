"""Confidence intervals: of a mean by t, of a proportion exactly, of any other statistic by the bootstrap."""

import warnings
from collections.abc import Callable
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


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float],
    axes: tuple[int, ...] = (0,),
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of a statistic that is no mean (Efron, 1987).

    `values`: an array of any shape; each axis in `axes` is resampled on its own and whole, so `(n, 2)` with
    axes `(0,)` keeps pairs together, and `(seeds, items)` with axes `(0, 1)` is the crossed bootstrap over
    seeds and items (Owen, 2007). `statistic` gets an array of the same shape and returns a number.
    The interval's `n` is the length of the first resampled axis. Equal inputs and `seed`, equal interval.
    With few seeds these intervals are too short: for a mean use `mean_interval`.
    Raises `UserError` on NaN or inf, on an axis shorter than 2 and where the statistic is undefined or
    never varies.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise UserError("NaN or inf among the values to resample; all must be finite")
    if min(array.shape[axis] for axis in axes) < 2:
        raise UserError(f"values of shape {array.shape} have fewer than 2 entries along an axis of {axes}")

    def resampled(*indices: NDArray[np.int64]) -> float:
        drawn = array
        for axis, index in zip(axes, indices, strict=True):
            drawn = drawn.take(index, axis)
        return float(statistic(drawn))

    positions = tuple(np.arange(array.shape[axis]) for axis in axes)
    # An undefined interval is an error below, not a warning here.
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            positions,
            resampled,
            n_resamples=resamples,
            vectorized=False,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = map(float, found.confidence_interval)
    estimate = float(statistic(array))
    if not np.isfinite([estimate, low, high]).all():
        raise UserError("the bootstrapped statistic is undefined on some resamples, or never varies")
    return Interval(estimate, low, high, array.shape[axes[0]])


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson, 1934).

    Raises `UserError` unless `successes` and `n` are whole numbers with 0 ≤ successes ≤ n and n ≥ 1.
    """
    if successes != int(successes) or n != int(n) or not 0 <= successes <= n or n < 1:
        raise UserError(f"{successes} successes of {n}; need whole numbers, 0 ≤ successes ≤ n and n ≥ 1")
    test = stats.binomtest(int(successes), int(n))
    low, high = test.proportion_ci(confidence, method="exact")
    return Interval(test.statistic, float(low), float(high), int(n))
