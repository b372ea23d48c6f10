"""Figures of the expansion study: what the table says is what is drawn, and can be read."""

import itertools
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from common.analysis import expansion as analysis
from common.errors import UserError
from common.figures import save_figure
from common.plots import expansion as plots
from common.plots.expansion.candidates import TYPES
from test_expansion_analysis import candidates, scored, short_runs, walks_of

TOLD = scored(0.02)
RUNS = candidates(0.02)
COST = pd.DataFrame(
    [
        {"key": key, "predictor": name, "steps": 3.0**place}
        for key in RUNS["key"]
        for place, name in enumerate(analysis.PREDICTORS)
    ]
)
CURVE = pd.DataFrame(
    [
        {"key": row.key, "step": step, "test_loss": row.test_loss + 0.5 / (1 + step)}
        for row in RUNS.itertuples()
        for step in range(0, 60, 10)
    ]
)
PLANE = [
    {"candidate": name, "minimum": 0, "x": x / 4, "y": y / 4, "loss": 0.1 + (x - 2) ** 2 + (y - 2) ** 2}
    for name in ("none", "c1")
    for x in range(5)
    for y in range(5)
]
MINIMA = [
    {"candidate": name, "minimum": number, "x": x, "y": y, "loss": 0.1}
    for name in ("none", "c1")
    for number, (x, y) in enumerate([(0.2, 0.2), (0.8, 0.2), (0.4, 0.7)], start=1)
]


@cache
def changes():
    return analysis.change_table(TOLD)


TABLES = {
    "change": lambda: changes().query("task != 'text'"),
    "change_text": lambda: changes().query("task == 'text'"),
    "gain": lambda: analysis.gain_table(TOLD, ["m"]),
    "rivals": lambda: analysis.gain_table(TOLD[TOLD["task"] == "mnist"], list(analysis.PREDICTORS)),
    "curves": lambda: analysis.curve_table(RUNS, CURVE),
    "power": lambda: analysis.power_table(TOLD),
    "lead": lambda: analysis.lead_table(TOLD),
    "equal": lambda: analysis.equal_table(TOLD),
    "cost": lambda: analysis.cost_table(TOLD, short_runs(RUNS), COST, {"perceptron": 0.2, "language": 0.2}),
    "walks": lambda: walks_of(TOLD),
    "surfaces": lambda: pd.DataFrame(PLANE + MINIMA),
}
DRAWN = {
    "change": plots.changes,
    "change_text": plots.changes,
    "gain": lambda t: plots.gains(t, made("power")),
    "rivals": lambda t: plots.rival_gains(t, made("power"), "mnist"),
    "curves": lambda t: plots.curves(t, analysis.TASKS),
    "power": lambda t: plots.forest_by_task(t, "rank correlation"),
    "lead": lambda t: plots.forest_by_task(t, "difference", 0.05),
    "equal": plots.equal,
    "cost": plots.cost,
    "walks": lambda t: plots.walks(t, (4, 5)),
    "surfaces": plots.surfaces,
}


@cache
def made(name):
    return TABLES[name]()


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


def test_an_arrow_leads_from_the_bases_m_to_the_candidates_in_the_row_that_names_it():
    table = made("change")
    axes = drawn("change").axes
    names = dict(zip((label.get_text() for label in axes[0].get_yticklabels()), axes[0].get_yticks(), strict=True))
    assert names.keys() == set(table["candidate"])
    for ax, task in ((axes[0], "mnist"), (axes[2], "digits")):
        arrows = {round(note.xy[1], 6): (note.xyann[0], note.xy[0]) for note in ax.texts}
        for row in table[table["task"] == task].itertuples():
            assert arrows[round(names[row.candidate], 6)] == pytest.approx((row.before, row.after))
    # Within a type those of most gain stand on top.
    own = table[(table["task"] == "mnist") & (table["type"] == "wider")].sort_values("gain", ascending=False)
    heights = [names[name] for name in own["candidate"]]
    assert heights == sorted(heights)
    with pytest.raises(UserError, match="digits has other candidates"):
        plots.changes(table[~((table["task"] == "digits") & (table["candidate"] == "c1"))])


def test_every_candidate_is_a_point_in_its_types_colour():
    table, power = made("gain"), made("power")
    axes = drawn("gain").axes
    for ax, task in zip(axes, analysis.TASKS, strict=True):
        for kind, color in TYPES.items():
            own = table[(table["task"] == task) & (table["type"] == kind)]
            [line] = [line for line in ax.lines if line.get_color() == color and line.get_linestyle() == "None"]
            assert sorted(line.get_ydata()) == pytest.approx(sorted(own["gain"]))
        row = power[(power["task"] == task) & (power["predictor"] == "m")].iloc[0]
        assert f"ρ = {row['estimate']:.2f}".replace("-", "−") in ax.get_title(loc="left")


def test_the_best_and_the_worst_of_a_panel_are_named():
    axes = drawn("curves").axes
    # Of the wider ones, c3, c4, c7 and c8, the more the number the more the gain.
    assert {text.get_text() for text in axes[0].texts} == {"c8", "c3"}
    dashed = [line for line in axes[0].lines if line.get_linestyle() == "--"]
    assert len(dashed) == 1


def test_what_was_chosen_is_framed_and_numbers_are_means_and_least():
    figure = plots.walks(made("walks"), (8, 9))
    counts, steps = sorted({4, 8}), sorted({5, 9})
    for ax, task in zip(figure.axes, analysis.WALKED, strict=False):
        assert ax.get_title(loc="left") == analysis.TASKS[task]
        own = made("walks")[made("walks")["task"] == task]
        by = own.groupby(["count", "steps"])["correlation"]
        written = {text.get_position(): text.get_text() for text in ax.texts}
        for (count, step), mean in by.mean().items():
            text = written[(steps.index(step), counts.index(count))]
            assert text.startswith(f"{mean:.2f}".replace("-", "−"))
            assert text.endswith(f"min {by.min()[(count, step)]:.2f}".replace("-", "−"))
        [frame] = [patch for patch in ax.patches if not patch.get_fill()]
        assert (frame.get_x(), frame.get_y()) == pytest.approx((1 - 0.48, 1 - 0.48))


def test_a_slice_has_its_minima_as_a_closed_triangle():
    axes = drawn("surfaces").axes
    for ax, name in zip(axes, ("none", "c1"), strict=False):
        assert ax.get_title(loc="left") == ("the base" if name == "none" else name)
        [ring] = ax.lines
        assert np.allclose(ring.get_xydata()[0], ring.get_xydata()[-1])
        assert len(ring.get_xydata()) == 4


def test_a_predictor_that_ranks_nothing_has_an_empty_row():
    power = made("power")
    table = power[~(power["task"].isin(["text", "mean"]) & (power["predictor"] == "snip"))]
    axes = plots.forest_by_task(table, "rank correlation").axes
    rows = [label.get_text() for label in axes[0].get_yticklabels()]
    assert rows == list(analysis.PREDICTORS.values())
    for ax, task in zip(axes, (*analysis.TASKS, analysis.MEAN), strict=True):
        drawn = {round(y): x for x, y in ax.collections[-1].get_offsets()}
        own = table[table["task"] == task]
        expected = {list(analysis.PREDICTORS).index(row.predictor): row.estimate for row in own.itertuples()}
        assert drawn == pytest.approx(expected)


def test_a_cost_figure_names_every_predictor():
    axes = drawn("cost").axes
    for ax in axes:
        named = {text.get_text() for text in ax.texts}
        others = {words for name, words in analysis.PREDICTORS.items() if name != analysis.RUN}
        assert named == others | {"training runs"}
