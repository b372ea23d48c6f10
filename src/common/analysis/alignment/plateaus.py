"""Where more data stops helping: a saturating exponential, fitted where the runs can tell its parameters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from common.errors import UserError

SIZES, SEEDS = 4, 3  # fewest that are fitted
SCALES = 400  # tried between a tenth of the smallest size and ten times the largest
LEVEL = 0.05  # of the test whether data change anything at all
RESAMPLES, HOLDS = 1000, 0.9  # of the seeds, and the share of these that must be identified too


class NotIdentified(UserError):
    """The runs cannot tell where the plateau is; the message says why, in a few words."""


@dataclass(frozen=True)
class Plateau:
    """y(n) = plateau − rise · exp(−n / scale), n in pairs; each with the ends of its 95% interval."""

    plateau: tuple[float, float, float]  # estimate, low, high
    rise: tuple[float, float, float]  # from what no data would give, extrapolated
    scale: tuple[float, float, float]  # pairs that take 63% of the way
    seeds: int

    def at(self, n: np.ndarray) -> np.ndarray:
        """The fitted value at so many pairs."""
        return self.plateau[0] - self.rise[0] * np.exp(-np.asarray(n, np.float64) / self.scale[0])


def fit_plateau(sizes: Sequence[float], values: np.ndarray, seed: int = 0) -> Plateau:
    """Least squares on `values (seeds, sizes)`: performance saturates exponentially in data (arXiv 2411.10545).

    Given the scale the rest is linear, so the best of `SCALES` scales is the fit. Intervals are percentiles over
    resamples of whole seeds, their distance from the estimate (of the scale, in logarithms) widened as Student's t
    interval of a mean is wider than its bootstrap: few seeds resampled vary too little. Raises `NotIdentified`

    - where a curve of two more parameters is no better than a constant, by the F test on values less their seed's mean;
    - where the scale is below half the smallest size: the rise is over before the first size, or falls between two;
    - where the scale is above half the largest size: the curve is not near its plateau (86% of the way) at the end;
    - where less than `HOLDS` of the resamples are identified by their scale;
    - where there are fewer than `SIZES` sizes, or `SEEDS` seeds.

    Raises `UserError` on NaN and on sizes that do not rise.
    """
    n, y = np.asarray(sizes, np.float64), np.asarray(values, np.float64)
    if y.ndim != 2 or y.shape[1] != len(n):
        raise UserError(f"values {y.shape} at {len(n)} sizes, allowed: (seeds, sizes)")
    if not np.isfinite(y).all() or (np.diff(n) <= 0).any() or n[0] <= 0:
        raise UserError("values must be finite, and sizes above 0 and rising")
    if len(n) < SIZES or len(y) < SEEDS:
        raise NotIdentified(f"{len(y)} seeds and {len(n)} sizes, needed: {SEEDS} and {SIZES}")
    scales = np.geomspace(n[0] / 10, n[-1] * 10, SCALES)
    inside = (scales >= n[0] / 2) & (scales <= n[-1] / 2)
    designs = np.stack([np.ones((SCALES, len(n))), -np.exp(-n / scales[:, None])], axis=2)
    bases = np.linalg.qr(designs).Q
    solve = np.linalg.pinv(designs)  # (scales, 2, sizes)
    mean = y.mean(0)
    place = _best(bases, mean[None])[0]
    _check_change(y, mean - designs[place] @ solve[place] @ mean)
    if scales[place] < n[0] / 2:
        raise NotIdentified(f"the rise is over by the first size, {n[0]:g}")
    if scales[place] > n[-1] / 2:
        raise NotIdentified(f"no plateau in sight at the last size, {n[-1]:g}")
    drawn = np.random.default_rng(seed).integers(len(y), size=(RESAMPLES, len(y)))
    means = y[drawn].mean(1)
    places = _best(bases, means)
    if inside[places].mean() < HOLDS:
        raise NotIdentified(f"seeds disagree: {inside[places].mean():.0%} of resamples have a plateau in sight")
    weights = np.einsum("rps,rs->rp", solve[places], means)
    plateau, rise = (_interval(own, column, len(y)) for own, column in zip(solve[place] @ mean, weights.T, strict=True))
    logs = np.log(scales)
    scale = tuple(float(np.exp(end)) for end in _interval(logs[place], logs[places], len(y)))
    return Plateau(plateau, rise, scale, len(y))


def plateau_table(
    rows: pd.DataFrame, by: Sequence[str], measures: Iterable[str]
) -> tuple[dict[tuple, Plateau], pd.DataFrame]:
    """Fits by (levels of `by`, measure), and a table of all: plateau and scale with intervals, or `why` there is none.

    `rows` have `pairs` and `seed`, each seed at each size (see `common.analysis.alignment.runs.part`).
    """
    fits, told = {}, []
    for levels, cell in rows.groupby(list(by), sort=False):
        for measure in measures:
            wide = cell.pivot(index="seed", columns="pairs", values=measure)
            row = dict(zip(by, levels, strict=True)) | {"measure": measure}
            try:
                fit = fit_plateau(wide.columns.to_numpy(), wide.to_numpy())
            except NotIdentified as error:
                told.append(row | {"plateau": "", "pairs for 95%": "", "why": str(error)})
                continue
            fits[*levels, measure] = fit
            most = np.log(20) * np.array(fit.scale)  # 1 − exp(−n / scale) = .95
            told.append(row | {"plateau": _shown(fit.plateau, ".2f"), "pairs for 95%": _shown(most, ".0f"), "why": ""})
    return fits, pd.DataFrame(told)


def _interval(estimate: float, resampled: np.ndarray, seeds: int) -> tuple[float, float, float]:
    wider = np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(0.975, seeds - 1) / stats.norm.ppf(0.975)
    low, high = estimate + wider * (np.quantile(resampled, [0.025, 0.975]) - estimate)
    return float(estimate), float(min(low, estimate)), float(max(high, estimate))


def _best(bases: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Number of the best scale for each of `means (curves, sizes)`, by orthonormal `bases (scales, sizes, 2)`."""
    # Least squares leave least where the projection is longest; values less their mean, so that it does not round.
    own = means - means.mean(1, keepdims=True)
    scales, sizes, _ = bases.shape
    projected = own @ bases.transpose(1, 0, 2).reshape(sizes, -1)
    return (projected.reshape(-1, scales, 2) ** 2).sum(2).argmax(1)


def _check_change(y: np.ndarray, errors_of_mean: np.ndarray) -> None:
    seeds, sizes = y.shape
    own = y - y.mean(1, keepdims=True)
    constant, rest = float((own.mean(0) ** 2).sum() * seeds), float(((own - own.mean(0)) ** 2).sum())
    curve = float((errors_of_mean**2).sum() * seeds)
    free = seeds * sizes - seeds - 2
    ratio = ((constant - curve) / 2) / max((rest + curve) / free, 1e-300)
    if stats.f.sf(ratio, 2, free) > LEVEL:
        raise NotIdentified("no significant change with more data")


def _shown(numbers: Sequence[float], spec: str) -> str:
    value, low, high = (format(number, spec) for number in numbers)
    return f"{value} [{low}, {high}]"
