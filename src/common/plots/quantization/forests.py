"""How runs ended: one row for each setting, a dot and its interval."""

import textwrap
from collections.abc import Callable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

from common.analysis.quantization import BASELINE
from common.errors import UserError
from common.figures import COLUMN, PAGE, RULE, forest, use_style
from common.plots.quantization.layout import ROW, Rows, plain_log
from common.plots.quantization.settings import Palette, in_order, palette_of, wrapped

WIDE, NARROW = 34, 22  # characters of a row's label, on a page and in a column
REACH = 10  # margins: larger differences are written as numbers, as they would squash all others
FOLD = np.log(10) / REACH  # of a ratio what a margin is of a difference: tenfold or more are written as numbers
FRAME = 0.75  # inches for titles, ticks and the axis label


def perplexities(table: pd.DataFrame, groups: Mapping[str, str]) -> Figure:
    """Final perplexity with its interval, a panel for each text; the line is the baseline's estimate.

    `table`: setting, text, low, high, estimate. Raises `UserError` where a text has no row of the baseline.
    """
    figure, axes, rows = _panels(table, "text", groups)
    for text, ax in axes.items():
        own = table[table["text"] == text]
        baseline = own[own["setting"] == BASELINE]["estimate"]
        if baseline.empty:
            raise UserError(f"no row of {BASELINE} on {text}, to which all others are compared")
        _draw(ax, own, rows, palette_of(groups), line=baseline.iloc[0])
        plain_log(ax.xaxis)
        ax.set(title=text, xlabel="perplexity")
        rows.finish(ax)
    return figure


def final_differences(
    table: pd.DataFrame, groups: Mapping[str, str], margin: float, notes: Mapping[str, str]
) -> Figure:
    """Final loss minus the baseline's with its interval, a panel for each text; shaded: within the margin.

    `table`: setting, text, low, high, estimate. A difference far beyond the others, of ten margins or more, is an arrow
    and a number. `notes`, by group, stand below: what has no row, and why.
    """
    figure = _differences(table, "text", groups, margin)
    lines = [line for note in notes.values() for line in note.splitlines()]
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, fontsize=7, horizontalalignment="left")
        figure.set_figheight(figure.get_figheight() + ROW * len(lines))
    return figure


def families(table: pd.DataFrame, groups: Mapping[str, str], margin: float) -> Figure:
    """As `final_differences`, a panel for each model family. `table`: setting, family, low, high, estimate."""
    return _differences(table, "family", groups, margin)


def outlier_training(table: pd.DataFrame, groups: Mapping[str, str], margin: float) -> Figure:
    """Final loss minus that of the full-precision run with the same outliers; shaded: within the margin.

    `table`: setting, outliers (a text such as "none" or "×8"; two at most), low, high, estimate. The axis holds all
    intervals whole: the large differences are what the figure is about.
    """
    kinds = table["outliers"].unique()
    if len(kinds) > 2:
        raise UserError(f"outliers are {', '.join(kinds)}; a row has room for two")
    settings = in_order(table, groups)
    rows = Rows.of({name: wrapped(name, NARROW) for name in settings}, groups, least=1.7)
    use_style()
    figure, ax = plt.subplots(figsize=(COLUMN * 1.4, FRAME + 0.2 + ROW * rows.depth))
    for kind, shift in zip(kinds, (-0.37, 0.37), strict=False):
        own = table[table["outliers"] == kind]
        dots = _draw(ax, own, rows, palette_of(groups), band=(-margin, margin), shift=shift)
        if shift < 0:
            dots.set_facecolor("white")
        ax.scatter([], [], s=14, edgecolors=RULE, facecolors="white" if shift < 0 else RULE, label=kind)
    ax.legend(
        title="outliers:",
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        borderpad=0,
        handletextpad=0,
        alignment="left",
    )
    ax.set_xlabel("validation loss − full precision's\nwith the same outliers (nats/token)")
    rows.finish(ax)
    return figure


def sharpness(table: pd.DataFrame, groups: Mapping[str, str]) -> Figure:
    """Ratio of a setting's sharpness to the baseline's, with its interval.

    `table`: setting, low, high, estimate. A ratio far beyond the others, tenfold or more, is an arrow and a number.
    """
    rows = Rows.of({name: wrapped(name, NARROW) for name in in_order(table, groups)}, groups)
    use_style()
    figure, ax = plt.subplots(figsize=(COLUMN, FRAME + ROW * rows.depth))
    limits = tuple(np.exp(limits_of(np.log(table[["low", "high"]]), FOLD)))
    _draw(ax, table, rows, palette_of(groups), line=1, limits=limits, written=_ratio)
    plain_log(ax.xaxis)
    ax.set_xlabel("sharpness ÷ full precision's")
    rows.finish(ax)
    return figure


def _differences(table: pd.DataFrame, by: str, groups: Mapping[str, str], margin: float) -> Figure:
    figure, axes, rows = _panels(table, by, groups)
    limits = limits_of(table, margin)
    label = textwrap.fill("validation loss − full precision's (nats/token)", 80 // len(axes))
    figure.set_figheight(figure.get_figheight() + ROW * label.count("\n"))
    for value, ax in axes.items():
        _draw(ax, table[table[by] == value], rows, palette_of(groups), band=(-margin, margin), limits=limits)
        ax.set(title=value, xlabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10)))  # steps of .025 have no room for their digits
        rows.finish(ax)
    return figure


def _panels(table: pd.DataFrame, by: str, groups: Mapping[str, str]) -> tuple[Figure, dict[str, Axes], Rows]:
    """Panels side by side for each value of the column `by`, with a common row for each setting."""
    rows = Rows.of({name: wrapped(name, WIDE) for name in in_order(table, groups)}, groups)
    values = table[by].unique()
    use_style()
    figure, axes = plt.subplots(1, len(values), figsize=(PAGE, FRAME + ROW * rows.depth), sharey=True, squeeze=False)
    return figure, dict(zip(values, axes[0], strict=True)), rows


def limits_of(table: pd.DataFrame, margin: float) -> tuple[float, float]:
    """Range of the differences that are not too large to be drawn to scale, with their intervals."""
    return -_limit(-table["high"], -table["low"], margin), _limit(table["low"], table["high"], margin)


def _limit(near: pd.Series, far: pd.Series, margin: float) -> float:
    """Where an axis ends so that intervals, `near` to `far`, lie whole within it or beyond.

    It is at `REACH` margins, nearer where there are none, and further, up to twice as far, where it would cut one.
    """
    gap = margin / 2
    end = REACH * margin
    while end < 2 * REACH * margin and ((cut := far[near < end + gap]) > end).any():
        end = min(cut.max(), 2 * REACH * margin)
    return max([margin, *far[near < end + gap].clip(upper=end)]) + gap


def _difference(estimate: float, low: float, high: float) -> str:
    return f"{estimate:+.2f} [{low:.2f}, {high:.2f}]".replace("-", "−")


def _ratio(estimate: float, low: float, high: float) -> str:
    middle, least, most = (f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}" for ratio in (estimate, low, high))
    return f"×{middle} [{least}, {most}]"


def _draw(
    ax: Axes,
    table: pd.DataFrame,
    rows: Rows,
    palette: Palette,
    *,
    band: tuple[float, float] | None = None,
    line: float = 0,
    limits: tuple[float, float] | None = None,
    written: Callable[[float, float, float], str] = _difference,
    shift: float = 0.0,
) -> PathCollection:
    """Draw dots and intervals of `table`, `shift` lines of text below their rows; returns the dots.

    What lies beyond `limits` is an arrow at the edge, and where the estimate does, a number as `written`.
    """
    settings, numbers = table["setting"].tolist(), [table[column] for column in ("estimate", "low", "high")]
    colors, at = [palette[setting] for setting in settings], [rows.at[setting] + shift for setting in settings]
    dots = forest(ax, settings, *numbers, band=band, colors=colors, rows=at, line=line)
    if limits is not None:
        ax.set_xlim(limits)
        for color, height, estimate, low, high in zip(colors, at, *numbers, strict=True):
            for side, near, far, edge in ((1, low, high, limits[1]), (-1, high, low, limits[0])):
                if side * far > side * edge:
                    inward = offset_copy(ax.transData, ax.figure, x=-3 * side, units="points")
                    arrow = {"marker": ">" if side > 0 else "<", "markersize": 4, "color": color}
                    ax.plot(edge, height, transform=inward, clip_on=False, **arrow)
                if side * estimate > side * edge:
                    words = written(estimate, low, high)
                    start = (side * min(side * near, side * edge), height)
                    place = {"xytext": (-9 * side, 0), "textcoords": "offset points", "va": "center"}
                    ax.annotate(words, start, ha="right" if side > 0 else "left", fontsize=7, **place)
    return dots
