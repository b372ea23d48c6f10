"""How runs went: learning rates tried, and loss along training."""

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from common.analysis.quantization import BASELINE
from common.errors import UserError
from common.figures import RULE, label_lines
from common.plots.quantization.layout import grid
from common.plots.quantization.settings import Palette, by_group, in_order, line_style, palette_of, wrapped

NAME_WIDTH = 14  # characters beside a panel
NOTE_WIDTH = 30  # characters within a panel, right of where a loss curve falls
NOTE_ALIGNMENT = {"horizontalalignment": "right", "multialignment": "left"}
NOTE_LINE = 0.14  # inches that a line of a note takes
END = 0.75  # share of the tokens at which the inset begins, or at the last point before it
EXTREME = 0.25  # share of the panel's range of losses; what ends further from the baseline may leave the inset
INSET_LEFT, INSET_FLOOR = 0.4, 0.46  # in shares of the panel
TICKS = 0.14  # share of the panel that ticks below an inset take


def learning_rates(table: pd.DataFrame, groups: Mapping[str, str]) -> Figure:
    """Mean pilot loss against learning rate, a panel for each group; a ring marks the chosen rate.

    `table`: setting, learning_rate, loss (NaN where all runs diverged), chosen (bool). A setting without any loss has
    no line but a note in its panel.
    """
    palette = palette_of(groups)
    drawn = table.dropna(subset="loss")
    panels = by_group(drawn, groups)
    lost = [setting for setting in in_order(table, groups) if setting not in set(drawn["setting"])]
    notes = {
        group: "\n".join(f"{setting}: diverged at every rate" for setting in lost if groups[setting] == group)
        for group in dict.fromkeys(groups[setting] for setting in lost)
    }
    figure, axes = grid(panels, height=1.75 + NOTE_LINE * _longest(notes))
    figure.supxlabel(r"peak learning rate ($\times 10^{-3}$)")
    figure.supylabel("validation loss (nats/token)")
    rates = sorted(table["learning_rate"].unique())
    for group, ax in axes.items():
        lines = {}
        for setting, rows in panels[group].items():
            rows = rows.sort_values("learning_rate")
            style = line_style(setting, palette)
            (lines[wrapped(setting, NAME_WIDTH)],) = ax.plot(rows["learning_rate"], rows["loss"], marker="o", **style)
            best = rows[rows["chosen"]]
            ax.scatter(best["learning_rate"], best["loss"], s=55, facecolors="none", edgecolors=palette[setting])
        ax.set_xscale("log")
        ax.set_xticks(rates, [f"{1000 * rate:g}" for rate in rates])
        ax.set_xlim(rates[0] / 1.2, rates[-1] * 1.2)
        ax.minorticks_off()
        ax.margins(y=0.1)  # room for the rings
        if group in notes:
            figure.draw_without_rendering()  # settles the layout, and with it the height of the axes
            low, high = ax.get_ylim()
            ax.set_ylim(low, low + (high - low) / _write(notes[group], ax))
        label_lines(ax, lines)
    return figure


def loss_curves(table: pd.DataFrame, groups: Mapping[str, str], text: str, notes: Mapping[str, str]) -> Figure:
    """Validation loss on `text` against tokens, mean and range, a panel for each group; insets enlarge the end.

    `table`: setting, tokens, low, high, mean. `notes`, by group, stand in its panel: what has no curve, and why.
    An inset holds whole lines, but for those that end further from the baseline than a quarter of the panel's range:
    they would squash the others, and the panel itself tells them apart.
    """
    palette = palette_of(groups)
    if strangers := sorted(notes.keys() - set(groups.values())):
        raise UserError(f"notes on groups that have no panel: {', '.join(strangers)}")
    panels = by_group(table.sort_values("tokens"), groups)
    figure, axes = grid(panels, height=1.9 + NOTE_LINE * _longest(notes))
    tokens = np.unique(table["tokens"])
    if len(tokens) < 2:
        raise UserError("loss curves of one point each have no line; log a loss more often")
    first, last = tokens[0], tokens[-1]
    end = tokens[tokens <= max(END * last, first)][-1]
    for group, ax in axes.items():
        rows = pd.concat(panels[group].values())
        low, high = rows["low"].min(), rows["high"].max()
        beside = first + (INSET_LEFT - 0.1) * (last - first)  # where the inset and its ticks begin
        above = max(np.interp(beside, own["tokens"], own["high"]) for own in panels[group].values())
        above = max(above, rows[rows["tokens"] >= beside]["high"].max())
        lines = _curves(ax, panels[group], palette)
        ax.set_ylim(low - 0.03 * (high - low), max(high, low + (above - low) / (INSET_FLOOR - TICKS)))
        ax.xaxis.set_major_formatter(FuncFormatter(_short))
        label_lines(ax, lines)
        top = _write(notes[group], ax) if group in notes else 0.98
        inset = ax.inset_axes((INSET_LEFT, INSET_FLOOR, 1 - INSET_LEFT, top - INSET_FLOOR))
        _enlarge(inset, panels[group], palette, end, last, alike=EXTREME * (high - low))
        ax.indicate_inset(inset.viewLim.bounds, edgecolor=RULE, linewidth=0.6)
    figure.supxlabel("training tokens")
    figure.supylabel(f"validation loss, {text} (nats/token)")
    return figure


def _write(note: str, ax: Axes) -> float:
    """Write a note in the upper right of the panel; returns where it ends, as a share of the panel's height."""
    text = ax.text(1, 1, _lines(note), transform=ax.transAxes, va="top", fontsize=7, **NOTE_ALIGNMENT)
    return ax.transAxes.inverted().transform(text.get_window_extent())[0, 1] - 0.04


def _lines(note: str) -> str:
    return "\n".join(textwrap.fill(line, NOTE_WIDTH) for line in note.splitlines())


def _longest(notes: Mapping[str, str]) -> int:
    """Lines of text that the longest note takes."""
    return max((1 + _lines(note).count("\n") for note in notes.values()), default=0)


def _curves(ax: Axes, panel: Mapping[str, pd.DataFrame], palette: Palette) -> dict[str, Line2D]:
    lines = {}
    for setting, rows in panel.items():
        ax.fill_between(rows["tokens"], rows["low"], rows["high"], color=palette[setting], alpha=0.2, linewidth=0)
        name = wrapped(setting, NAME_WIDTH)
        (lines[name],) = ax.plot(rows["tokens"], rows["mean"], **line_style(setting, palette))
    return lines


def _enlarge(
    inset: Axes, panel: Mapping[str, pd.DataFrame], palette: Palette, first: float, last: float, alike: float
) -> None:
    """Draw the curves between `first` and `last` tokens, as high as those that end within `alike` of the baseline."""
    _curves(inset, panel, palette)
    ends = {setting: rows[rows["tokens"] >= first] for setting, rows in panel.items()}
    final = {setting: rows["mean"].iloc[-1] for setting, rows in ends.items()}
    near = [rows for setting, rows in ends.items() if abs(final[setting] - final[BASELINE]) <= alike]
    seen = pd.concat(near if len(near) > 1 else ends.values())
    low, high = seen["low"].min(), seen["high"].max()
    inset.set(xlim=(first, last), ylim=(low - 0.05 * (high - low), high + 0.05 * (high - low)))
    inset.spines[:].set(visible=True, color=RULE)
    inset.xaxis.set_major_locator(MaxNLocator(2))
    inset.xaxis.set_major_formatter(FuncFormatter(_short))
    inset.yaxis.set_major_locator(MaxNLocator(3))
    inset.tick_params(length=2, pad=1.5)


def _short(tokens: float, position: int) -> str:
    """A number of tokens as it is spoken of: 50k, 1M, 2.5B."""
    return EngFormatter(sep="")(tokens).replace("G", "B")
