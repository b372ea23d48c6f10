"""Saved figures: same bytes in any process, refusals, size, and names that don't overlap."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from PIL import Image

from common.errors import UserError
from common.figures import COLUMN, PAGE, PALETTE, forest, label_lines, save_figure, use_style

DATA = pd.DataFrame({"step": [0, 1, 2], "loss": [0.1 + 0.2, 1 / 3, 1e-17]})

DRAW = """
import sys
from pathlib import Path
import matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt, numpy as np, pandas as pd
from matplotlib.patches import Circle
from common.figures import forest, label_lines, save_figure, use_style
use_style()
fig, (left, middle, right) = plt.subplots(1, 3, figsize=(7, 2.4))
for i, name in enumerate(["W8", "A8", "m2"]):
    left.errorbar([0, 1, 2], np.array([3, 2, 1.5]) + 0.01 * i, 0.1, label=name)
left.set(xlabel="step", ylabel="loss")
label_lines(left)
image = middle.imshow(np.arange(400).reshape(20, 20), rasterized=True)
image.set_clip_path(Circle((10, 10), 8, transform=middle.transData))
middle.set(xlabel="first direction", ylabel="second direction")
fig.colorbar(image, label="loss")
forest(right, ["W8", "A8"], [0.1, 0.2], [0, 0.1], [0.2, 0.4], band=(-0.1, 0.1))
right.set_xlabel("difference")
save_figure(fig, Path(sys.argv[1]), "all", pd.DataFrame({"x": [0.1, 1 / 3]}))
"""


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        mpl.use("agg")
        use_style()
        yield
        plt.close("all")


@pytest.fixture
def drawn():
    fig, ax = plt.subplots()
    ax.plot([0, 1, 2], [3, 2, 1.5], label="W8")
    ax.set(xlabel="step", ylabel="loss")
    return fig


def boxes_of(names, fig):
    renderer = fig.canvas.get_renderer()
    fig.draw_without_rendering()
    return [mpl.text.Text.get_window_extent(name, renderer) for name in names]


def test_two_processes_write_the_same_bytes(tmp_path, monkeypatch):
    subprocess.run(
        [sys.executable, "-c", DRAW, tmp_path / "there"],
        env=os.environ | {"PYTHONHASHSEED": "1", "SOURCE_DATE_EPOCH": "1"},
        check=True,
        cwd=tmp_path,
    )
    monkeypatch.setattr(sys, "argv", ["", tmp_path / "here"])  # whose hash seed is another
    exec(DRAW, {})
    names = ["all.csv", "all.png", "all.svg"]
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == names
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_bytes_do_not_depend_on_settings_of_the_moment(tmp_path):
    def draw(folder):
        with mpl.rc_context(mpl.rc_params_from_file(mpl.matplotlib_fname(), use_default_template=True)):
            use_style()
            plain = plt.subplots()
        plain[1].plot([0, 1], [0, 1])
        plain[1].set(xlabel="step", ylabel="loss")
        save_figure(plain[0], folder, "f", DATA)

    draw(tmp_path / "a")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "x", "savefig.bbox": "tight"}):
        draw(tmp_path / "b")
    for name in ("f.svg", "f.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_files_name_no_date_and_no_version(drawn, tmp_path):
    save_figure(drawn, tmp_path, "f", DATA)
    svg = (tmp_path / "f.svg").read_text()
    ET.fromstring(svg)
    assert mpl.__version__ not in svg
    assert "date" not in svg.lower()
    assert "<text" not in svg
    with Image.open(tmp_path / "f.png") as image:
        assert set(image.info) <= {"dpi"}


@pytest.mark.parametrize("width", [COLUMN, PAGE])
def test_png_has_the_size_of_the_figure_at_200_dots_per_inch(width, tmp_path):
    fig, ax = plt.subplots(figsize=(width, 2.5))
    ax.plot([0, 1], [1, 0], label="a rather long name of a series")
    ax.set(xlabel="step", ylabel="loss")
    label_lines(ax)
    save_figure(fig, tmp_path, "f", DATA)
    with Image.open(tmp_path / "f.png") as image:
        assert image.size == (round(width * 200), 500)
        edge = np.concatenate([np.asarray(image.convert("L"))[:, side] for side in (0, -1)])
    assert (edge == 255).all()  # nothing is cut off at the sides


def test_the_csv_returns_every_digit_and_a_named_index(drawn, tmp_path):
    save_figure(drawn, tmp_path, "f", DATA.set_index("step"))
    read = pd.read_csv(tmp_path / "f.csv")
    pd.testing.assert_frame_equal(read, DATA, check_exact=True)


def test_a_saved_figure_is_closed(drawn, tmp_path):
    save_figure(drawn, tmp_path, "f", DATA)
    assert not plt.fignum_exists(drawn.number)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DATA.iloc[:0], "empty"),
        (DATA.assign(loss=[1, np.nan, 2]), "column 'loss', row 1"),
        (DATA.assign(loss=[1, 2, -np.inf]), "column 'loss', row 2"),
        (DATA.assign(arm=["W8", None, "A8"]), "column 'arm', row 1"),
    ],
)
def test_data_with_holes_are_refused(drawn, data, said, tmp_path):
    with pytest.raises(UserError, match=said):
        save_figure(drawn, tmp_path, "f", data)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", ["xlabel", "ylabel"])
def test_a_missing_axis_label_is_refused(drawn, label, tmp_path):
    drawn.axes[0].set(**{label: " "})
    with pytest.raises(UserError, match=f"no {label[0]} label"):
        save_figure(drawn, tmp_path, "f", DATA)


def test_ticks_that_are_numbers_do_not_stand_for_a_label(drawn, tmp_path):
    drawn.axes[0].set(xlabel="", xscale="symlog")
    with pytest.raises(UserError, match="no x label"):
        save_figure(drawn, tmp_path, "f", DATA)
    drawn.axes[0].set_xticks([0, 1, 2], ["4-bit", "8-bit", "$W$"])
    with pytest.raises(UserError, match="no x label"):
        save_figure(drawn, tmp_path, "f", DATA)
    drawn.axes[0].set_xticks([0, 1, 2], ["W4", "W8", "A8"])
    save_figure(drawn, tmp_path, "f", DATA)


@pytest.mark.parametrize("sharing", [True, False])
def test_only_axes_that_share_may_leave_their_label_to_a_neighbour(sharing, tmp_path):
    fig, axes = plt.subplots(2, 2, sharex=sharing, sharey=sharing)
    for ax in axes.flat:
        ax.plot([0, 1], [0, 1])
    axes[1, 0].set(xlabel="step", ylabel="loss")
    if sharing:
        save_figure(fig, tmp_path, "f", DATA)
    else:
        with pytest.raises(UserError, match="no x label"):
            save_figure(fig, tmp_path, "f", DATA)
        fig.supxlabel("step")
        with pytest.raises(UserError, match="no y label"):
            save_figure(fig, tmp_path, "f", DATA)
        fig.supylabel("loss")
        save_figure(fig, tmp_path, "f", DATA)


def test_an_empty_figure_empty_axes_and_a_bare_colour_bar_are_refused(drawn, tmp_path):
    with pytest.raises(UserError, match="no axes"):
        save_figure(plt.figure(), tmp_path, "f", DATA)
    fig, ax = plt.subplots()
    ax.set(xlabel="step", ylabel="loss")
    with pytest.raises(UserError, match="nothing is drawn"):
        save_figure(fig, tmp_path, "f", DATA)
    drawn.colorbar(drawn.axes[0].scatter([0, 1], [2, 3], c=[0, 1]))
    with pytest.raises(UserError, match="colour bar"):
        save_figure(drawn, tmp_path, "f", DATA)


def test_a_character_the_font_lacks_is_refused(drawn, tmp_path):
    drawn.axes[0].set_title("\u6f22")
    with pytest.raises(UserError, match="figure f: Glyph"):
        save_figure(drawn, tmp_path, "f", DATA)


def test_a_file_over_a_megabyte_is_refused_and_rasterizing_mends_it(drawn, tmp_path):
    points = np.random.default_rng(0).normal(size=(2, 20_000))
    dense = drawn.axes[0].scatter(*points, s=1)
    with pytest.raises(UserError, match=r"f\.svg has .* rasterized=True"):
        save_figure(drawn, tmp_path, "f", DATA)
    assert not list(tmp_path.iterdir())
    dense.set_rasterized(True)
    save_figure(drawn, tmp_path, "f", DATA)


def test_a_folder_that_cannot_be_written_leaves_the_figure_open(drawn, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_figure(drawn, tmp_path / "file" / "folder", "f", DATA)
    assert plt.fignum_exists(drawn.number)


@settings(max_examples=15)
@given(st.lists(st.sampled_from(np.linspace(0, 1, 101)), min_size=2, max_size=9), st.sampled_from(["linear", "log"]))
def test_names_at_line_ends_never_overlap_and_keep_the_order_of_the_lines(ends, scale):
    fig, ax = plt.subplots()
    for i, end in enumerate(ends):
        ax.plot([0, 1], [1, 0.1 + end], label=f"series {i}")
    ax.set(xlabel="step", ylabel="loss", yscale=scale)
    names = label_lines(ax)
    boxes = boxes_of(names, fig)
    axes, page = ax.get_window_extent(), fig.bbox
    for one, two in combinations(boxes, 2):
        assert not one.overlaps(two)
    for i, j in combinations(range(len(ends)), 2):
        if ends[i] < ends[j]:
            assert boxes[i].y0 < boxes[j].y0
    assert [name.get_text() for name in names] == [f"series {i}" for i in range(len(ends))]
    assert all(box.x0 >= axes.x1 and box.x1 <= page.x1 and box.y0 >= page.y0 for box in boxes)
    plt.close(fig)


def test_a_name_with_room_stands_level_with_its_line_end():
    fig, ax = plt.subplots()
    for name, end in (("up", 3.0), ("down", 1.0)):
        ax.errorbar([0, 1], [2, end], 0.1, label=name)
    names = label_lines(ax)
    for box, end in zip(boxes_of(names, fig), (3.0, 1.0), strict=True):
        assert (box.y0 + box.y1) / 2 == pytest.approx(ax.transData.transform((1, end))[1], abs=3)


def test_names_can_be_read_on_white():
    fig, ax = plt.subplots(figsize=(COLUMN, 3))
    for i, color in enumerate(PALETTE):
        ax.plot([0, 1], [0, i], color=color, label=f"series {i}")
    for name in label_lines(ax):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(name.get_color())]
        assert 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05) > 4.5
        assert name.get_fontsize() >= 7
    assert fig.axes == [ax]


def test_names_that_cannot_be_placed_are_refused():
    _, ax = plt.subplots(figsize=(2, 1))
    with pytest.raises(UserError, match="no labelled lines"):
        label_lines(ax)
    for i in range(12):
        ax.plot([0, 1], [0, i], label=str(i))
    with pytest.raises(UserError, match="12 names do not fit"):
        label_lines(ax)
    ax.plot([0, 1], [np.nan, np.nan], label="gone")
    with pytest.raises(UserError, match="no point"):
        label_lines(ax)


def test_a_forest_shows_its_arms_from_the_top_with_interval_zero_and_band(tmp_path):
    fig, ax = plt.subplots()
    forest(ax, ["W8", "A8"], [0.1, 0.3], [0.0, 0.2], [0.2, 0.5], band=(-0.05, 0.05))
    ax.set_xlabel("loss minus baseline")
    fig.draw_without_rendering()
    bars, dots = ax.collections
    assert [segment.tolist() for segment in bars.get_segments()] == [[[0, 0], [0.2, 0]], [[0.2, 1], [0.5, 1]]]
    assert dots.get_offsets().tolist() == [[0.1, 0], [0.3, 1]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["W8", "A8"]
    upper, lower = (tick.get_window_extent().y0 for tick in ax.get_yticklabels())
    assert upper > lower
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.05, 0.1))
    assert ax.lines[0].get_xdata() == [0, 0]
    save_figure(fig, tmp_path, "f", DATA)


@pytest.mark.parametrize(
    ("labels", "numbers", "said"),
    [
        ([], ([], [], []), "0 labels"),
        (["W8"], ([1, 2], [0, 1], [2, 3]), "1 labels"),
        (["W8"], ([1], [0], [2, 3]), "1 labels"),
        (["W8"], ([1], [2], [3]), "W8: low"),
        (["W8"], ([np.nan], [0], [1]), "W8: low"),
    ],
)
def test_a_forest_of_impossible_intervals_is_refused(labels, numbers, said):
    _, ax = plt.subplots()
    with pytest.raises(UserError, match=said):
        forest(ax, labels, *numbers)
