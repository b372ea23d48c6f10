"""Figures of the alignment study: what the table says is what is drawn, and can be read."""

import itertools
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest

from alignment_runs import QUANTISED, made_runs
from common.analysis import alignment as analysis
from common.errors import UserError
from common.figures import save_figure
from common.plots import alignment as plots
from common.plots.alignment.layout import COLORS, LEVELS, over_seeds, words

RUNS = made_runs(noise=0.05)
WAYS = ["dataset", "method"]
TABLES = {
    "datasets": lambda: analysis.compared(RUNS, "dataset"),
    "methods": lambda: analysis.compared(RUNS, "method"),
    "adapters": lambda: analysis.adapters(RUNS, QUANTISED),
    "mixtures": lambda: analysis.mixtures(RUNS, ["declined", "win_rate", "nontoxic", "knowledge"]),
    "fidelity": lambda: analysis.fidelities(RUNS),
    "merges": lambda: analysis.merges(RUNS, ["balanced", "declined", "win_rate", "nontoxic"]),
    "sizes": lambda: analysis.sizes(RUNS, ["score", "knowledge"]),
    "of_largest": lambda: analysis.of_largest(RUNS, ["score", "knowledge"]),
    "ranks": lambda: analysis.varied(RUNS, "ranks", ["method", "rank"], ["score", "kl_reply"]),
    "selection": lambda: analysis.selections(RUNS, ["score", "kl_reply"]),
    "frontier": lambda: analysis.frontier(RUNS),
}
DRAWN = {
    "datasets": lambda t: plots.contrast(t, ["start", "method"], "dataset"),
    "adapters": lambda t: plots.contrast(t, ["start", "method"], "adapter"),
    "mixtures": lambda t: plots.contrast(t, ["start", "method"], "aim"),
    "fidelity": lambda t: plots.contrast(t, ["start"], "method", even=0),
    "merges": plots.merges,
    "sizes": lambda t: plots.curves(t, "pairs", WAYS, fits()),
    "of_largest": lambda t: plots.curves(t, "pairs", WAYS, largest=True),
    "ranks": lambda t: plots.curves(t, "rank", ["method"]),
    "selection": lambda t: plots.rows(t, "selection"),
    "frontier": plots.frontier,
}


@cache
def made(name):
    return TABLES[name]()


@cache
def fits():
    sized = analysis.part(analysis.scored(RUNS), "sizes", [*WAYS, "pairs"], ["score", "knowledge"])
    return analysis.plateau_table(sized, WAYS, ["score", "knowledge"])[0]


@cache
def drawn(name):
    """The figure, which tests share as drawing takes long."""
    return DRAWN[name](made(name))


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", DRAWN)
def test_figures_are_saved_and_no_text_lies_on_another(name, tmp_path, texts):
    save_figure(drawn(name), tmp_path, name, made(name))
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".svg", ".png"}
    last = len(texts) // 2  # drawn for the SVG's layout and for the PNG; the latter half is the picture
    for (first, one), (second, other) in itertools.combinations(texts[last:], 2):
        if first.strip() and second.strip() and (first, one.x0, one.y0) != (second, other.x0, other.y0):
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            up = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert across < 1.5 or up < 1.5, (first, second)


def dots(ax):
    return np.concatenate([np.asarray(drawn.get_offsets()) for drawn in ax.collections if len(drawn.get_offsets()) > 1])


def test_a_contrast_draws_each_estimate_in_its_levels_colour():
    table = made("methods")
    axes = plots.contrast(table, ["start", "dataset"], "method").axes
    for ax, measure in zip(axes, table["measure"].unique(), strict=True):
        own = table[table["measure"] == measure]
        assert sorted(dots(ax)[:, 0]) == pytest.approx(sorted(own["estimate"]))
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == [
        "base, hh-like (noisy)", "base, beavertails-like (clean)", "instruct, hh-like (noisy)",
        "instruct, beavertails-like (clean)",
    ]  # fmt: skip
    # Each estimate stands in the row that names its cell, SFT above DPO.
    heights = dict(zip(names, axes[0].get_yticks(), strict=True))
    for row in table[table["measure"] == "knowledge"].itertuples():
        _, y = min(dots(axes[0]), key=lambda dot: abs(dot[0] - row.estimate))
        aside = y - heights[f"{words(row.start)}, {words(row.dataset)}"]
        assert abs(aside) < 0.5
        assert (aside < 0) == (row.method == "sft")


def test_a_merge_stands_in_the_row_that_names_it():
    table = made("merges")
    ax = drawn("merges").axes[0]
    names = dict(zip((label.get_text() for label in ax.get_yticklabels()), ax.get_yticks(), strict=True))
    assert len(names) == 4 * 8 + 2
    own = table[table["measure"] == "balanced"]
    for row in own.itertuples():
        _, y = min(dots(ax), key=lambda dot: abs(dot[0] - row.estimate))
        arm = "dare_half" if row.method == "sft+dpo" else row.arm  # four halves
        assert y == names[f"{words(arm)} ({words(row.start)}, {words(row.method)})"]


def test_curves_draw_the_fit_where_there_is_one_and_join_dots_where_not():
    axes = drawn("sizes").axes
    smooth = [[line for line in ax.lines if len(line.get_xdata()) == 100] for ax in axes]
    assert [len(lines) for lines in smooth] == [4, 0]
    fit = fits()["hh-like", "sft", "score"]
    assert any(np.allclose(line.get_ydata(), fit.at(line.get_xdata())) for line in smooth[0])
    labels = {text.get_text() for text in axes[1].texts}
    assert labels == {
        f"{words(data)}, {words(method)}" for data in ("hh-like", "beavertails-like") for method in ("sft", "dpo")
    }


def test_an_axis_of_shares_ends_at_all_and_its_bars_are_explained():
    table = made("sizes")
    wide = plots.curves(table.assign(low=table["estimate"] - 2, high=table["estimate"] + 2), "pairs", WAYS)
    assert [ax.get_ylim() for ax in wide.axes] == [(-0.02, 1.02)] * 2
    assert "95% intervals over 3 seeds" in wide.get_supxlabel()
    apart = made("ranks").assign(low=-2.0, high=9.0)
    free = dict(zip(apart["measure"].unique(), plots.curves(apart, "rank", ["method"]).axes, strict=True))
    assert free["kl_reply"].get_ylim()[1] > 9  # no share
    assert over_seeds(table.assign(n=[3] * (len(table) - 1) + [5])) == "bars: 95% intervals over 3 to 5 seeds"


def test_each_point_of_the_frontier_has_its_strength_beside_it():
    table = made("frontier")[lambda own: own["loss_type"] != "untuned"]
    ax = drawn("frontier").axes[0]
    labels = {text.xy: text.get_text() for text in ax.texts if text.get_text() not in set(table["loss_type"])}
    assert labels == {(row.kl, row.reward): f"{row.beta:g}" for row in table.itertuples()}


def test_every_colour_is_of_a_level_that_has_words():
    assert COLORS.keys() <= LEVELS.keys()
    with pytest.raises(UserError, match="no words for the level 'lion'"):
        words("lion")
    with pytest.raises(UserError, match="no words for the measure 'lion'"):
        plots.rows(made("selection").assign(measure="lion").drop_duplicates("selection"), "selection")
