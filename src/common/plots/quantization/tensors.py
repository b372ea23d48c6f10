"""What quantisers meet and do within a model: magnitudes, outliers, and errors by layer."""

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from common.analysis.quantization import BASELINE
from common.errors import UserError
from common.figures import COLUMN, PAGE, PALETTE, RULE, forest, label_lines, use_style
from common.plots.quantization.layout import ROW, Rows, grid, plain_log
from common.plots.quantization.settings import in_order, line_style, palette_of, wrapped

FAINTEST = 0.01  # share of a surface's values that are drawn in the least colour; some are nearly 0
DODGE, TIGHT = 0.4, 0.22  # lines of text between two settings of a layer, the second where layers are many
# Largest magnitudes that b bits round to 0, in decades below the maximum, if one scale is that of the whole tensor.
HALF_A_LEVEL = {bits: -np.log10(2 * (2 ** (bits - 1) - 1)) for bits in (4, 8)}


def surfaces(table: pd.DataFrame) -> Figure:
    """Magnitudes by token and channel, a panel for each model, in one logarithmic scale of colours.

    `table`: model, token, channel, magnitude (0 or more). Raises `UserError` where all magnitudes of all are 0.
    """
    positive = table.loc[table["magnitude"] > 0, "magnitude"]
    if positive.empty:
        raise UserError("all magnitudes are 0: no scale of colours is logarithmic")
    models = table["model"].unique()
    use_style()
    figure, axes = plt.subplots(1, len(models), figsize=(PAGE, 2.5), sharey=True, squeeze=False)
    norm = LogNorm(positive.quantile(FAINTEST), positive.max(), clip=True)
    for ax, model in zip(axes[0], models, strict=True):
        surface = table[table["model"] == model].pivot(index="token", columns="channel", values="magnitude")
        edges = (surface.columns[0] - 0.5, surface.columns[-1] + 0.5, surface.index[-1] + 0.5, surface.index[0] - 0.5)
        shown = np.maximum(surface.to_numpy(), norm.vmin)  # a 0 has no logarithm
        image = ax.imshow(shown, norm=norm, extent=edges, aspect="auto", cmap="viridis", rasterized=True)
        ax.set(title=model, xlabel="channel")
        ax.spines[:].set_visible(False)
    axes[0, 0].set_ylabel("token")
    figure.colorbar(image, ax=axes, label="magnitude", extend="min", pad=0.01, aspect=30)
    return figure


def outliers(table: pd.DataFrame, groups: Mapping[str, str]) -> Figure:
    """Perplexity against the scale of injected outliers, mean and range, in the panels that `panel` names.

    `table`: panel, setting, scale, low, high, mean. The baseline, if it is there, is drawn in every panel.
    """
    palette = palette_of(groups)
    settings = in_order(table, groups)
    others = table[table["setting"] != BASELINE]
    baseline = table[table["setting"] == BASELINE].drop_duplicates("scale")
    figure, axes = grid(others["panel"].unique(), height=1.8, sharey=True)
    scales = sorted(table["scale"].unique())
    lines = {panel: {} for panel in axes}
    for panel, ax in axes.items():
        drawn = pd.concat([baseline, others[others["panel"] == panel]])
        for setting in settings:
            rows = drawn[drawn["setting"] == setting].sort_values("scale")
            if rows.empty:
                continue
            style = line_style(setting, palette) | {"marker": "o", "markersize": 2.5}
            ax.fill_between(rows["scale"], rows["low"], rows["high"], color=palette[setting], alpha=0.2, linewidth=0)
            (lines[panel][wrapped(setting, 14)],) = ax.plot(rows["scale"], rows["mean"], **style)
        ax.set_xscale("log", base=2)
        ax.set_xticks(scales, [f"{scale:g}" for scale in scales])
        ax.minorticks_off()
    for panel, ax in axes.items():  # whose heights are shared, and settled by now
        plain_log(ax.yaxis)
        label_lines(ax, lines[panel])
    figure.supxlabel("scale of the outlier channels")
    figure.supylabel("perplexity")
    return figure


def layer_errors(table: pd.DataFrame, groups: Mapping[str, str], logarithmic: Collection[str] = ()) -> Figure:
    """Statistics of each layer, the first on top: a row of panels for each group, a column for each statistic.

    `table`: layer, setting (not the baseline), statistic (the axis' label), low, high, mean. `logarithmic`: statistics
    on a logarithmic axis, with a line at 1. Raises `UserError` where one of these is not above 0 or not in the table.
    """
    palette = palette_of(groups)
    settings = in_order(table, groups)
    statistics = list(table["statistic"].unique())
    for statistic in logarithmic:
        if statistic not in statistics or (table.loc[table["statistic"] == statistic, "low"] <= 0).any():
            raise UserError(f"{statistic!r} is not there, or 0 or below: it can't have a logarithmic axis")
    members = {groups[setting]: [s for s in settings if groups[s] == groups[setting]] for setting in settings}
    most = max(map(len, members.values()))
    layers = short_names(table["layer"].unique())
    dodge = DODGE if len(layers) <= 30 else TIGHT
    rows = Rows.of(layers, {layer: re.findall(r"\d+", layer)[:1] for layer in layers}, least=0.3 + dodge * most)
    size = (PAGE, 0.6 + (ROW * rows.depth + 0.2) * len(members))
    use_style()
    figure, axes = plt.subplots(len(members), len(statistics), figsize=size, sharex="col", sharey=True, squeeze=False)
    for panels, (group, own) in zip(axes, members.items(), strict=True):
        for ax, statistic in zip(panels, statistics, strict=True):
            for number, setting in enumerate(own):
                drawn = table[(table["setting"] == setting) & (table["statistic"] == statistic)]
                at = [rows.at[layer] + dodge * (number - (len(own) - 1) / 2) for layer in drawn["layer"]]
                numbers, colors = [drawn[column] for column in ("mean", "low", "high")], [palette[setting]] * len(at)
                line = 1 if statistic in logarithmic else None
                dots = forest(ax, list(drawn["layer"]), *numbers, colors=colors, rows=at, line=line)
                dots.set_label(wrapped(setting, 14))
            rows.finish(ax)
            ax.tick_params(labelbottom=True)
        panels[-1].legend(title=group, alignment="left", loc="upper left", bbox_to_anchor=(1, 1), handletextpad=0)
    for ax, statistic in zip(axes[-1], statistics, strict=True):
        if statistic in logarithmic:
            plain_log(ax.xaxis)
        ax.set_xlabel(textwrap.fill(statistic, 80 // len(statistics)))
    figure.supylabel("block and layer")
    return figure


def short_names(layers: Sequence[str]) -> dict[str, str]:
    """Names of layers from their block's number on, such as "0 attn.c_attn", as long as these differ."""
    short = {layer: re.sub(r"^\D*?(\d+)\.", r"\1 ", layer) for layer in layers}
    return short if len(set(short.values())) == len(short) else {layer: layer for layer in layers}


def magnitudes(table: pd.DataFrame) -> Figure:
    """Histograms of log10(|x| / max|x|), one below another; rules: where 4 and 8 bits begin to round to 0.

    `table`: component, low, high (edges in decades), share. The lowest bin holds all that lies below it too.
    """
    components = table["component"].unique()
    use_style()
    figure, axes = plt.subplots(
        len(components), 1, figsize=(COLUMN, 0.8 + 0.6 * len(components)), sharex=True, sharey=True, squeeze=False
    )
    for ax, component, color in zip(axes[:, 0], components, PALETTE, strict=False):
        rows = table[table["component"] == component].sort_values("low")
        edges = [*rows["low"], rows["high"].iloc[-1]]
        ax.stairs(100 * rows["share"], edges, fill=True, color=color, alpha=0.3)
        ax.stairs(100 * rows["share"], edges, color=color, linewidth=1.2)
        ax.text(0.02, 0.9, component, transform=ax.transAxes, va="top")
        for threshold in HALF_A_LEVEL.values():
            ax.axvline(threshold, color=RULE, linewidth=0.6, linestyle="--")
    for bits, threshold in HALF_A_LEVEL.items():
        place = {"xytext": (0, 1), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes[0, 0].annotate(
            f"{bits} bits", (threshold, 1), xycoords=axes[0, 0].get_xaxis_transform(), fontsize=7, **place
        )
    figure.supylabel("share of entries (%)")
    lowest = table["low"].min()
    decades = [lowest, *np.arange(np.floor(lowest) + 1, 1)]
    axes[-1, 0].set_xticks(decades, ["−∞", *(f"{decade:g}".replace("-", "−") for decade in decades[1:])])
    axes[-1, 0].set_xlabel(
        "$\\log_{10}(|x| / \\max|x|)$\nleft of a line, that many bits round to 0\n(with one scale a tensor)"
    )
    return figure
