"""How small an effect a number of seeds can see, and how many seeds an effect needs."""

import math

import numpy as np
from scipy import optimize, stats

from common.errors import UserError

MOST_SEEDS = 1_000_000  # stands for "this many or more": an effect on the threshold is never decided


def paired_power(effect: float, sd: float, n: int, alpha: float = 0.025) -> float:
    """Chance that the one-sided paired t-test at level `alpha` with n pairs rejects when the effect is true.

    `sd`: standard deviation of the paired differences. By the noncentral t distribution.
    """
    return float(stats.nct.sf(stats.t.isf(alpha, n - 1), n - 1, effect * math.sqrt(n) / sd))


def detectable_effect(sd: float, n: int, power: float = 0.8, alpha: float = 0.025) -> float:
    """Smallest true mean difference, in the units of `sd`, that n pairs detect with chance `power`.

    `sd`: standard deviation of the paired differences. For k claims under Holm, alpha / k is the careful level.
    Raises `UserError` unless sd > 0, n ≥ 2 and alpha < power < 1.
    """
    _check(sd, power, alpha)
    if n < 2:
        raise UserError(f"{n} seeds; power needs at least 2")
    high = 1.0
    while paired_power(high, 1.0, n, alpha) < power:
        high *= 2
    return sd * float(optimize.brentq(lambda effect: paired_power(effect, 1.0, n, alpha) - power, 0.0, high))


def seeds_needed(sd: float, effect: float, power: float = 0.8, alpha: float = 0.025) -> int:
    """Smallest number of pairs, at least 2 and at most `MOST_SEEDS`, that detect `effect` with chance `power`.

    Raises `UserError` unless sd > 0, effect ≥ 0 and alpha < power < 1.
    """
    _check(sd, power, alpha)
    if not effect >= 0:
        raise UserError(f"effect is {effect}; it must be 0 or above")
    if paired_power(effect, sd, MOST_SEEDS, alpha) < power:
        return MOST_SEEDS
    enough = 2
    while paired_power(effect, sd, enough, alpha) < power:
        enough *= 2
    low, high = enough // 2, enough  # low is too few (or 1), high is enough
    while high - low > 1:
        middle = (low + high) // 2
        if paired_power(effect, sd, middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def trials_needed(share: float, threshold: float, power: float = 0.8, alpha: float = 0.025) -> int:
    """Number of trials at which a true `share` is told from the `threshold`, one-sided, with chance `power`.

    Normal approximation to the exact test, corrected for continuity (Fleiss, 1981); at most `MOST_SEEDS`, also
    where the two are equal.
    Raises `UserError` unless both lie in 0 to 1, the threshold not at an end.
    """
    if not (0 <= share <= 1 and 0 < threshold < 1):
        raise UserError(f"share {share}, threshold {threshold}: both must lie between 0 and 1")
    if share == threshold:
        return MOST_SEEDS
    spread = stats.norm.isf(alpha) * math.sqrt(threshold * (1 - threshold))
    spread += stats.norm.ppf(power) * math.sqrt(share * (1 - share))
    distance = abs(share - threshold)
    plain = (spread / distance) ** 2
    return min(MOST_SEEDS, math.ceil(plain / 4 * (1 + math.sqrt(1 + 2 / (plain * distance))) ** 2))


def _check(sd: float, power: float, alpha: float) -> None:
    if not (np.isfinite(sd) and sd > 0):
        raise UserError(f"standard deviation is {sd}; it must be finite and above 0")
    if not 0 < alpha < power < 1:
        raise UserError(f"alpha {alpha} and power {power}; need 0 < alpha < power < 1")
