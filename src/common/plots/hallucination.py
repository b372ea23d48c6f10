"""Figures of the hallucination study: functions from tables to a drawn figure, which compute nothing but layout."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from common.analysis.hallucination.arms import BASE, KINDS, TUNED
from common.figures import INK, PAGE, PALETTE, RULE, forest, grouped_rows, label_lines, use_style

COLORS = dict(zip(KINDS, PALETTE, strict=False))
ROW = 0.19  # inches that a row takes
FRAME = 0.75  # inches for titles, ticks and the axis label
STYLES = ("-", "--", "-.", ":")  # of arms of one kind
STAGES = {BASE: "before tuning", TUNED: "after tuning"}
BETWEEN = {"distractors": "other facts in between", "distance": "sentences without a fact in between"}


def early(table: pd.DataFrame) -> Figure:
    """Rare facts and memorised endings side by side, a row for each arm. `table`: see `early_table`."""
    return _forests(table, "measure", "share of answers")


def rarity(table: pd.DataFrame) -> Figure:
    """Wrong answers about facts by how often these were read, a line for each arm. `table`: see `rarity_table`."""
    order = list(table["frequency"].unique())
    figure, axes = _panels(["facts, base models"])
    ((title, ax),) = axes.items()
    guess = table.drop_duplicates("frequency")["guess"]
    ax.plot(range(len(order)), guess, label="guessing", color=RULE, linestyle="--", linewidth=0.8, zorder=0)
    _lines(ax, table.assign(place=table["frequency"].map(order.index)), "place", apart=0.03)
    ax.set(title=title, xlabel="quarter of the facts, by how often they were read")
    ax.set_xticks(range(len(order)), order)
    return _finished(figure, axes)


def by_task(table: pd.DataFrame) -> Figure:
    """The map: wrong answers by task, a panel each, a row for each arm; dashed, guessing. `table`: `map_table`."""
    order = table.drop_duplicates("task").sort_values("aspect", kind="stable")
    figure = _forests(table, "task", "wrong answers (dashed: guessing)", order["task"].tolist(), columns=3)
    for guess, ax in zip(order["guess"], figure.axes, strict=False):
        ax.axvline(guess, color=RULE, linestyle="--", linewidth=0.8, zorder=0)
    return figure


def size(table: pd.DataFrame) -> Figure:
    """Wrong answers against parameters, a panel for each aspect, a line for each arm. `table`: see `size_table`."""
    figure, axes = _panels(table["aspect"].unique())
    for aspect, ax in axes.items():
        own = table[table["aspect"] == aspect].sort_values("parameters")
        _lines(ax, own, "parameters", 1e3)
        ax.set(title=aspect, xlabel="parameters (thousands)", xscale="log")
        thousands = sorted(set((own["parameters"] / 1e3).round().astype(int)))
        ax.set_xticks(thousands, map(str, thousands))
        ax.minorticks_off()
    return _finished(figure, axes)


def tuning(table: pd.DataFrame) -> Figure:
    """Wrong answers before and after tuning, a panel for each aspect. `table`: see `tuning_table`."""
    figure, axes = _panels(table["aspect"].unique())
    for aspect, ax in axes.items():
        own = table[table["aspect"] == aspect]
        places = {stage: place for place, stage in enumerate(STAGES)}
        _lines(ax, own.assign(place=own["stage"].map(places)).sort_values("place"), "place", apart=0.02)
        ax.set(title=aspect, xlim=(-0.2, 1.2))
        ax.set_xticks(range(len(STAGES)), list(STAGES.values()))
    return _finished(figure, axes)


def ladder(table: pd.DataFrame) -> Figure:
    """Wrong answers against the share of attention, a panel for each aspect. `table`: see `ladder_table`."""
    figure, axes = _panels(table["aspect"].unique())
    for aspect, ax in axes.items():
        for style, (stage, words) in zip(STYLES, STAGES.items(), strict=False):
            own = table[(table["aspect"] == aspect) & (table["stage"] == stage)]
            _line(ax, own["share"], own, words, INK, style)
        ax.set(title=aspect, xlabel="share of layers that are attention")
        ax.set_xticks(sorted(table["share"].unique()))
        ax.xaxis.set_major_formatter(PercentFormatter(1))
    return _finished(figure, axes)


def between(table: pd.DataFrame) -> Figure:
    """Conflicts not answered from the story, against what stands between. `table`: see `between_table`."""
    figure, axes = _panels(table["between"].unique())
    for name, ax in axes.items():
        own = table[table["between"] == name]
        _lines(ax, own, "count", apart=0.05)
        ax.set(xlabel=BETWEEN[name])
        ax.set_xticks(sorted(own["count"].unique()))
    return _finished(figure, axes)


def temperature(table: pd.DataFrame) -> Figure:
    """Wrong answers against the temperature, a panel for each task. `table`: see `temperature_table`."""
    figure, axes = _panels(table["task"].unique())
    for task, ax in axes.items():
        _lines(ax, table[table["task"] == task], "temperature", apart=0.015)
        ax.set(title=task, xlabel="temperature")
        ax.set_xticks(table["temperature"].unique())
    return _finished(figure, axes)


def calibration(table: pd.DataFrame) -> Figure:
    """Calibration error, and AUROC of confidence, a panel for each and task. `table`: see `calibration_table`."""
    panels = table.assign(panel=table["task"] + ", " + table["measure"])
    return _forests(panels, "panel", "calibration error (0% is best), AUROC (100% is best, 50% is chance)")


def _forests(table: pd.DataFrame, panel: str, label: str, order: Sequence[str] = (), columns: int = 2) -> Figure:
    """A panel for each value of a column, in all the same rows: arms, by kind."""
    arms = table[["kind", "arm"]].drop_duplicates()
    arms = arms.assign(place=arms["kind"].map(KINDS.index)).sort_values(["place", "arm"])
    rows, _ = grouped_rows(arms["kind"])
    height = dict(zip(arms["arm"], rows, strict=True))
    names = list(order) or list(table[panel].unique())
    # Intervals by t may reach beyond what a share can be, and are shown.
    reach = min(0.0, table["low"].min()) - 0.02, max(1.0, table["high"].max()) + 0.02
    use_style()
    lines = -(-len(names) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(PAGE, lines * (FRAME / 2 + ROW * (rows[-1] + 1)) + FRAME / 2), sharey=True,
        sharex=True, squeeze=False,
    )  # fmt: skip
    for name, ax in zip(names, grid.flat, strict=False):
        own = table[table[panel] == name]
        own = own.assign(height=own["arm"].map(height)).sort_values("height")
        numbers = [own[column] for column in ("estimate", "low", "high")]
        colors = [COLORS[kind] for kind in own["kind"]]
        forest(ax, own["arm"].tolist(), *numbers, colors=colors, rows=own["height"], line=None)
        ax.set(title=name, xlim=reach, ylim=(rows[-1] + 0.6, -0.6))
        ax.xaxis.set_major_formatter(PercentFormatter(1))
    # Panels share the axis, and the last one may lack an arm.
    grid.flat[0].set_yticks(list(height.values()), list(height))
    for place, ax in enumerate(grid.flat):
        ax.set_visible(place < len(names))
        if place + columns >= len(names):
            ax.tick_params(labelbottom=True)  # the lowest of its column, maybe above an empty place
    figure.supxlabel(label)
    return figure


def _panels(names: Sequence[str]) -> tuple[Figure, dict[str, Axes]]:
    use_style()
    figure, grid = plt.subplots(1, len(names), figsize=(PAGE, 2.4), sharey=True, squeeze=False)
    return figure, dict(zip(names, grid[0], strict=True))


def _lines(ax: Axes, table: pd.DataFrame, column: str, unit: float = 1.0, apart: float = 0.0) -> None:
    """A line for each arm, in its kind's colour; arms of one kind differ in their dashes, all by `apart` in place.

    The middle one stands where it belongs, so that none is far from there.
    """
    shift = -apart * (table["arm"].nunique() - 1) / 2
    for kind in KINDS:
        several = table.loc[table["kind"] == kind, "arm"].unique()
        for number, arm in enumerate(sorted(several)):
            own = table[table["arm"] == arm]
            _line(ax, own[column] / unit + shift, own, arm, COLORS[kind], STYLES[number % len(STYLES)])
            shift += apart


def _line(ax: Axes, x: pd.Series, table: pd.DataFrame, name: str, color: str, style: str) -> None:
    reach = np.abs(table[["low", "high"]].to_numpy().T - table["estimate"].to_numpy())
    ax.errorbar(x, table["estimate"], reach, label=name, color=color, linestyle=style, marker="o", markersize=3)


def _finished(figure: Figure, axes: dict[str, Axes]) -> Figure:
    """Names beside the lines of every panel; intervals by t may reach beyond what a share can be, and are shown."""
    first = next(iter(axes.values()))
    low, high = first.get_ylim()
    first.set(ylabel="wrong answers", ylim=(min(low, -0.02), max(high, 1.02)))
    first.yaxis.set_major_formatter(PercentFormatter(1))
    for ax in axes.values():
        label_lines(ax)
    return figure
