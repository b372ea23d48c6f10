"""Levels of a factor side by side: a row for each combination of the others, a panel a measure."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.figures import PAGE, PALETTE, RULE, forest, grouped_rows, use_style
from common.plots.alignment.layout import COLORS, name_axis, words

ROW, FRAME, APART = 0.19, 0.95, 0.16  # inches a row; inches of the frame; rows between two levels' dots


def contrast(table: pd.DataFrame, rows: Sequence[str], factor: str, even: float | None = None) -> Figure:
    """F1, F4, F5, F6 and mixtures: levels of `factor` in their colours, with intervals over seeds, in each row.

    `table`: the columns of `rows`, `factor`, `measure`, `estimate`, `low`, `high`. The first of `rows` groups them.
    `even`: where a rule stands, if one does.
    """
    use_style()
    # Rows of a group together, in the order in which the table brings up its levels.
    places = table[list(rows)].drop_duplicates()
    places = places.sort_values(
        list(rows), key=lambda column: column.map({v: n for n, v in enumerate(column.unique())})
    )
    heights, rules = grouped_rows(places.iloc[:, 0].tolist() if len(rows) > 1 else [""] * len(places))
    heights *= 1.6
    height = dict(zip(places.itertuples(index=False, name=None), heights, strict=True))
    levels, measures = list(table[factor].unique()), list(table["measure"].unique())
    offset = dict(zip(levels, APART * 2 * (np.arange(len(levels)) - (len(levels) - 1) / 2), strict=True))
    figure, axes = plt.subplots(
        1, len(measures), figsize=(PAGE, FRAME + ROW * (heights[-1] + 1)), sharey=True, squeeze=False
    )
    for ax, measure in zip(axes[0], measures, strict=True):
        own = table[table["measure"] == measure]
        at = [height[place] for place in own[list(rows)].itertuples(index=False, name=None)]
        at = np.array(at) + own[factor].map(offset).to_numpy()
        numbers = [own[column] for column in ("estimate", "low", "high")]
        forest(ax, [""] * len(own), *numbers, colors=[COLORS[level] for level in own[factor]], rows=at, line=even)
        for rule in rules:
            ax.axhline(rule * 1.6, color="#DDDDDD", linewidth=0.5, zorder=0)
        ax.set_yticks(heights, [", ".join(map(words, place)) for place in height])
        ax.set_ylim(heights[-1] + 0.9, -0.9)
        name_axis(ax, measure)
    for level in levels:
        axes[0, -1].plot([], [], "o", color=COLORS[level], markersize=4, label=words(level))
    figure.legend(loc="outside upper center", ncols=len(levels), frameon=False)
    return figure


def merges(table: pd.DataFrame) -> Figure:
    """T3: merges beside the models that they are made of and models of mixed data, by start and method.

    `table`: start, method, arm, measure, estimate, low, high. Blue: trained; orange: merged. Dashed: mixed data.
    Merges of both methods' four models have half of each task vector.
    """
    use_style()
    there = {place: set(rows["arm"]) for place, rows in table.groupby(["start", "method"], sort=False)}
    order = ["harmless", "helpful", "mix", "linear", "slerp", "dare_half", "ties", "sum", "dare"]
    arms = [(place, arm) for place in there for arm in order if arm in there[place]]
    heights, rules = grouped_rows([place for place, _ in arms])
    height = dict(zip(arms, heights, strict=True))
    measures = list(table["measure"].unique())
    figure, axes = plt.subplots(1, len(measures), figsize=(PAGE, FRAME + ROW * heights[-1]), sharey=True, squeeze=False)
    halves = {"dare": "dare_half"}  # of merges across methods: their weights are halves
    names = [
        f"{words(halves.get(arm, arm) if method == 'sft+dpo' else arm)} ({words(start)}, {words(method)})"
        for (start, method), arm in arms
    ]
    for ax, measure in zip(axes[0], measures, strict=True):
        own = table[table["measure"] == measure]
        keys = [((row.start, row.method), row.arm) for row in own.itertuples()]
        colors = [PALETTE[0] if arm in order[:3] else PALETTE[1] for _, arm in keys]
        numbers = [own[column] for column in ("estimate", "low", "high")]
        forest(ax, [""] * len(own), *numbers, colors=colors, rows=[height[key] for key in keys], line=None)
        for row in own[own["arm"] == "mix"].itertuples():
            beside = [height[key] for key in arms if key[0] == (row.start, row.method)]
            ends = (min(beside) - 0.5, max(beside) + 0.5)
            ax.vlines(row.estimate, *ends, color=RULE, linewidth=0.8, linestyle="--", zorder=0)
        for rule in rules:
            ax.axhline(rule, color="#DDDDDD", linewidth=0.5, zorder=0)
        ax.set_yticks(heights, names)
        ax.set_ylim(heights[-1] + 0.6, -0.6)
        name_axis(ax, measure)
    return figure


def rows(table: pd.DataFrame, factor: str) -> Figure:
    """A row a level of one factor, such as the rule by which pairs are selected: a panel a measure.

    `table`: `factor`, measure, estimate, low, high.
    """
    use_style()
    levels, measures = list(table[factor].unique()), list(table["measure"].unique())
    figure, axes = plt.subplots(1, len(measures), figsize=(PAGE, FRAME + ROW * len(levels)), sharey=True, squeeze=False)
    for ax, measure in zip(axes[0], measures, strict=True):
        own = table[table["measure"] == measure].set_index(factor).loc[levels]
        forest(ax, list(map(words, levels)), *[own[c] for c in ("estimate", "low", "high")], line=None)
        name_axis(ax, measure)
    return figure
