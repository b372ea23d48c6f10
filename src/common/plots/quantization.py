"""Figures of the quantisation study."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from common.errors import UserError
from common.figures import COLUMN, PAGE, PALETTE, forest, label_lines, use_style

Palette = dict[str, str]


def palette_of(settings: Sequence[str]) -> Palette:
    """A colour for each setting of the study, for all of its figures. Raises `UserError` where colours run out."""
    if len(settings) > len(PALETTE):
        raise UserError(f"{len(settings)} settings, {len(PALETTE)} colours: spread them over panels")
    return dict(zip(settings, PALETTE, strict=False))


def learning_rates(table: pd.DataFrame, palette: Palette) -> Figure:
    """Mean pilot loss against learning rate; a ring marks the chosen one. `table`: see `choose_learning_rates`."""
    use_style()
    figure, ax = plt.subplots(figsize=(COLUMN, 2.6))
    drawn = table.dropna(subset="loss")
    for setting, rows in drawn.groupby("setting", sort=False):
        rows = rows.sort_values("learning_rate")
        ax.plot(rows["learning_rate"], rows["loss"], marker="o", color=palette[setting], label=setting)
        best = rows[rows["chosen"]]
        ax.scatter(best["learning_rate"], best["loss"], s=60, facecolors="none", edgecolors=palette[setting])
    rates = sorted(drawn["learning_rate"].unique())
    ax.set(xscale="log", xlabel="peak learning rate", ylabel="validation loss (nats/token)")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    label_lines(ax)
    return figure


def loss_curves(table: pd.DataFrame, palette: Palette, text: str, note: str) -> Figure:
    """Validation loss against tokens, mean and range over seeds. `table`: see `curve_table`; `note` stands inside."""
    use_style()
    figure, ax = plt.subplots(figsize=(PAGE * 0.7, 3.0))
    for setting, rows in table.groupby("setting", sort=False):
        tokens = rows["tokens"] / 1000
        ax.fill_between(tokens, rows["low"], rows["high"], color=palette[setting], alpha=0.2, linewidth=0)
        ax.plot(tokens, rows["mean"], color=palette[setting], label=setting)
    ax.set(xlabel="training tokens (thousands)", ylabel=f"validation loss, {text} (nats/token)")
    ax.text(0.98, 0.97, note, transform=ax.transAxes, ha="right", va="top", fontsize=7)
    label_lines(ax)
    return figure


def final_differences(table: pd.DataFrame, palette: Palette, margin: float) -> Figure:
    """Final loss minus the baseline's, 95% intervals over seeds, one panel for each text; shaded: within the margin.

    `table`: see `difference_table`.
    """
    use_style()
    texts = table["text"].unique()
    figure, axes = plt.subplots(1, len(texts), figsize=(PAGE, 2.0), sharex=True, sharey=True, squeeze=False)
    for ax, text in zip(axes[0], texts, strict=True):
        rows = table[table["text"] == text]
        arms = rows["setting"].tolist()
        shades = [palette[arm] for arm in arms]
        forest(ax, arms, rows["estimate"], rows["low"], rows["high"], band=(-margin, margin), colors=shades)
        ax.set(title=text, xlabel="validation loss − baseline (nats/token)")
    return figure
