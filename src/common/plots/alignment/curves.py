"""Measures against something that was doubled, and reward against KL."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, PercentFormatter

from common.analysis.alignment.plateaus import Plateau
from common.figures import PAGE, PALETTE, RULE, label_lines, use_style
from common.plots.alignment.layout import COLORS, MEASURES, name_axis, words

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

    `table`: the columns of `lines`, `x`, measure, estimate, low, high. `fits`, by (levels of
    `lines`, measure), are drawn in place of the line that joins the dots. With `largest` values are shares of the one
    at the largest x. Colour tells methods, and dotted lines the noisy data.
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
        if largest:
            ax.axhline(1, color="#BBBBBB", linewidth=0.6, zorder=0)
            ax.set(title=MEASURES[measure], ylabel="")
            ax.set_ylim(0, 2)  # wider intervals of ratios say only that they are wide
    if largest:
        axes[0, 0].set_ylabel("share of the value\nat the largest number")
        axes[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.supxlabel(AXES[x], fontsize=plt.rcParams["axes.labelsize"])
    label_lines(axes[0, -1])
    return figure


def frontier(table: pd.DataFrame) -> Figure:
    """Reward against KL by loss: a point a strength, with its beta beside, joined within a loss, with intervals.

    Full points are on the frontier, empty ones behind it; dashed the models untuned, whose KL is 0. The axis ends
    where points do: an interval of few seeds may go on.

    `table`: loss_type, beta, kl, kl_low, kl_high, reward, reward_low, reward_high, best.
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
        bars = ax.errorbar(own["kl"], own["reward"], up, across, fmt="o-", color=color, elinewidth=0.8, mfc="white")
        best = own[own["best"]]
        ax.plot(best["kl"], best["reward"], "o", color=color, zorder=4)
        for row in own.itertuples():
            ax.annotate(f"{row.beta:g}", (row.kl, row.reward), (3, 3), textcoords="offset points", color=color, size=6)
        lines[str(loss)] = bars.lines[0]
    ax.set(xlabel="KL to the start (nats a reply)", ylabel="reward: log-odds of the\nwanted sentiment (nats)")
    ax.set_xscale("log")
    ax.set_xlim(table["kl"].min() / 1.6, table["kl"].max() * 1.6)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    label_lines(ax, lines)
    return figure
