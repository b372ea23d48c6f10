"""How well each predictor predicted the gain: correlations, leads, regrets, costs."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.analysis.expansion import MEAN, PREDICTORS, RUN, TASKS
from common.figures import INK, PAGE, PALETTE, RULE, forest, use_style

ROW = 0.17  # inches
TITLES = {**TASKS, MEAN: "mean of the three"}
OURS = ("m", "level", "volume", "m_c")


def forest_by_task(table: pd.DataFrame, label: str, margin: float | None = None) -> Figure:
    """An estimate of each predictor with its interval, a panel for each task and one for their mean.

    `table`: task, predictor, estimate, low, high. `margin`: shaded around zero.
    """
    names = [name for name in PREDICTORS if name in set(table["predictor"])]
    use_style()
    figure, axes = plt.subplots(1, len(TITLES), figsize=(PAGE, 0.75 + ROW * len(names)), sharey=True)
    for ax, (task, title) in zip(axes, TITLES.items(), strict=True):
        band = None if margin is None else (-margin, margin)
        _estimates(ax, table[table["task"] == task], names, band)
        ax.set_title(title, fontsize=7)
        ax.xaxis.set_major_locator(MaxNLocator(3))
    figure.supxlabel(label)
    return figure


def _estimates(ax: Axes, table: pd.DataFrame, names: Sequence[str], band: tuple[float, float] | None = None) -> None:
    """Estimates in a row for each of `names`; a predictor that ranks nothing has an empty one."""
    own = table.set_index("predictor")
    shown = [name for name in names if name in own.index]
    own = own.loc[shown]
    colors = [PALETTE[0] if name in OURS else PALETTE[1] if name == RUN else INK for name in shown]
    labels, rows = [PREDICTORS[name] for name in shown], [names.index(name) for name in shown]
    forest(ax, labels, own["estimate"], own["low"], own["high"], band=band, colors=colors, rows=rows)
    ax.set_yticks(range(len(names)), [PREDICTORS[name] for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)


def equal(table: pd.DataFrame) -> Figure:
    """Rank correlations within sets of candidates of exactly equal parameter count, a panel for each set.

    The last one is of their mean.

    `table`: task, set, candidates, predictor, estimate, low, high.
    """
    sets = table[["task", "set", "candidates"]].drop_duplicates()
    names = [name for name in PREDICTORS if name in set(table["predictor"])]
    use_style()
    columns = min(3, len(sets))
    lines = -(-len(sets) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(PAGE, (0.75 + ROW * len(names)) * lines), sharey=True, sharex=True, squeeze=False
    )
    for ax in axes.flat[len(sets) :]:
        ax.remove()
    for ax, one in zip(axes.flat, sets.itertuples(), strict=False):
        _estimates(ax, table[(table["task"] == one.task) & (table["set"] == one.set)], names)
        of = f"{one.candidates} of {one.set}" if one.candidates else one.set
        ax.set_title(f"{TITLES[one.task]}:\n{of}", fontsize=7)
        ax.tick_params(labelbottom=True)
    figure.supxlabel("rank correlation with the gain, within the set")
    return figure


def cost(table: pd.DataFrame) -> Figure:
    """Rank correlation against what a predictor costs, in training steps of the candidate, a panel for each task.

    The line is of training runs of several lengths. `table`: task, predictor, steps, correlation.
    """
    use_style()
    figure, axes = plt.subplots(len(TASKS), 1, figsize=(PAGE, 1.75 * len(TASKS)), sharex=True)
    for ax, task in zip(axes, TASKS, strict=True):
        own = table[table["task"] == task]
        run = own[own["predictor"] == RUN].sort_values("steps")
        ax.plot(run["steps"], run["correlation"], marker="o", color=PALETTE[1])
        others = own[own["predictor"] != RUN]
        colors = [PALETTE[0] if name in OURS else INK for name in others["predictor"]]
        ax.scatter(others["steps"], others["correlation"], color=colors, s=14, zorder=3)
        ax.axhline(0, color=RULE, linewidth=0.6, zorder=0)
        ax.set(title=TASKS[task], xscale="log", ylim=(min(-0.15, own["correlation"].min() - 0.1), 1.12))
        ax.margins(x=0.06)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.supxlabel("cost in training steps (costs below one are drawn at one)")
    figure.supylabel("rank correlation with the gain")
    figure.draw_without_rendering()  # settles the layout, by which names are placed
    for ax, task in zip(axes, TASKS, strict=True):
        own = table[table["task"] == task]
        run = own[own["predictor"] == RUN].sort_values("steps")
        others = own[own["predictor"] != RUN]
        named = [PREDICTORS[name] for name in others["predictor"]] + ["training runs"]
        points = np.concatenate([others[["steps", "correlation"]], run[["steps", "correlation"]]])
        _name_points(ax, named, points)
    return figure


def _name_points(ax: Axes, names: list[str], points: np.ndarray) -> None:
    """Write names beside the first of `points (n, 2)`, each as near as the points and the names before it allow."""
    pixels = ax.transData.transform(points)
    point = ax.figure.dpi / 72
    height, free = 7.5 * point, 3 * point
    taken = [(x - free, y - free, x + free, y + free) for x, y in pixels]
    bounds = ax.get_window_extent()
    for name, (x, y) in zip(names, pixels, strict=False):
        width = 4.4 * point * len(name)
        steps = [height / 2 * step * side for step in range(40) for side in ((1, -1) if step else (1,))]
        places = [(x + dx, y + dy) for dy in steps for dx in (2 * free, -2 * free - width)]
        left, middle = next(
            (left, middle)
            for left, middle in places
            if bounds.x0 <= left
            and left + width <= bounds.x1 + 12 * free
            and not any(_overlap((left, middle - height / 2, left + width, middle + height / 2), box) for box in taken)
        )
        taken.append((left, middle - height / 2, left + width, middle + height / 2))
        to = ax.transData.inverted().transform((left, middle))
        arrow = {"arrowstyle": "-", "color": RULE, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        arrow |= {"relpos": (0, 0.5) if left > x else (1, 0.5)}
        style = {"fontsize": 6, "va": "center", "annotation_clip": False}
        ax.annotate(name, ax.transData.inverted().transform((x, y)), xytext=to, arrowprops=arrow, **style)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return min(one[2], other[2]) > max(one[0], other[0]) and min(one[3], other[3]) > max(one[1], other[1])
