"""How well each predictor foresaw the gain: correlations, leads, regrets, costs."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.analysis.expansion import PREDICTORS, RUN, TASKS
from common.figures import INK, PAGE, PALETTE, RULE, forest, label_lines, use_style

ROW = 0.17  # inches
OURS = ("m", "level", "volume")
NAMED = ("m", "naswot", "parameters", "hessian_trace", "sharpness")  # others lie beside these


def forest_by_task(table: pd.DataFrame, label: str, order: Mapping[str, str], margin: float | None = None) -> Figure:
    """An estimate of each predictor with its interval, a panel for each task, in the order of `order`.

    `table`: task, predictor, estimate, low, high. `margin`: shaded around zero.
    """
    names = [name for name in order if name in set(table["predictor"])]
    use_style()
    figure, axes = plt.subplots(1, len(TASKS), figsize=(PAGE, 0.75 + ROW * len(names)), sharey=True)
    for ax, task in zip(axes, TASKS, strict=True):
        own = table[table["task"] == task].set_index("predictor").loc[names]
        band = None if margin is None else (-margin, margin)
        colors = [PALETTE[0] if name in OURS else PALETTE[1] if name == RUN else INK for name in names]
        forest(ax, [order[name] for name in names], own["estimate"], own["low"], own["high"], band=band, colors=colors)
        ax.set(title=TASKS[task])
        ax.xaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel(label)
    return figure


def equal(table: pd.DataFrame) -> Figure:
    """Rank correlations within sets of candidates of exactly equal parameter count, a panel for each set.

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
        own = table[(table["task"] == one.task) & (table["set"] == one.set)].set_index("predictor")
        shown = [name for name in names if name in own.index]
        own = own.loc[shown]
        rows = [names.index(name) for name in shown]
        colors = [PALETTE[0] if name in OURS else PALETTE[1] if name == RUN else INK for name in shown]
        forest(
            ax, [PREDICTORS[name] for name in shown], own["estimate"], own["low"], own["high"], colors=colors, rows=rows
        )
        ax.set_title(f"{TASKS[one.task]}:\n{one.candidates} of {one.set}", fontsize=7)
        ax.set_yticks(range(len(names)), [PREDICTORS[name] for name in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.tick_params(labelbottom=True)
    figure.supxlabel("rank correlation with the gain, within the set")
    return figure


def cost(table: pd.DataFrame) -> Figure:
    """Rank correlation against what a predictor costs, in training steps of the candidate, a panel for each task.

    The line is of training runs of several lengths. `table`: task, predictor, steps, correlation.
    """
    use_style()
    figure, axes = plt.subplots(1, len(TASKS), figsize=(PAGE, 2.7), sharey=True)
    for ax, task in zip(axes, TASKS, strict=True):
        own = table[table["task"] == task]
        run = own[own["predictor"] == RUN].sort_values("steps")
        (line,) = ax.plot(run["steps"], run["correlation"], marker=".", color=PALETTE[1])
        lines = {"training\nrun": line}
        for name, row in own[own["predictor"] != RUN].set_index("predictor").iterrows():
            color = PALETTE[0] if name in OURS else RULE
            (point,) = ax.plot(row["steps"], row["correlation"], linestyle="none", marker="o", color=color)
            if name in ("m",):
                lines["M"] = point
            else:
                ax.annotate(
                    PREDICTORS[name].replace("M's ", "").replace(" alone", ""), (row["steps"], row["correlation"]),
                    xytext=(3, 2), textcoords="offset points", fontsize=5.5, color=INK,
                )  # fmt: skip
        ax.axhline(0, color=RULE, linewidth=0.6, zorder=0)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set(title=TASKS[task], ylim=(-0.3, 1.05))
        ax.tick_params(labelleft=True)
        label_lines(ax, lines)
    figure.supxlabel("cost, in training steps")
    figure.supylabel("rank correlation with the gain")
    return figure
