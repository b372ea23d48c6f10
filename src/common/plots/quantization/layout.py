"""Where things go on the page: panels, rows of labels, and ticks."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10
from typing import Self

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from common.figures import COLUMN, PAGE, use_style

ROW = 0.165  # inches that a line of text takes, with the room to the next


def grid(titles: Iterable[str], height: float, sharey: bool = False) -> tuple[Figure, dict[str, Axes]]:
    """A panel of this `height` (inches) for each title, two side by side, by title."""
    titles = list(titles)
    columns = min(2, len(titles))
    lines = -(-len(titles) // columns)
    use_style()
    figure, axes = plt.subplots(
        lines, columns, figsize=(PAGE if columns > 1 else COLUMN * 1.2, height * lines), sharey=sharey, squeeze=False
    )
    for ax in axes.flat[len(titles) :]:
        ax.remove()
    panels = dict(zip(titles, axes.flat, strict=False))
    for title, ax in panels.items():
        ax.set_title(title)
        ax.tick_params(labelleft=True)
    return figure, panels


@dataclass(frozen=True)
class Rows:
    """Labelled rows from the top down, with a rule between groups. Heights are in lines of text."""

    labels: dict[str, str]
    at: dict[str, float]
    rules: list[float]
    depth: float

    @classmethod
    def of(cls, labels: Mapping[str, str], groups: Mapping[str, Hashable], least: float = 1) -> Self:
        """A row for each of `labels` (text by key), as high as its lines or `least`; `groups`: a group by key."""
        at, rules, depth = {}, [], 0.0
        for before, key in pairwise((None, *labels)):
            if before is not None and groups.get(before) != groups.get(key):
                rules.append(depth + 0.25)
                depth += 0.5
            height = max(least, 0.85 * (1 + labels[key].count("\n")))
            at[key] = depth + height / 2
            depth += height
        return cls(dict(labels), at, rules, depth)

    def finish(self, ax: Axes) -> None:
        """Label the rows of `ax`. Call it when all is drawn."""
        ax.set_yticks(list(self.at.values()), list(self.labels.values()))
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(self.depth, 0)
        for rule in self.rules:
            ax.axhline(rule, color="#DDDDDD", linewidth=0.5, zorder=0)


def plain_log(axis: Axis) -> None:
    """A logarithmic axis with ticks written out, as few as tell its range. Call it when all is drawn."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(ticks) >= 3:
            break
    axis.set_major_locator(FixedLocator(ticks) if len(ticks) >= 3 else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())
