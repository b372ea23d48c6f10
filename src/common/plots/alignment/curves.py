"""Measures against something that was doubled, and reward against KL."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

from common.analysis.alignment.plateaus import Plateau
from common.figures import PAGE, PALETTE, RULE, label_lines, use_style
from common.plots.alignment.layout import COLORS, MEASURES, UNITS, name_axis, over_seeds, words

STYLES = {"hh-like": ":", "beavertails-like": "-"}
DODGE = 0.16  # doublings by which lines stand aside of each other
AXES = {"pairs": "pairs trained on", "rank": "rank of the adapter"}


def curves(
    table: pd.DataFrame,
    x: str,
    lines: Sequence[str],
    fits: Mapping[tuple, Plateau] | None = None,
    largest: bool = False,
) -> Figure:
    """F2 and F3: a panel a measure, a line for each combination of `lines`, with intervals over seeds; x is doubled.

    `table`: the columns of `lines`, `x`, measure, n, estimate, low, high. `fits`, by (levels of `lines`, measure), are
    drawn in place of the line that joins the dots. With `largest` values are shares of the one at the largest x. Colour
    tells methods, and dotted lines the noisy data. An axis of shares ends at none and all: an interval may go on.
    """
    use_style()
    measures = list(table["measure"].unique())
    figure, axes = plt.subplots(1, len(measures), figsize=(PAGE, 2.6), squeeze=False, sharey=largest)
    ticks = sorted(table[x].unique())
    for ax, measure in zip(axes[0], measures, strict=True):
        groups = table[table["measure"] == measure].groupby(list(lines), sort=False)
        for number, (levels, own) in enumerate(groups):
            aside = 2 ** (DODGE * (number - (groups.ngroups - 1) / 2))  # or intervals would hide each other
            color = next((COLORS[level] for level in levels if level in ("sft", "dpo")), PALETTE[0])
            style = next((STYLES[level] for level in levels if level in STYLES), "-")
            own = own.sort_values(x)
            fit = (fits or {}).get((*levels, measure))
            errors = [own["estimate"] - own["low"], own["high"] - own["estimate"]]
            line = "none" if fit else style
            at = own[x] * aside
            ax.errorbar(at, own["estimate"], errors, fmt="o", linestyle=line, color=color, elinewidth=0.8)
            if fit:
                finely = np.geomspace(ticks[0], ticks[-1], 100)
                ax.plot(finely, fit.at(finely), linestyle=style, color=color)
            ax.plot(at, own["estimate"], "o", color=color, markersize=2, label=", ".join(map(words, levels)))
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=60 if len(ticks) > 3 else 0)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        name_axis(ax, measure, "y")
        low, high = ax.get_ylim()
        if measure not in UNITS:
            ax.set_ylim(max(low, -0.02), min(high, 1.02))  # room for dots at the ends
        if largest:
            ax.axhline(1, color="#BBBBBB", linewidth=0.6, zorder=0)
            ax.set(title=MEASURES[measure], ylabel="")
            ax.set_ylim(0, 2)  # wider intervals of ratios say only that they are wide
    if largest:
        axes[0, 0].set_ylabel("share of the value\nat the largest number")
        axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.supxlabel(f"{AXES[x]} ({over_seeds(table)})", fontsize=plt.rcParams["axes.labelsize"])
    label_lines(axes[0, -1])
    return figure


def frontier(table: pd.DataFrame) -> Figure:
    """Reward against KL by loss: a point a strength, with its beta beside, joined within a loss, with intervals.

    Full points are on the frontier, empty ones behind it; dashed the models untuned, whose KL is 0. The axis ends
    where points do: an interval of few seeds may go on.

    `table`: loss_type, beta, n, kl, kl_low, kl_high, reward, reward_low, reward_high, best.
    """
    use_style()
    figure, ax = plt.subplots(figsize=(0.8 * PAGE, 3.4))
    lines = {}
    untuned = table["loss_type"] == "untuned"
    ax.axhline(table.loc[untuned, "reward"].mean(), color=RULE, linewidth=0.8, linestyle="--", zorder=0)
    table = table[~untuned]
    for number, (loss, own) in enumerate(table.groupby("loss_type", sort=False)):
        own, color = own.sort_values("kl"), PALETTE[number % len(PALETTE)]
        across = [(own["kl"] - own["kl_low"]).clip(upper=0.999 * own["kl"]), own["kl_high"] - own["kl"]]
        up = [own["reward"] - own["reward_low"], own["reward_high"] - own["reward"]]
        faint = to_rgba(color, 0.45)  # bars cross every label otherwise
        bars = ax.errorbar(
            own["kl"], own["reward"], up, across, fmt="o-", color=color, ecolor=faint, elinewidth=0.8, mfc="white"
        )
        best = own[own["best"]]
        ax.plot(best["kl"], best["reward"], "o", color=color, zorder=4)
        lines[str(loss)] = bars.lines[0]
    ax.set(
        xlabel=f"KL to the start (nats per reply; {over_seeds(table)})",
        ylabel="reward: log-odds of the\nwanted sentiment (nats)",
    )
    ax.set_xscale("log")
    ax.set_xlim(table["kl"].min() / 1.6, table["kl"].max() * 1.6)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    dark = dict(zip(lines, (name.get_color() for name in label_lines(ax, lines)), strict=True))
    points = [(f"{row.beta:g}", (row.kl, row.reward), dark[str(row.loss_type)]) for row in table.itertuples()]
    _label_points(ax, points)
    return figure


def _label_points(ax: Axes, points: Sequence[tuple[str, tuple[float, float], object]]) -> None:
    """Write a word beside each point, in the corner that has least of other points and words; (word, place, colour)."""
    figure = ax.get_figure(root=True)
    figure.draw_without_rendering()  # settles where points are on the page
    scale = figure.dpi / 72
    taken = [Bbox.from_bounds(x - 2 * scale, y - 2 * scale, 4 * scale, 4 * scale)
             for x, y in ax.transData.transform([place for _, place, _ in points])]  # fmt: skip
    for word, place, color in points:
        corners = []
        for right, up in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
            text = ax.annotate(
                word, place, (3 * right, 2.5 * up), textcoords="offset points", size=6.5, color=color, zorder=6,
                ha="left" if right > 0 else "right", va="bottom" if up > 0 else "top",
                path_effects=[withStroke(linewidth=3, foreground="white")],
            )  # fmt: skip
            box = text.get_window_extent()
            corners.append((sum(_shared(box, other) for other in taken), text, box))
        best = min(corners, key=lambda corner: corner[0])
        taken.append(best[2])
        for _, text, _ in corners:
            if text is not best[1]:
                text.remove()


def _shared(one: Bbox, other: Bbox) -> float:
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height
