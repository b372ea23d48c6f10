"""Estimates with their intervals, one row per arm."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from numpy.typing import ArrayLike

from common.errors import UserError
from common.figures.style import PALETTE, RULE


def forest(
    ax: Axes,
    labels: Sequence[str],
    estimates: ArrayLike,
    lows: ArrayLike,
    highs: ArrayLike,
    band: tuple[float, float] | None = None,
    colors: Sequence[str] | None = None,
    rows: ArrayLike | None = None,
    line: float | None = 0,
) -> PathCollection:
    """Estimates as dots with their intervals as bars, one row per arm, the first on top, and a line at zero.

    `labels`, `estimates`, `lows`, `highs`, `colors`, `rows`: `(arms,)`. `band`: range of differences too small to
    matter, shaded. `rows`: heights, from the top down, by default 0, 1, 2 and so on. `line`: where the line stands,
    None for no line. The caller names the x axis. Returns the dots. Raises `UserError` on no arms, unequal lengths,
    NaN or inf, and where not low ≤ estimate ≤ high.
    """
    mid, low, high = (np.asarray(numbers, dtype=np.float64) for numbers in (estimates, lows, highs))
    colors = [PALETTE[0]] * len(labels) if colors is None else colors
    if not len(labels) or {mid.shape, low.shape, high.shape, (len(colors),)} != {(len(labels),)}:
        raise UserError(f"{len(labels)} labels, shapes {mid.shape}, {low.shape}, {high.shape}, {len(colors)} colours")
    for label, *numbers in zip(labels, low, mid, high, strict=True):
        if not np.isfinite(numbers).all() or numbers != sorted(numbers):
            raise UserError(f"{label}: low, estimate, high are {numbers}; must be finite and in this order")
    if band is not None:
        ax.axvspan(*band, color="#E8E8E8", linewidth=0, zorder=0)
    if line is not None:
        ax.axvline(line, color=RULE, linewidth=0.6, zorder=1)
    rows = np.arange(len(labels)) if rows is None else np.asarray(rows, dtype=np.float64)
    ax.hlines(rows, low, high, color=colors, linewidth=1.4)
    dots = ax.scatter(mid, rows, color=colors, s=14, zorder=3)
    ax.set_yticks(rows, labels)
    ax.set_ylim(rows.max() + 0.5, rows.min() - 0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return dots


def grouped_rows(groups: Sequence[str]) -> tuple[np.ndarray, list[float]]:
    """Heights of rows from the top down, half a row more between groups, and of the rules there."""
    rows, rules = [0.0], []
    for before, after in pairwise(groups):
        rows.append(rows[-1] + (1 if before == after else 1.5))
        if before != after:
            rules.append(rows[-1] - 0.75)
    return np.array(rows), rules
