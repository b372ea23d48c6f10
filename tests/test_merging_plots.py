"""Figures of the merging study: what is drawn is what the tables say, and no text stands on another."""

import warnings
from functools import cache
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox

from common.analysis.merging import MERGEALIGN
from common.analysis.merging.grids import FAMILIES
from common.experts.design import Rival
from common.figures import save_figure
from common.plots import merging as plots
from common.scales import section

SCALE = section("laptop", "merging")
MERGES = [MERGEALIGN, *SCALE["methods"]]
GROUPS = (
    dict.fromkeys(("base", "expert", "generalist"), "parents")
    | dict.fromkeys(MERGES, "merges")
    | dict.fromkeys(Rival.__args__, "training")
)
MEASURES = (*plots.COLUMNS, "accuracy", "safety", "exact")
PARTS = [
    "embedding", "layer 1 attention", "layer 1 feed-forward", "layer 2 attention", "layer 2 feed-forward", "head",
]  # fmt: skip
WAYS = ["base to expert", "base to generalist", "expert to generalist"]
CHOSEN = {"a": 1.0, "b": 0.75}
ARMS = list(GROUPS)
WIDTH = 0.03


def around(middle):
    return {"estimate": middle, "low": middle - WIDTH, "high": middle + 2 * WIDTH}


def plane_table():
    pairs = [{"a": a, "b": b} for a in SCALE["plane"]["a"] for b in SCALE["plane"]["b"]]
    rows = [pair | {"gain_kept": 0.7 * pair["a"] - 0.1, "safety_kept": 0.6 * pair["b"] + 0.01} for pair in pairs]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def arms_table():
    return pd.DataFrame(
        {"group": group, "arm": arm, "measure": measure} | around(0.05 * number + 0.02 * place)
        for number, (arm, group) in enumerate(GROUPS.items())
        for place, measure in enumerate(MEASURES)
    )


def frontier_table():
    table = arms_table()
    return table[table["measure"].isin(["accuracy", "safety"])]


def ablations_table():
    return pd.DataFrame(
        {"family": family.words, "measure": measure, "n": 3 if family.base == "unexposed" else 5}
        | around(1 - 0.1 * number - 0.03 * place)
        for number, family in enumerate(FAMILIES.values())
        for place, measure in enumerate(("gain_kept", "safety_kept"))
    )


def part_table(by, names, measures, missing=()):
    return pd.DataFrame(
        {by: name, "part": part, "measure": measure} | around(0.1 * number + 0.05 * place + 0.4 * other)
        for number, part in enumerate(PARTS)
        for other, name in enumerate(names)
        for place, measure in enumerate(measures)
        if (part, measure) not in missing
    )


def similarity_table():
    missing = [(part, "cka") for part in PARTS if "feed-forward" not in part]
    return part_table("domain", ("medicine", "finance"), plots.SIMILARITY, missing)


def contribution_table():
    return part_table("vector", ("expert", "generalist"), plots.LOST)


def paths_table():
    return pd.DataFrame(
        {"path": path, "loss_of": of, "place": place, "low": mean - 0.2, "mean": mean, "high": mean + 0.4}
        for number, path in enumerate(WAYS)
        for shift, of in enumerate(("answers", "refusals"))
        for place in np.linspace(0, 1, 7)
        for mean in [1 + 0.5 * number + 0.7 * shift + place**2]
    )


def cost_table():
    tokens = dict.fromkeys(MERGES, 0.0) | {arm: 40.0 + 9 * n for n, arm in enumerate(Rival.__args__)}
    names = [arm for arm in GROUPS if arm in tokens]
    return pd.DataFrame(
        {"group": GROUPS[arm], "arm": arm, "tokens": tokens[arm]} | around(0.9 - 0.04 * number)
        for number, arm in enumerate(names)
    )


FIGURES = {
    "plane": (plane_table, lambda table: plots.plane(table, CHOSEN)),
    "arms": (arms_table, plots.arms),
    "frontier": (frontier_table, plots.frontier),
    "cost": (cost_table, plots.cost),
    "ablations": (ablations_table, plots.ablations),
    "similarity": (similarity_table, lambda table: plots.similarity(table, PARTS)),
    "contribution": (contribution_table, lambda table: plots.contributions(table, PARTS)),
    "paths": (paths_table, plots.paths),
}


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        mpl.use("agg")
        yield
        plt.close("all")


@cache
def drawn(name):
    make, draw = FIGURES[name]
    table = make()
    return table, draw(table)


def dots(ax):
    """Points of a forest: [(x, y, colour)]."""
    found = [points for points in ax.collections if isinstance(points, PathCollection)]
    return [
        (*place, to_hex(color))
        for points in found
        for place, color in zip(points.get_offsets().tolist(), points.get_facecolors(), strict=True)
    ]


def bars(ax):
    """Intervals of a forest: {y: (low, high)}."""
    pieces = [line for lines in ax.collections if isinstance(lines, LineCollection) for line in lines.get_segments()]
    return {round(piece[0][1], 6): (piece[0][0], piece[1][0]) for piece in pieces}


def upright(ax):
    """Places of dashed or thin lines from the bottom to the top."""
    return [line.get_xdata()[0] for line in ax.lines if list(line.get_ydata()) == [0, 1]]


def names_by_row(ax, axis="y"):
    own = {"x": ax.xaxis, "y": ax.yaxis}[axis]
    return {round(at, 6): own.get_major_formatter()(at) for at in own.get_ticklocs()}


def assert_forest(ax, rows, colors, names=None):
    """Each row of a table has a dot at its estimate, a bar from low to high and, in `names`, its name."""
    found = dots(ax)
    assert [x for x, _, _ in found] == pytest.approx(rows["estimate"].tolist())
    assert [color for _, _, color in found] == [to_hex(color) for color in colors]
    for (_, y, _), low, high in zip(found, rows["low"], rows["high"], strict=True):
        assert bars(ax)[round(y, 6)] == pytest.approx((low, high))
    if names is not None:
        at = names_by_row(ax)
        assert [at[round(y, 6)] for _, y, _ in found] == names
    left, right = sorted(ax.get_xlim())
    bottom, top = sorted(ax.get_ylim())
    assert all(left < x < right and bottom < y < top for x, y, _ in found)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_saved_and_no_text_stands_on_another_or_leaves_the_page(name, tmp_path, texts):
    table, figure = drawn(name)
    texts.clear()  # a figure that settles its layout draws before it is saved
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        save_figure(figure, tmp_path, name, table)
    assert len(texts) > 5
    for (one, here), (other, there) in combinations(texts, 2):
        assert not here.padded(-1).overlaps(there.padded(-1)), (one, other)
    for line, box in texts:
        assert Bbox.intersection(box, figure.bbox).bounds == pytest.approx(box.bounds), line
    assert (tmp_path / f"{name}.png").is_file() or list(tmp_path.rglob(f"{name}*"))


def test_the_plane_shows_each_pairs_numbers_and_frames_the_chosen_one():
    table, figure = drawn("plane")
    for ax, measure in zip(figure.axes, ("gain_kept", "safety_kept"), strict=True):
        columns, rows = (list(map(float, names_by_row(ax, axis).values())) for axis in ("x", "y"))
        assert columns == SCALE["plane"]["a"]
        assert rows == SCALE["plane"]["b"]
        values = table.set_index(["a", "b"])[measure]
        found = {(columns[int(t.get_position()[0])], rows[int(t.get_position()[1])]): t.get_text() for t in ax.texts}
        assert found == {pair: f"{value:.2f}" for pair, value in values.items()}
        image = ax.images[0]
        for (a, b), value in values.items():
            assert image.get_array()[rows.index(b), columns.index(a)] == pytest.approx(value)
        assert image.get_clim() == (0, 1)
        # The first row of the image is the lowest.
        assert image.origin == "lower"
        (frame,) = ax.patches
        middle = (frame.get_x() + frame.get_width() / 2, frame.get_y() + frame.get_height() / 2)
        assert middle == (columns.index(CHOSEN["a"]), rows.index(CHOSEN["b"]))
        assert ax.get_title(loc="left") == plots.KEPT[measure]


def test_every_arm_is_a_row_of_its_groups_colour_and_thresholds_are_where_claims_ask():
    table, figure = drawn("arms")
    assert [ax.get_xlabel() for ax in figure.axes] == list(plots.COLUMNS.values())
    colors = [plots.COLORS[group] for group in GROUPS.values()]
    for ax, measure in zip(figure.axes, plots.COLUMNS, strict=True):
        assert_forest(ax, table[table["measure"] == measure], colors, ARMS)
        assert upright(ax) == {"gain_kept": [0.9], "safety_kept": [0.8]}.get(measure, [])
        heights = [y for _, y, _ in dots(ax)]
        assert heights == sorted(heights)
        assert ax.yaxis_inverted()
        groups = list(GROUPS.values())
        for before, after, here, there in zip(heights, heights[1:], groups, groups[1:], strict=False):
            assert after - before == (1 if here == there else 1.5)


def test_colours_tell_groups_domains_and_vectors_apart():
    for colors, least in ((plots.COLORS, 3), (plots.PAIRED, 2)):
        shades = [mpl.colors.to_rgb(color) for color in colors.values()]
        assert len(shades) == least
        for one, other in combinations(shades, 2):
            assert np.linalg.norm(np.subtract(one, other)) > 0.3
    for name, by, measures in (("similarity", "domain", plots.SIMILARITY), ("contribution", "vector", plots.LOST)):
        table, figure = drawn(name)
        for ax, measure in zip(figure.axes, measures, strict=True):
            own = table[table["measure"] == measure]
            pairs = {(kind, color) for kind, (_, _, color) in zip(own[by], dots(ax), strict=True)}
            assert len(pairs) == len({color for _, color in pairs}) == 2
            legend = figure.axes[-1].get_legend()
            handles = zip(legend.get_texts(), legend.legend_handles, strict=True)
            assert {(text.get_text(), to_hex(handle.get_color())) for text, handle in handles} == pairs


def test_the_frontier_has_a_cross_for_each_arm_named_in_its_groups_colour():
    table, figure = drawn("frontier")
    (ax,) = figure.axes
    wide = table.set_index(["arm", "measure"])
    points = [line for line in ax.lines if line.get_marker() == "o"]
    whiskers = {tuple(map(tuple, np.round(line.get_xydata(), 9))) for line in ax.lines if line.get_marker() != "o"}
    assert len(points) == len(ARMS)
    assert len(whiskers) == 2 * len(ARMS) + 2
    corner = wide.loc[("expert", "accuracy"), "estimate"], wide.loc[("generalist", "safety"), "estimate"]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed[:1]] + [line.get_ydata()[0] for line in dashed[1:]] == list(corner)
    for arm, point in zip(ARMS, points, strict=True):
        here, there = wide.loc[(arm, "accuracy")], wide.loc[(arm, "safety")]
        assert point.get_xydata()[0] == pytest.approx([here["estimate"], there["estimate"]])
        assert to_hex(point.get_color()) == to_hex(plots.COLORS[GROUPS[arm]])
        across = [(here["low"], there["estimate"]), (here["high"], there["estimate"])]
        along = [(here["estimate"], there["low"]), (here["estimate"], there["high"])]
        assert {tuple(map(tuple, np.round(each, 9))) for each in (across, along)} <= whiskers
        (name,) = [text for text in ax.texts if text.get_text() == arm]
        assert name.xy == pytest.approx((here["estimate"], there["estimate"]))
    assert ax.get_xlabel() == "accuracy in the expert's domain"
    assert ax.get_ylabel() == "unsafe prompts declined"


def test_costs_stand_beside_what_is_kept():
    table, figure = drawn("cost")
    kept, tokens = figure.axes
    colors = [plots.COLORS[group] for group in table["group"]]
    assert_forest(kept, table, colors, list(table["arm"]))
    assert [bar.get_width() for bar in tokens.patches] == table["tokens"].tolist()
    assert [to_hex(bar.get_facecolor()) for bar in tokens.patches] == [to_hex(color) for color in colors]
    heights = [bar.get_y() + bar.get_height() / 2 for bar in tokens.patches]
    np.testing.assert_allclose(heights, kept.get_yticks())
    assert "thousands" in tokens.get_xlabel()


def test_ablations_are_a_row_a_family_with_the_number_of_its_seeds():
    table, figure = drawn("ablations")
    names = [f"{family.words} (n = {3 if family.base == 'unexposed' else 5})" for family in FAMILIES.values()]
    for ax, (measure, threshold) in zip(figure.axes, {"gain_kept": 0.9, "safety_kept": 0.8}.items(), strict=True):
        own = table[table["measure"] == measure]
        assert_forest(ax, own, [plots.COLORS["merges"]] * len(names), names)
        assert upright(ax) == [threshold]
        assert ax.get_xlabel() == plots.KEPT[measure]
        assert ax.xaxis.get_major_formatter()(0.75) == "75%"


@pytest.mark.parametrize("name", ["similarity", "contribution"])
def test_parts_are_rows_and_each_kind_has_its_own_height_in_them(name):
    table, figure = drawn(name)
    measures = plots.SIMILARITY if name == "similarity" else plots.LOST
    by = "domain" if name == "similarity" else "vector"
    rules = {"cosine": 0, "equal_signs": 0.5, "angle": 90, "cka": 1, "expert_norm": 0, "generalist_norm": 0}
    for ax, (measure, words) in zip(figure.axes, measures.items(), strict=True):
        own = table[table["measure"] == measure]
        assert ax.get_xlabel() == words
        assert_forest(ax, own, [color for _, _, color in dots(ax)])
        assert list(names_by_row(ax).values()) == PARTS
        places = {}
        for row, (_, y, _) in zip(own.itertuples(), dots(ax), strict=True):
            assert round(y) == PARTS.index(row.part)
            places.setdefault(getattr(row, by), set()).add(round(y - round(y), 6))
        first, second = places.values()
        assert len(first) == len(second) == 1
        assert first != second
        assert upright(ax) == [rules.get(measure, 0)]
        assert ax.yaxis_inverted()


def test_ways_are_lines_in_bands_and_named_once():
    table, figure = drawn("paths")
    assert [ax.get_title(loc="left") for ax in figure.axes] == WAYS
    shades = {}
    for ax, path in zip(figure.axes, WAYS, strict=True):
        own = table[table["path"] == path]
        bands = [band for band in ax.collections if isinstance(band, PolyCollection)]
        for line, band in zip(ax.lines, bands, strict=True):
            mine = own[own["loss_of"] == line.get_label()]
            np.testing.assert_allclose(line.get_xydata(), mine[["place", "mean"]])
            corners = band.get_paths()[0].vertices
            for place, low, high in mine[["place", "low", "high"]].to_numpy():
                at = corners[np.isclose(corners[:, 0], place), 1]
                assert (at.min(), at.max()) == pytest.approx((low, high))
            assert to_hex(band.get_facecolor()[0]) == to_hex(line.get_color())
            shades.setdefault(line.get_label(), set()).add(to_hex(line.get_color()))
    assert set(shades) == {"answers", "refusals"}
    assert all(len(several) == 1 for several in shades.values())
    assert shades["answers"] != shades["refusals"]
    names = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert sorted(names) == ["answers", "refusals"]
