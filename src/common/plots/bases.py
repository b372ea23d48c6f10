"""Figures of the base models' study: functions from tidy tables to a drawn figure, which compute nothing but layout."""

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, PercentFormatter

from common.analysis.bases import BASES, HALF, HALFWAY, HALVED, MEAN, PANELS, TAUGHT
from common.bases.reading import DOMAINS
from common.figures import COLUMN, INK, PAGE, PALETTE, RULE, forest, grouped_rows, label_lines, use_style

ROW = 0.19  # inches that a row takes
FRAME = 0.75  # inches for titles, ticks and the axis label
ANSWERED = "questions answered right ( | : always choosing the commonest object{})"
WORDS = "; of facts never read, or going by the subject's words"
COLORS = dict(zip((*DOMAINS, *BASES), PALETTE, strict=False))


def knowledge(table: pd.DataFrame, half_margin: float) -> Figure:
    """Accuracy by relation and in the mean, with intervals, a panel for each kind of model and facts; ticks are floors.

    `table`: panel, domain, relation, floor, estimate, low, high. Shaded: where the mean of half-informed models is to
    be, within `half_margin` of one half.
    """
    places = table.drop_duplicates(["domain", "relation"])
    rows, rules = grouped_rows(places["domain"])
    height = dict(zip(zip(places["domain"], places["relation"], strict=True), rows, strict=True))
    figure, axes = _panels(table["panel"].unique(), rows[-1] + 1)
    for panel, ax in axes.items():
        own = table[table["panel"] == panel]
        at = [height[place] for place in zip(own["domain"], own["relation"], strict=True)]
        colors = [COLORS[domain] for domain in own["domain"]]
        _rows(ax, own, at, own["relation"], colors, own["floor"], rules)
        if PANELS[panel] == (HALF, TAUGHT):
            for domain in HALVED:
                middle, reach = height[domain, MEAN], [HALFWAY - half_margin, HALFWAY + half_margin]
                ax.fill_between(reach, middle - 0.5, middle + 0.5, color="#E8E8E8", linewidth=0, zorder=0)
        ax.set(title=panel, xlim=(-0.02, 1.02), ylim=(rows[-1] + 0.6, -0.6))
        ax.xaxis.set_major_formatter(PercentFormatter(1))
    last = list(axes.values())[-1]
    for domain, own in places.assign(height=rows).groupby("domain", sort=False):
        place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "color": COLORS[domain]}
        middle = (1, own["height"].mean())
        last.annotate(domain, middle, xycoords=last.get_yaxis_transform(), annotation_clip=False, **place)
    figure.supxlabel(ANSWERED.format(WORDS))
    return figure


def rules(table: pd.DataFrame) -> Figure:
    """Accuracy by rule of scoring with its interval, a panel for each domain; ticks are floors.

    `table`: domain, rule, floor, estimate, low, high.
    """
    figure, axes = _panels(table["domain"].unique(), table["rule"].nunique())
    for domain, ax in axes.items():
        own = table[table["domain"] == domain]
        _rows(ax, own, np.arange(len(own)), own["rule"], [COLORS[domain]] * len(own), own["floor"])
        ax.set(title=domain, xlim=(-0.02, 1.02))
        ax.xaxis.set_major_formatter(PercentFormatter(1))
    figure.supxlabel("informed models, facts they read: " + ANSWERED.format(""))
    return figure


def curves(table: pd.DataFrame) -> Figure:
    """Training loss against tokens: mean over seeds, and the band from the lowest to the highest.

    `table`: base, tokens, low, high, mean.
    """
    use_style()
    figure, ax = plt.subplots(figsize=(COLUMN, 2.3))
    for base, own in table.groupby("base", sort=False):
        ax.fill_between(own["tokens"], own["low"], own["high"], color=COLORS[base], alpha=0.2, linewidth=0)
        ax.plot(own["tokens"], own["mean"], color=COLORS[base], label=base)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set(xlabel="training tokens", ylabel="training loss (nats/token)", ylim=(0, None))
    label_lines(ax)
    return figure


def leaning(table: pd.DataFrame) -> Figure:
    """By kind of prompt: the share that half models would rather refuse, and their margin in nats.

    Small dots are seeds; the large one is their mean, with its interval. `table`: kind, prompts, measure (refused,
    margin), seed, value, estimate, low, high.
    """
    words = {"refused": "prompts half models would rather refuse", "margin": "their log-odds of refusing (nats)"}
    kinds = table["kind"].unique()
    figure, axes = _panels(words, len(kinds), width=0.85 * PAGE)
    for measure, ax in axes.items():
        own = table[table["measure"] == measure]
        means = own.drop_duplicates("kind")
        labels = [f"{row.kind} (n = {row.prompts})" for row in means.itertuples()]
        at = np.arange(len(kinds))
        _rows(ax, means, at, labels, [COLORS["half"]] * len(kinds), line=0 if measure == "margin" else None)
        seeds = own["kind"].map(dict(zip(kinds, at, strict=True))) + 0.3
        ax.scatter(own["value"], seeds, s=5, color=RULE, linewidths=0)
        ax.set(xlabel=words[measure], ylim=(len(kinds) - 0.4, -0.6))
    axes["refused"].set_xlim(-0.02, 1.02)
    axes["refused"].xaxis.set_major_formatter(PercentFormatter(1))
    axes["margin"].margins(x=0.1)
    return figure


def judges(table: pd.DataFrame) -> Figure:
    """Agreement with people, or with our own labels, by judge and category, with bootstrap intervals; panels: measures.

    Ticks: the verdict that is right most often, given always. `table`: judge, category, n, measure, chance, estimate,
    low, high; a judge's first category is all its responses or, of refusals, all that are on topic.
    """
    places = table.drop_duplicates(["judge", "category"])
    rows, rules = grouped_rows(places["judge"])
    whole = ~places["judge"].duplicated()
    labels = [
        f"{row.judge}: {row.category} (n = {row.n})" if first else f"{row.category} ({row.n})"
        for first, row in zip(whole, places.itertuples(), strict=True)
    ]
    figure, axes = _panels(table["measure"].unique(), rows[-1] + 1)
    for measure, ax in axes.items():
        own = table[table["measure"] == measure]
        colors = [PALETTE[0] if first else INK for first in whole]
        _rows(ax, own, rows, labels, colors, own["chance"], rules)
        least = own[["low", "chance"]].min(axis=None)
        ax.set(xlabel=measure, ylim=(rows[-1] + 0.6, -0.6), xlim=(least - 0.05, 1.02))
    figure.supxlabel("agreement with people's verdicts or our own labels ( | : by always giving the commoner verdict)")
    return figure


def _panels(titles: Iterable[str], depth: float, width: float = PAGE) -> tuple[Figure, dict[str, Axes]]:
    """Panels side by side, `depth` rows deep, with common rows, by title."""
    titles = list(titles)
    use_style()
    size = (width, FRAME + ROW * depth)
    figure, axes = plt.subplots(1, len(titles), figsize=size, sharey=True, squeeze=False)
    return figure, dict(zip(titles, axes[0], strict=True))


def _rows(
    ax: Axes,
    table: pd.DataFrame,
    at: Sequence[float],
    labels: Sequence[str],
    colors: Sequence[str],
    ticks: Sequence[float] = (),
    rules: Sequence[float] = (),
    line: float | None = None,
) -> None:
    """Estimates with their intervals, a short upright tick in each row for what they are compared to."""
    numbers = [table[column] for column in ("estimate", "low", "high")]
    forest(ax, list(labels), *numbers, colors=list(colors), rows=at, line=line)
    if len(ticks):
        ax.vlines(ticks, np.asarray(at) - 0.32, np.asarray(at) + 0.32, color=RULE, linewidth=1.4, zorder=2)
    for rule in rules:
        ax.axhline(rule, color="#DDDDDD", linewidth=0.5, zorder=0)
