"""What became of each candidate: M before and after, gain against a predictor, curves of continued training."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, SymmetricalLogLocator

from common.analysis.expansion import NONE, PREDICTORS, TASKS
from common.errors import UserError
from common.figures import INK, PAGE, PALETTE, RULE, grouped_rows, label_lines, use_style

TYPES = {"wider": PALETTE[0], "deeper": PALETTE[1], "wider and deeper": PALETTE[2]}
MARKERS = {"wider": "o", "deeper": "s", "wider and deeper": "^"}
ROW = 0.155  # inches
NATS = "gain in test loss (nats)"


def changes(table: pd.DataFrame) -> Figure:
    """M of the base and of each candidate, an arrow from the one to the other, and beside it what was gained.

    `table`: see `change_table`, of tasks that share their candidates. Candidates stand by type, those of most gain on
    the first task on top; the bar is the 95% interval of the change.
    """
    tasks = table["task"].unique()
    first = table[table["task"] == tasks[0]]
    order = pd.concat([first[first["type"] == kind].sort_values("gain", ascending=False) for kind in TYPES])
    heights, rules = grouped_rows(order["type"].tolist())
    at = dict(zip(order["candidate"], heights, strict=True))
    use_style()
    figure, axes = plt.subplots(
        1, 2 * len(tasks), figsize=(PAGE, 0.75 + ROW * (heights[-1] + 1)), sharey=True, squeeze=False
    )
    for place, task in enumerate(tasks):
        own = table[table["task"] == task]
        if set(own["candidate"]) != set(at):
            raise UserError(f"{task} has other candidates than {tasks[0]}")
        left, right = axes[0, 2 * place : 2 * place + 2]
        for row in own.itertuples():
            height, color = at[row.candidate], TYPES[row.type]
            left.hlines(height, row.before + row.low, row.before + row.high, color=color, linewidth=3, alpha=0.3)
            arrow = {"arrowstyle": "->", "color": color, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
            left.annotate("", (row.after, height), (row.before, height), arrowprops=arrow)
            left.plot(
                [row.before, row.after], [height, height], linestyle="none", marker="|", color=color, markersize=4
            )
            right.hlines(height, row.gain_low, row.gain_high, color=color, linewidth=1.4)
            right.plot(row.gain, height, marker=MARKERS[row.type], color=color)
        right.axvline(0, color=RULE, linewidth=0.6, zorder=0)
        left.set(xlabel="M, before → after")
        left.set_title(TASKS[task])
        right.set(xlabel="gain (nats)")
        for ax in (left, right):
            ax.xaxis.set_major_locator(MaxNLocator(3))
            ax.tick_params(axis="y", length=0)
            for rule in rules:
                ax.axhline(rule, color="#DDDDDD", linewidth=0.5, zorder=0)
    axes[0, 0].set_yticks(list(at.values()), list(at), fontsize=6.5)
    axes[0, 0].set_ylabel("candidate")
    axes[0, 0].set_ylim(heights[-1] + 0.6, -0.6)
    _legend(figure, table["type"])
    return figure


def gains(table: pd.DataFrame, power: pd.DataFrame) -> Figure:
    """Gain against the change of M, a panel for each task, a point for each candidate, with the rank correlation.

    `table`: see `gain_table`, of M alone. `power`: its correlations with intervals over candidates and seeds.
    """
    use_style()
    figure, axes = plt.subplots(1, len(TASKS), figsize=(PAGE, 2.5))
    found = power[power["predictor"] == "m"].set_index("task")
    for ax, task in zip(axes, TASKS, strict=True):
        _scatter(ax, table[table["task"] == task])
        row = found.loc[task]
        said = f"ρ = {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]".replace("-", "−")
        ax.set_title(f"{TASKS[task]}\n{said}")
    figure.supxlabel("change of M")
    figure.supylabel(NATS)
    _legend(figure, table["type"])
    return figure


def rival_gains(table: pd.DataFrame, power: pd.DataFrame, task: str) -> Figure:
    """Gain against every predictor on one task, a panel for each. `table` and `power` as `gains` takes them."""
    own, found = table[table["task"] == task], power[power["task"] == task].set_index("predictor")["estimate"]
    use_style()
    columns = 4
    names = list(own["predictor"].unique())
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(PAGE, 1.55 * lines + 0.3), sharey=True)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    for ax, name in zip(axes.flat, names, strict=False):
        points = own[own["predictor"] == name]
        threshold = _threshold(points["score"])
        if threshold is not None:
            ax.set_xscale("symlog", linthresh=threshold)  # before points are drawn, for which it makes room
        _scatter(ax, points)
        if threshold is not None:
            ax.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=threshold, subs=[1]))
        said = f"ρ = {found[name]:.2f}".replace("-", "−") if name in found else "no order"
        ax.set_title(f"{PREDICTORS[name]}\n{said}", fontsize=7)
        ax.tick_params(labelsize=6)
    figure.supxlabel("score (more promising to the right)")
    figure.supylabel(NATS)
    _legend(figure, table["type"])
    return figure


def _threshold(scores: pd.Series) -> float | None:
    """Where a logarithmic scale begins, if the largest scores are so far out that a linear one would hide the rest."""
    size = scores.abs()
    low, middle, high = size[size > 0].quantile([0.25, 0.5, 1])
    return float(10 ** np.floor(np.log10(low))) if high > 10 * middle else None


def curves(table: pd.DataFrame, tasks: Mapping[str, str]) -> Figure:
    """Test loss during continued training, a panel for each task and type; the dashed line is the base, not expanded.

    `table`: see `curve_table`. The best and the worst that end within a panel have their names
    beside their ends; some, far worse, end above it.
    """
    use_style()
    kinds = {
        task: [kind for kind in TYPES if ((table["task"] == task) & (table["type"] == kind)).any()] for task in tasks
    }
    columns = max(map(len, kinds.values()))
    figure, axes = plt.subplots(len(tasks), columns, figsize=(PAGE, 1.75 * len(tasks)), squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        own = table[table["task"] == task]
        for ax in row[len(kinds[task]) :]:
            ax.remove()
        base = own[own["candidate"] == NONE].sort_values("step")
        ends = own[own["step"] == own["step"].max()]["test_loss"]
        starts = own[own["step"] > 0].groupby("step")["test_loss"].max()
        top = min(
            float(starts.max()), float(base["test_loss"].max()) + 1.5 * float(base["test_loss"].max() - ends.min())
        )
        for ax, kind in zip(row, kinds[task], strict=False):
            lines: dict[str, Line2D] = {}
            chosen = own[own["type"] == kind]
            last = chosen[chosen["step"] == chosen["step"].max()].set_index("candidate")["test_loss"]
            last = last[last <= top]  # what stays far above the others would squash them
            named = {last.idxmin(), last.idxmax()} if len(last) else set()
            for name, line in chosen.groupby("candidate", sort=False):
                line = line.sort_values("step")
                strong = name in named
                (drawn,) = ax.plot(
                    line["step"], line["test_loss"], color=TYPES[kind], linewidth=1.3 if strong else 0.7,
                    alpha=1 if strong else 0.5,
                )  # fmt: skip
                if strong:
                    lines[_short(str(name))] = drawn
            ax.plot(base["step"], base["test_loss"], color=INK, linewidth=1, linestyle="--")
            span = top - float(ends.min())
            ax.set_ylim(float(ends.min()) - 0.06 * span, top)
            ax.set_title(f"{tasks[task]}: {kind}", fontsize=7)
            if lines:
                label_lines(ax, lines)
    figure.supxlabel("step of continued training")
    figure.supylabel("test loss (nats)")
    return figure


def _short(name: str, width: int = 13) -> str:
    """A name in lines of about this many characters."""
    lines = [""]
    for word in name.split():
        joined = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], joined] if len(joined) <= width else [*lines, word]
    return "\n".join(line for line in lines if line)


def _scatter(ax: Axes, points: pd.DataFrame) -> None:
    for kind, color in TYPES.items():
        own = points[points["type"] == kind]
        if len(own):
            ax.plot(own["score"], own["gain"], linestyle="none", marker=MARKERS[kind], color=color, alpha=0.8)
    ax.axhline(0, color=RULE, linewidth=0.6, zorder=0)
    if np.ptp(points["score"]) == 0:
        ax.set_xlim(points["score"].iloc[0] - 1, points["score"].iloc[0] + 1)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _legend(figure: Figure, kinds: pd.Series) -> None:
    """The types that are there, with their marks, above the panels."""
    there = [kind for kind in TYPES if kind in set(kinds)]
    marks = [Line2D([], [], linestyle="none", marker=MARKERS[kind], color=TYPES[kind]) for kind in there]
    figure.legend(marks, there, loc="outside upper right", ncols=len(there), borderpad=0, handletextpad=0.2)
