"""Figures of the merging study: functions from tidy tables to a drawn figure, which compute nothing but layout."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from common.figures import INK, PAGE, PALETTE, RULE, forest, grouped_rows, label_lines, use_style

ROW, FRAME = 0.19, 0.85  # inches that a row takes, and that titles, ticks and the axis label take
KEPT = {"gain_kept": "expert's gain kept", "safety_kept": "generalist's safety kept"}
COLUMNS = {
    "gain_kept": "gain kept\n(choices)",
    "exact_kept": "gain kept\n(exact match)",
    "safety_kept": "safety kept",
    "refused_hard": "false refusals\n(look unsafe)",
    "refused_plain": "false refusals\n(plain)",
    "attacked": "attacks that\nsucceed",
}
THRESHOLDS = {"gain_kept": 0.9, "safety_kept": 0.8}
GROUPS = ("parents", "merges", "training")
COLORS = dict(zip(GROUPS, (INK, PALETTE[0], PALETTE[1]), strict=True))
PAIRED = dict(zip(("medicine", "finance"), (PALETTE[0], PALETTE[1]), strict=True))
SIMILARITY = {
    "cosine": "cosine",
    "equal_signs": "equal signs",
    "angle": "principal\nangle (°)",
    "cka": "CKA of\nactivations",
    "expert_norm": "expert's\nnorm",
    "generalist_norm": "generalist's\nnorm",
}
NEUTRAL = {"cosine": 0.0, "equal_signs": 0.5, "angle": 90.0, "cka": 1.0, "expert_norm": 0.0, "generalist_norm": 0.0}
LOST = {"accuracy_lost": "accuracy lost", "margin_lost": "log-odds of refusing lost (nats)"}


def plane(table: pd.DataFrame, chosen: Mapping[str, float]) -> Figure:
    """What MergeAlign keeps by its two coefficients: a panel for the gain, one for the safety; framed: the chosen pair.

    `table`: a, b, gain_kept, safety_kept.
    """
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.5), sharey=True)
    for ax, measure in zip(axes, ("gain_kept", "safety_kept"), strict=True):
        wide = table.pivot(index="b", columns="a", values=measure)
        ax.imshow(wide, origin="lower", cmap="viridis", vmin=0, vmax=1, aspect="auto")
        for (row, b), (column, a) in ((r, c) for r in enumerate(wide.index) for c in enumerate(wide.columns)):
            value = wide.loc[b, a]
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
            if {"a": a, "b": b} == dict(chosen):
                ax.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="red", linewidth=2))
        ax.set_xticks(range(len(wide.columns)), [f"{a:g}" for a in wide.columns])
        ax.set_yticks(range(len(wide.index)), [f"{b:g}" for b in wide.index])
        ax.set(title=KEPT[measure], xlabel="a, weight of the domain vector")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel("b, weight of the\nalignment vector")
    return figure


def arms(table: pd.DataFrame) -> Figure:
    """What each model keeps and how it behaves: a row an arm, a panel a measure, with intervals over seeds.

    `table`: group (parents, merges, training), arm, measure, estimate, low, high. Dashed: what the paper's claim asks.
    """
    names = table[["group", "arm"]].drop_duplicates()
    heights, rules = grouped_rows(names["group"].tolist())
    height = dict(zip(names["arm"], heights, strict=True))
    use_style()
    figure, axes = plt.subplots(1, len(COLUMNS), figsize=(PAGE, FRAME + ROW * heights[-1]), sharey=True)
    for ax, (measure, words) in zip(axes, COLUMNS.items(), strict=True):
        own = table[table["measure"] == measure]
        at = [height[arm] for arm in own["arm"]]
        numbers = [own[column] for column in ("estimate", "low", "high")]
        colors = [COLORS[group] for group in own["group"]]
        forest(ax, list(own["arm"]), *numbers, colors=colors, rows=at, line=None)
        if measure in THRESHOLDS:
            ax.axvline(THRESHOLDS[measure], color=RULE, linewidth=0.8, linestyle="--", zorder=0)
        for rule in rules:
            ax.axhline(rule, color="#DDDDDD", linewidth=0.5, zorder=0)
        ax.set_xlabel(words)
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.set_ylim(heights[-1] + 0.6, -0.6)
    return figure


def frontier(table: pd.DataFrame) -> Figure:
    """Safety against accuracy, a dot with intervals an arm, named at the right; colours by group.

    Dashed, the expert's accuracy and the generalist's safety: nothing is lost where they meet.

    `table`: as of `arms`, with the measures accuracy and safety.
    """
    use_style()
    wide = {m: table[table["measure"] == m].set_index("arm") for m in ("accuracy", "safety")}
    figure, ax = plt.subplots(figsize=(0.8 * PAGE, 3.4))
    lines = {}
    for arm, row in wide["accuracy"].iterrows():
        other, color = wide["safety"].loc[arm], COLORS[row["group"]]
        ax.plot([row["low"], row["high"]], [other["estimate"]] * 2, color=color, linewidth=0.8)
        ax.plot([row["estimate"]] * 2, [other["low"], other["high"]], color=color, linewidth=0.8)
        [lines[arm]] = ax.plot(row["estimate"], other["estimate"], "o", color=color, markersize=4)
    ax.axvline(wide["accuracy"].loc["expert", "estimate"], color=RULE, linewidth=0.6, linestyle="--", zorder=0)
    ax.axhline(wide["safety"].loc["generalist", "estimate"], color=RULE, linewidth=0.6, linestyle="--", zorder=0)
    ax.set(xlabel="accuracy in the expert's domain", ylabel="unsafe prompts declined")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    label_lines(ax, lines)
    return figure


def ablations(table: pd.DataFrame) -> Figure:
    """What MergeAlign keeps when one thing about the models changes: a row a family, with intervals over seeds.

    `table`: family, measure (gain_kept, safety_kept), n, estimate, low, high.
    """
    labels = [f"{row.family} (n = {row.n})" for row in table.drop_duplicates("family").itertuples()]
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, FRAME + ROW * len(labels)), sharey=True)
    for ax, measure in zip(axes, THRESHOLDS, strict=True):
        own = table[table["measure"] == measure]
        forest(ax, labels, *[own[column] for column in ("estimate", "low", "high")], line=None)
        ax.axvline(THRESHOLDS[measure], color=RULE, linewidth=0.8, linestyle="--", zorder=0)
        ax.set_xlabel(KEPT[measure])
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def similarity(table: pd.DataFrame, parts: Sequence[str]) -> Figure:
    """How alike the two task vectors are, by part of the model and domain.

    `table`: domain, part, measure, estimate, low, high. The rule: perpendicular vectors, signs and subspaces; for CKA,
    of models and not of vectors, equal activations; no change.
    """
    return _by_part(table, parts, SIMILARITY, "domain", PAIRED, NEUTRAL)


def contributions(table: pd.DataFrame, parts: Sequence[str]) -> Figure:
    """What the merge loses when a vector is left out of a part of the model.

    `table`: vector (expert, generalist), part, measure (accuracy_lost, margin_lost), estimate, low, high.
    """
    colors = {"expert": PALETTE[0], "generalist": PALETTE[1]}
    return _by_part(table, parts, LOST, "vector", colors, dict.fromkeys(LOST, 0.0), "vector left out")


def paths(table: pd.DataFrame) -> Figure:
    """Losses along the straight ways between the models, a panel each; bands reach over seeds and domains.

    `table`: path, loss_of (answers, refusals), place, low, mean, high.
    """
    use_style()
    names = table["path"].unique()
    figure, axes = plt.subplots(1, len(names), figsize=(PAGE, 2.2), sharey=True)
    colors = {"answers": PALETTE[0], "refusals": PALETTE[1]}
    for ax, path in zip(axes, names, strict=True):
        for of, own in table[table["path"] == path].groupby("loss_of", sort=False):
            ax.fill_between(own["place"], own["low"], own["high"], color=colors[of], alpha=0.2, linewidth=0)
            ax.plot(own["place"], own["mean"], color=colors[of], label=of)
        ax.set(title=path, xlim=(0, 1))
    axes[0].set_ylabel("loss (nats/token)")
    figure.supxlabel(
        "share of the straight path from the first model to the second", fontsize=plt.rcParams["axes.labelsize"]
    )
    label_lines(axes[-1])
    return figure


def cost(table: pd.DataFrame) -> Figure:
    """What is kept, mean of gain and safety, beside the tokens that making one more expert safe takes: a row an arm.

    `table`: group, arm, tokens, estimate, low, high.
    """
    heights, rules = grouped_rows(table["group"].tolist())
    use_style()
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, FRAME + ROW * heights[-1]), sharey=True)
    colors = [COLORS[group] for group in table["group"]]
    numbers = [table[column] for column in ("estimate", "low", "high")]
    forest(axes[0], list(table["arm"]), *numbers, colors=colors, rows=heights, line=None)
    axes[0].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[1].barh(heights, table["tokens"], height=0.5, color=colors)
    for ax in axes:
        for rule in rules:
            ax.axhline(rule, color="#DDDDDD", linewidth=0.5, zorder=0)
    axes[0].set(xlabel="mean of gain and safety kept", ylim=(heights[-1] + 0.6, -0.6))
    axes[1].set_xlabel("tokens trained on for one more expert (thousands)")
    return figure


def _by_part(
    table: pd.DataFrame,
    parts: Sequence[str],
    measures: Mapping[str, str],
    by: str,
    colors: Mapping[str, str],
    rules: Mapping[str, float],
    title: str = "",
) -> Figure:
    use_style()
    figure, axes = plt.subplots(1, len(measures), figsize=(PAGE, FRAME + 1.5 * ROW * len(parts)), sharey=True)
    offsets = dict(zip(colors, (-0.15, 0.15), strict=True))
    for ax, (measure, words) in zip(axes, measures.items(), strict=True):
        own = table[table["measure"] == measure]
        rows = [parts.index(row.part) + offsets[getattr(row, by)] for row in own.itertuples()]
        shades = [colors[name] for name in own[by]]
        numbers = [own[column] for column in ("estimate", "low", "high")]
        forest(ax, [""] * len(own), *numbers, colors=shades, rows=rows, line=rules[measure])
        ax.set_yticks(np.arange(len(parts)), parts)
        ax.set(xlabel=words, ylim=(len(parts) - 0.5, -0.5))
    for name, color in colors.items():
        axes[-1].plot([], [], "o", color=color, markersize=4, label=name)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, title=title)
    return figure
