"""Intervals over the items of a task, those of one row of its file together."""

from collections.abc import Callable, Sequence

import numpy as np

from common.evidence.intervals import Interval, proportion_interval

RESAMPLES = 1000


def item_interval(
    values: np.ndarray,
    rows: Sequence[str],
    statistic: Callable[[np.ndarray], float],
    seed: int,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval of a statistic of `values (items, columns)` (Efron 1979); `n` counts items.

    Rows of the file are drawn with replacement, each with all its items, since these are alike; items whose row is ""
    count as one row each. Resamples on which the statistic is NaN are left out. Where there is one column and it is 0
    throughout, or 1, no resample differs: then it is the exact interval of a proportion, over rows. The interval is
    NaN where the statistic is, or where there are fewer than two rows.
    """
    estimate = statistic(values)
    names = [row or str(number) for number, row in enumerate(rows)] if "" in rows else list(rows)
    _, owners, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if values.shape[1] == 1 and (values == values[0]).all() and values[0, 0] in (0, 1):
        exact = proportion_interval(len(sizes) * int(values[0, 0]), len(sizes), confidence)
        return Interval(estimate, exact.low, exact.high, len(values))
    if np.isnan(estimate) or len(sizes) < 2:
        return Interval(estimate, np.nan, np.nan, len(values))
    members = np.split(np.argsort(owners, kind="stable"), np.cumsum(sizes)[:-1])
    alike = np.array(members) if (sizes == sizes[0]).all() else None
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        picked = rng.integers(len(sizes), size=len(sizes))
        chosen = np.concatenate([members[row] for row in picked]) if alike is None else alike[picked].ravel()
        drawn.append(statistic(values[chosen]))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), len(values))
