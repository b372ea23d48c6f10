"""Figures of the quantisation study: what is drawn is what the table says, and no text stands on another."""

import warnings
from functools import cache
from itertools import combinations, pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox

from common.analysis.quantization import BASELINE
from common.errors import UserError
from common.figures import NO_STAMP, save_figure
from common.plots import quantization as plots
from common.plots.quantization.forests import REACH, limits_of
from common.plots.quantization.layout import plain_log
from common.plots.quantization.settings import wrapped
from common.plots.quantization.tensors import HALF_A_LEVEL, short_names
from common.quantization import Quantizer, fake_quantize

GROUPS = {
    "W8 channel": "weights",
    "W4 tensor": "weights",
    "m2 8 channel": "together",
    "W8 channel + A8 token + G8 token": "together",
    "m2 8 channel log-stochastic": "together",
}
MARGIN = 0.02
DIFFERENCES = dict(zip(GROUPS, (0.004, 0.11, 0.9, 0.01, -0.005), strict=True))
RATIOS = dict(zip(GROUPS, (1.0, 2.6, 370.0, 0.9, 1.1), strict=True))
RATES = [0.0025, 0.005, 0.01]
TOKENS = [25_600 * step for step in range(1, 11)]
LAYERS = ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn", "transformer.h.10.mlp.c_proj", "lm_head"]


def estimates(column, values, middle=lambda setting, value: DIFFERENCES[setting], baseline=False):
    rows = []
    for setting in [BASELINE] * baseline + list(GROUPS):
        for value in values:
            number = middle(setting, value)
            rows.append({"setting": setting, column: value, "low": number - 0.01, "high": number + 0.02})
            rows[-1]["estimate"] = number
    return pd.DataFrame(rows)


def rates_table():
    rows = [
        {"setting": setting, "learning_rate": rate, "loss": 4.7 + 0.1 * abs(i - best) + 0.001 * n, "chosen": i == best}
        for n, setting in enumerate([BASELINE, *GROUPS])
        for i, rate in enumerate(RATES)
        for best in [n % 3]
    ]
    rows[-1]["loss"] = np.nan
    table = pd.DataFrame(rows)
    return table.assign(loss=table["loss"].mask(table["setting"] == "m2 8 channel"))


def curves_table(missing="m2 8 channel"):
    rows = [
        {"setting": setting, "tokens": tokens, "low": mean - 0.01, "high": mean + 0.02, "mean": mean}
        for n, setting in enumerate([BASELINE, *GROUPS])
        if setting != missing
        for tokens in TOKENS
        for mean in [4.7 + 0.02 * n + 1.5 * np.exp(-tokens / 60_000)]
    ]
    return pd.DataFrame(rows)


def layers_table():
    statistics = {"entries rounded to 0": 0.3, "relative L2 error": 0.05}
    return pd.DataFrame(
        {
            "layer": layer,
            "setting": setting,
            "statistic": name,
            "low": middle * 0.9,
            "high": middle * 1.2,
            "mean": middle,
        }
        for i, layer in enumerate(LAYERS)
        for j, setting in enumerate(GROUPS)
        for name, start in statistics.items()
        for middle in [start * (1 + i + 2 * j) / 4]
    )


def outliers_table():
    rows = [
        {"panel": f"{setting[1]}-bit weights", "setting": setting, "scale": 2.0**i, "mean": 100.0 + grows * 4**i}
        for setting, grows in {BASELINE: 0, "W8 channel": 0.1, "W4 tensor": 0.9}.items()
        for i in range(5)
    ]
    table = pd.DataFrame(rows)
    table.loc[table["setting"] == BASELINE, "panel"] = "8-bit weights"
    return table.assign(low=0.9 * table["mean"], high=1.1 * table["mean"])


def surfaces_table():
    magnitude = np.random.default_rng(0).lognormal(size=(2, 6, 8))
    magnitude[1, :, 3] *= 100
    magnitude[0, 2, 5] = 0
    rows = [{"token": t, "channel": c, "magnitude": m} for (_, t, c), m in np.ndenumerate(magnitude)]
    return pd.DataFrame(rows).assign(model=["usual"] * 48 + ["outliers"] * 48)


def magnitudes_table():
    shares = {"weights": [0.1, 0.2, 0.7], "activations": [0.2, 0.3, 0.5], "gradients": [0.6, 0.3, 0.1]}
    rows = [(name, i - 3, i - 2, share) for name, own in shares.items() for i, share in enumerate(own)]
    return pd.DataFrame(rows, columns=["component", "low", "high", "share"])


def memory_table():
    parts = {"weights": 400.0, "quantized_weights": 100.0, "linear_inputs": 30.0}
    arms = [(BASELINE, "paper"), ("W8 channel", "paper"), ("W8 channel", "straight-through")]
    rows = [
        (setting, backward, size, name, storage, count * (size if name == "linear_inputs" else 1) * (1 - 0.2 * n))
        for n, (setting, backward) in enumerate(arms)
        for size in (64, 1, 4)
        for name, count in parts.items()
        for storage in ("simulated", "integer")
    ]
    return pd.DataFrame(rows, columns=["setting", "backward", "batch_size", "component", "storage", "bytes"])


def perplexities_table():
    middle = lambda setting, text: 100 * np.exp(DIFFERENCES.get(setting, 0)) + 50 * (text == "reviews")  # noqa: E731
    return estimates("text", ["speeches", "reviews"], middle, baseline=True)


NOTES = {"together": "m2 8 channel: 5 of 5 runs diverged, at steps 4 to 7"}
FIGURES = {
    "learning_rates": (rates_table, lambda table: plots.learning_rates(table, GROUPS)),
    "loss_curves": (curves_table, lambda table: plots.loss_curves(table, GROUPS, "speeches", NOTES)),
    "perplexities": (perplexities_table, lambda table: plots.perplexities(table, GROUPS)),
    "final_differences": (
        lambda: estimates("text", ["speeches", "reviews"]),
        lambda table: plots.final_differences(table, GROUPS, MARGIN, NOTES),
    ),
    "families": (
        lambda: estimates("family", ["GPT-2", "Llama"]).iloc[:-1],
        lambda table: plots.families(table, GROUPS, MARGIN),
    ),
    "outlier_training": (
        lambda: estimates("outliers", ["none", "×8"]),
        lambda table: plots.outlier_training(table, GROUPS, MARGIN),
    ),
    "sharpness": (
        lambda: estimates("text", ["all"], lambda setting, _: RATIOS[setting]),
        lambda table: plots.sharpness(table, GROUPS),
    ),
    "surfaces": (surfaces_table, plots.surfaces),
    "outliers": (outliers_table, lambda table: plots.outliers(table, GROUPS)),
    "layer_errors": (layers_table, lambda table: plots.layer_errors(table, GROUPS, ["relative L2 error"])),
    "magnitudes": (magnitudes_table, plots.magnitudes),
    "memory": (memory_table, plots.memory),
}


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        mpl.use("agg")
        yield
        plt.close("all")


@cache
def make(name):
    """The table and the figure, which tests share as drawing takes long."""
    table, draw = FIGURES[name]
    table = table()
    return table, draw(table)


def words(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_text()]


def panels(figure):
    return {ax.get_title(loc="left"): ax for ax in figure.axes}


def dots(ax):
    """Drawn points: {(x, y): colour}."""
    return {
        tuple(point): to_hex(color)
        for points in ax.collections
        if isinstance(points, mpl.collections.PathCollection)
        for point, color in zip(
            points.get_offsets().tolist(),
            np.broadcast_to(points.get_edgecolors(), (len(points.get_offsets()), 4)),
            strict=True,
        )
    }


def row_of(ax, label):
    name_of = ax.yaxis.get_major_formatter()
    return {name_of(at): at for at in ax.get_yticks()}[label]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_saved_and_no_text_stands_on_another_or_leaves_the_page(name, texts, tmp_path, monkeypatch):
    if name not in {"surfaces", "layer_errors"}:  # the others' drawings are too small to exceed the limit of a file
        monkeypatch.delitem(NO_STAMP, "svg")
    table, figure = make(name)
    page = figure.bbox
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is laid out; once more for each format takes long
    save_figure(figure, tmp_path, name, table.dropna())
    assert len(texts) > 5
    for (one, here), (other, there) in combinations(texts, 2):
        assert not here.padded(-1).overlaps(there.padded(-1)), (one, other)
    for line, box in texts:
        assert Bbox.intersection(box, page).bounds == pytest.approx(box.bounds), line


def test_a_ring_stands_on_every_chosen_rate_and_a_diverged_run_is_no_point():
    table, figure = make("learning_rates")
    palette = plots.palette_of(GROUPS)
    for group, ax in panels(figure).items():
        shown = {BASELINE, *(setting for setting, own in GROUPS.items() if own == group)}
        chosen = table[table["chosen"] & table["setting"].isin(shown)].dropna()
        expected = {(row.learning_rate, row.loss): palette[row.setting] for row in chosen.itertuples()}
        assert dots(ax) == {point: to_hex(color) for point, color in expected.items()}
        drawn = sorted(tuple(point) for line in ax.lines for point in line.get_xydata())
        own = table[table["setting"].isin(shown)].dropna()
        assert drawn == sorted(zip(own["learning_rate"], own["loss"], strict=True))
        assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2.5", "5", "10"]


def test_a_setting_that_diverged_at_every_rate_is_a_note_above_the_lines_of_its_panel():
    _, figure = make("learning_rates")
    figure.draw_without_rendering()
    said = {group: [t for t in ax.texts if "diverged" in t.get_text()] for group, ax in panels(figure).items()}
    assert not said["weights"]
    (note,) = said["together"]
    assert note.get_text().replace("\n", " ") == "m2 8 channel: diverged at every rate"
    ax = note.axes
    highest = max(line.get_ydata().max() for line in ax.lines)
    assert ax.transData.transform((RATES[0], highest))[1] < note.get_window_extent().y0
    with pytest.raises(UserError, match="without a group: m2 8 channel"):
        plots.learning_rates(rates_table(), {name: own for name, own in GROUPS.items() if name != "m2 8 channel"})


def test_an_inset_enlarges_the_last_quarter_with_all_its_lines_in_sight():
    table, figure = make("loss_curves")
    for group, ax in panels(figure).items():
        (inset,) = ax.child_axes
        left, right = inset.get_xlim()
        assert right == TOKENS[-1]
        assert TOKENS[6] == left <= 0.75 * right
        low, high = inset.get_ylim()
        rows = table[table["setting"].isin({BASELINE, *(s for s, own in GROUPS.items() if own == group)})]
        end = rows[rows["tokens"] >= left]
        assert low < end["low"].min() < end["high"].max() < high
        assert high - low < 0.5 * np.ptp(ax.get_ylim())
        below = [line.get_ydata()[line.get_xdata() > 120_000].max() for line in ax.lines]
        edge = ax.transData.inverted().transform(inset.get_window_extent())[0, 1]
        assert max(below) < edge  # no line runs behind the inset


@pytest.mark.parametrize(("further", "inside"), [(0.2, True), (1.0, False)])
def test_an_inset_holds_a_line_whole_unless_it_ends_so_far_from_the_baseline_that_it_would_squash_it(further, inside):
    table = curves_table()
    table.loc[table["setting"] == "W4 tensor", ["low", "high", "mean"]] += further
    figure = plots.loss_curves(table, GROUPS, "speeches", {})
    inset = panels(figure)["weights"].child_axes[0]
    end = table[(table["setting"] == "W4 tensor") & (table["tokens"] >= TOKENS[6])]
    assert (end["high"].max() < inset.get_ylim()[1]) == inside
    assert np.ptp(inset.get_ylim()) < 0.3 + 0.2 * inside


def test_a_setting_without_rows_has_no_line_but_a_note():
    _, figure = make("loss_curves")
    drawn = panels(figure)
    assert len(drawn["weights"].lines) == 3  # the baseline's as well
    assert len(drawn["together"].lines) == 3  # of four
    assert "m2 8 channel: 5 of 5 runs" in " ".join(text.get_text() for text in drawn["together"].texts)
    assert not any("diverged" in text.get_text() for text in drawn["weights"].texts)


@pytest.mark.parametrize(
    ("change", "notes", "said"),
    [
        (lambda table: table, {"weight": "lost"}, "no panel: weight"),
        (lambda table: table[table["tokens"] == TOKENS[0]], {}, "one point"),
        (lambda table: table[table["setting"] != BASELINE], {}, "no rows of full precision"),
        (lambda table: table.replace("W4 tensor", "W2 tensor"), {}, "without a group: W2 tensor"),
    ],
)
def test_curves_that_would_be_lost_are_refused(change, notes, said):
    with pytest.raises(UserError, match=said):
        plots.loss_curves(change(curves_table()), GROUPS, "speeches", notes)


def test_colours_differ_within_a_group_are_the_same_in_all_figures_and_run_out():
    palette = plots.palette_of(GROUPS)
    assert len({palette[name] for name in [BASELINE, "W8 channel", "W4 tensor"]}) == 3
    table, curves = make("loss_curves")
    lines = {line.get_color() for line in panels(curves)["weights"].lines}
    assert lines == {palette[BASELINE], palette["W8 channel"], palette["W4 tensor"]}
    table, forest = make("families")
    for row in table.itertuples():
        ax = panels(forest)[row.family]
        assert dots(ax)[row.estimate, row_of(ax, row.setting)] == to_hex(palette[row.setting])
    with pytest.raises(UserError, match="7 settings are in 'many'"):
        plots.palette_of({str(n): "many" for n in range(7)})
    with pytest.raises(UserError, match="belongs to none"):
        plots.palette_of({BASELINE: "weights"})


def test_rows_are_those_of_the_table_level_in_all_panels_and_empty_where_it_has_none():
    table, figure = make("families")
    left, right = panels(figure).values()
    heights = [row_of(left, setting) for setting in GROUPS]
    assert heights == sorted(heights)
    assert left.yaxis_inverted()
    for family, ax in panels(figure).items():
        own = table[table["family"] == family]
        expected = {(row.estimate, row_of(left, row.setting)) for row in own.itertuples()}
        assert dots(ax).keys() == expected
    assert heights[-1] not in {height for _, height in dots(right)}
    assert left.get_xlim() == right.get_xlim()


def test_a_huge_difference_is_a_number_and_leaves_the_small_ones_room():
    _, figure = make("final_differences")
    for ax in panels(figure).values():
        assert ax.get_xlim()[1] < 0.2
        assert [text.get_text() for text in ax.texts] == ["+0.90 [0.89, 0.92]"]
        (arrow,) = (line for line in ax.lines if line.get_marker() == ">")
        assert arrow.get_ydata() == row_of(ax, "m2 8 channel")
    turned = estimates("text", ["speeches"])
    turned = turned.assign(estimate=-turned["estimate"], low=-turned["high"], high=-turned["low"])
    (ax,) = plots.final_differences(turned, GROUPS, MARGIN, {}).axes
    assert ax.get_xlim()[0] > -0.2
    assert [text.get_text() for text in ax.texts] == ["−0.90 [−0.92, −0.89]"]


def test_ticks_of_differences_stand_apart():
    table = estimates("family", ["GPT-2", "Llama"], lambda setting, _: DIFFERENCES[setting] * 1.5).iloc[:4]
    figure = plots.families(table, GROUPS, MARGIN)
    figure.draw_without_rendering()
    for ax in figure.axes:
        low, high = ax.get_xlim()
        ticks = [tick.label1 for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert len(ticks) >= 3
        for left, right in pairwise(tick.get_window_extent() for tick in ticks):
            assert right.x0 - left.x1 > left.height / 2


def test_final_differences_say_below_which_settings_have_no_row():
    table = estimates("text", ["speeches"])
    notes = {"weights": "W2 channel: 1 of 5 runs diverged\nW2 tensor: 5 of 5 runs diverged"} | NOTES
    plain, noted = (plots.final_differences(table, GROUPS, MARGIN, said) for said in ({}, notes))
    assert noted.get_supxlabel().splitlines() == [*notes["weights"].splitlines(), NOTES["together"]]
    assert plain.get_supxlabel() == ""
    assert noted.get_figheight() > plain.get_figheight()  # the notes take no room from the rows


@pytest.mark.parametrize("turned", [False, True])
def test_a_huge_ratio_is_a_number_and_leaves_the_small_ones_room(turned):
    table = estimates("text", ["all"], lambda setting, _: RATIOS[setting])
    if turned:
        table = table.assign(estimate=1 / table["estimate"], low=1 / table["high"], high=1 / table["low"])
    (ax,) = plots.sharpness(table, GROUPS).axes
    low, high = ax.get_xlim()
    assert high / low < 5
    others = table[table["setting"] != "m2 8 channel"]
    assert low < others["low"].min() < others["high"].max() < high
    assert [text.get_text() for text in ax.texts] == ["×0.0027 [0.0027, 0.0027]" if turned else "×370 [370, 370]"]
    (arrow,) = (line for line in ax.lines if line.get_marker() == ("<" if turned else ">"))
    assert arrow.get_ydata() == row_of(ax, "m2 8 channel")


numbers = st.floats(-2, 2, allow_nan=False)


@settings(max_examples=60)
@given(st.lists(st.tuples(numbers, numbers, numbers).map(sorted), min_size=1, max_size=8))
def test_an_axis_of_differences_cuts_no_interval_unless_it_is_very_wide(intervals):
    low, high = limits_of(pd.DataFrame(intervals, columns=["low", "estimate", "high"]), MARGIN)
    assert low <= -MARGIN < MARGIN <= high
    for least, estimate, most in intervals:
        assert low < estimate < high or abs(estimate) > REACH * MARGIN
        assert most <= high or least >= high or high > 2 * REACH * MARGIN
        assert least >= low or most <= low or low < -2 * REACH * MARGIN


def test_perplexities_have_a_line_at_the_baseline_of_each_text():
    table, figure = make("perplexities")
    for text, ax in panels(figure).items():
        own = table[table["text"] == text]
        baseline = own.loc[own["setting"] == BASELINE, "estimate"].item()
        assert ax.lines[0].get_xdata() == [baseline, baseline]
        assert {x for x, _ in dots(ax)} == set(own["estimate"])
        assert ax.get_xscale() == "log"
    with pytest.raises(UserError, match="no row of full precision on reviews"):
        plots.perplexities(table.drop(index=1), GROUPS)


def test_runs_without_and_with_outliers_share_a_row():
    table, figure = make("outlier_training")
    (ax,) = figure.axes
    points = [points for points in ax.collections if isinstance(points, mpl.collections.PathCollection)]
    without, with_outliers = (own for own in points if len(own.get_offsets()))
    assert without.get_facecolors().tolist() == [[1, 1, 1, 1]]
    assert 1 not in with_outliers.get_facecolors()[:, :3].min(axis=1)
    assert without.get_offsets()[:, 0].tolist() == table.loc[table["outliers"] == "none", "estimate"].tolist()
    assert (with_outliers.get_offsets()[:, 1] > without.get_offsets()[:, 1]).all()
    low, high = ax.get_xlim()
    assert low < table["low"].min() < 0.9 < table["high"].max() < high  # however large, none is cut
    assert not ax.texts
    with pytest.raises(UserError, match="room for two"):
        plots.outlier_training(estimates("outliers", ["none", "×8", "×64"]), GROUPS, MARGIN)


def test_surfaces_share_a_logarithmic_scale_and_show_every_magnitude_in_its_place():
    table, figure = make("surfaces")
    left, right = (ax.images[0] for ax in figure.axes[:2])
    assert left.norm is right.norm
    own = table[(table["model"] == "outliers")]
    expected = np.zeros((6, 8))
    expected[own["token"], own["channel"]] = own["magnitude"]
    assert np.array_equal(np.maximum(expected, right.norm.vmin), right.get_array())
    assert right.norm.vmax == table["magnitude"].max()
    assert (left.get_array() > 0).all()
    with pytest.raises(UserError, match="all magnitudes are 0"):
        plots.surfaces(table.assign(magnitude=0.0))


def test_the_baseline_is_in_every_panel_of_outliers_and_lines_are_the_table():
    table, figure = make("outliers")
    for panel, ax in panels(figure).items():
        own = table[(table["panel"] == panel) | (table["setting"] == BASELINE)]
        drawn = {tuple(line.get_ydata()) for line in ax.lines}
        assert drawn == {tuple(rows["mean"]) for _, rows in own.groupby("setting")}
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert {len(ax.lines) for ax in figure.axes} == {2}


def test_layers_stand_in_order_with_their_settings_one_below_another():
    table, figure = make("layer_errors")
    upper_left, upper_right, lower_left, lower_right = figure.axes
    assert upper_left.get_xscale() == lower_left.get_xscale() == "linear"
    assert upper_right.get_xscale() == lower_right.get_xscale() == "log"
    at = {layer: row_of(upper_left, name) for layer, name in short_names(LAYERS).items()}
    assert list(at.values()) == sorted(at.values())
    for ax, statistic in zip(figure.axes, [*table["statistic"].unique()] * 2, strict=True):
        for points in (own for own in ax.collections if isinstance(own, mpl.collections.PathCollection)):
            rows = table[table["statistic"] == statistic].assign(
                shown=lambda t: t["setting"].map(lambda s: wrapped(s, 14))
            )
            rows = rows[rows["shown"] == points.get_label()]
            assert points.get_offsets()[:, 0].tolist() == rows["mean"].tolist()
            away = points.get_offsets()[:, 1] - [at[layer] for layer in rows["layer"]]
            assert np.ptp(away) == pytest.approx(0)
            assert abs(away[0]) < min(after - before for before, after in pairwise(at.values())) / 2
    legends = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in (upper_right, lower_right)]
    assert legends[0] == ["W8 channel", "W4 tensor"]
    assert len(legends[1]) == 3


@pytest.mark.parametrize("statistic", ["relative L2 error", "cosine"])
def test_a_logarithmic_axis_of_what_is_0_or_absent_is_refused(statistic):
    with pytest.raises(UserError, match=f"'{statistic}' is not there, or 0"):
        plots.layer_errors(layers_table().assign(low=0.0), GROUPS, [statistic])


def test_layers_are_named_from_their_block_on_as_long_as_names_differ():
    assert list(short_names(LAYERS).values()) == ["0 attn.c_attn", "1 attn.c_attn", "10 mlp.c_proj", "lm_head"]
    assert short_names(["model.layers.1.mlp.gate_proj"]) == {"model.layers.1.mlp.gate_proj": "1 mlp.gate_proj"}
    same = ["encoder.0.fc", "decoder.0.fc"]
    assert short_names(same) == {name: name for name in same}


def test_histograms_are_the_shares_in_percent_over_the_edges():
    _, figure = make("magnitudes")
    for ax, shares in zip(figure.axes, ([10, 20, 70], [20, 30, 50], [60, 30, 10]), strict=True):
        steps = ax.patches[0].get_data()
        assert steps.values.tolist() == pytest.approx(shares)
        assert steps.edges.tolist() == [-3, -2, -1, 0]
    assert [tick.get_text() for tick in figure.axes[-1].get_xticklabels()] == ["−∞", "−2", "−1", "0"]


@pytest.mark.parametrize("bits", HALF_A_LEVEL)
def test_what_lies_left_of_a_line_is_what_a_quantiser_rounds_to_0(bits):
    threshold = 10 ** HALF_A_LEVEL[bits]
    values = torch.tensor([1.0, -1.001 * threshold, 0.999 * threshold], dtype=torch.float64)
    rounded = fake_quantize(values, Quantizer(bits=bits, granularity="tensor"), floor=1e-9)
    assert (rounded == 0).tolist() == [False, False, True]


def test_stacked_bars_end_at_the_bytes_over_those_of_full_precision():
    table, figure = make("memory")
    upper, lower = np.reshape(figure.axes, (2, 3))
    assert [ax.get_title(loc="left") for ax in upper] == [
        BASELINE, "W8 channel\n(paper)", "W8 channel\n(straight-through)",
    ]  # fmt: skip
    for ax, share in zip([*upper, *lower], [1, 0.8, 0.6] * 2, strict=True):
        tops = [bar.get_y() + bar.get_height() for bar in ax.containers[-1]]
        assert tops == pytest.approx([share] * 3)
        weights = [bar.get_height() for bar in ax.containers[0]]  # batch sizes from the least to the largest
        assert weights == pytest.approx([share * 400 / (500 + 30 * size) for size in (1, 4, 64)])
    with pytest.raises(UserError, match="no simulated bytes of full precision at batch size 64"):
        plots.memory(table[(table["setting"] != BASELINE) | (table["batch_size"] != 64)])
    many = pd.concat([table.assign(component=f"part {n}") for n in range(9)])
    with pytest.raises(UserError, match="9 components, 8 colours"):
        plots.memory(many)


labels = st.lists(
    st.sampled_from(["W8 channel", "A8 token", "m2 8 channel log-stochastic", "G4 group of 64 asymmetric"]), min_size=1
).map(" + ".join)


@given(labels, st.booleans(), st.integers(8, 40))
def test_a_label_broken_over_lines_loses_no_word_and_fits_unless_a_word_does_not(label, straight, width):
    label += ", straight-through" * straight
    lines = wrapped(label, width).split("\n")
    assert " ".join(lines) == label
    assert all(len(line) <= width or " " not in line for line in lines)


def test_a_label_is_broken_before_a_plus_where_it_can_be():
    assert wrapped("W8 channel + A8 token + G8 token", 22) == "W8 channel + A8 token\n+ G8 token"
    assert wrapped("m2 8 channel log-stochastic", 14) == "m2 8 channel\nlog-stochastic"
    assert wrapped("W8 channel + A8 token, straight-through", 16) == "W8 channel\n+ A8 token,\nstraight-through"


@settings(max_examples=25)
@given(st.floats(-4, 4), st.floats(0.02, 6))
def test_a_logarithmic_axis_has_enough_ticks_and_not_too_many(start, decades):
    ax = plt.figure().add_subplot()
    ax.set_xlim(10**start, 10 ** (start + decades))
    plain_log(ax.xaxis)
    low, high = ax.get_xlim()
    shown = [tick for tick in ax.get_xticks() if low <= tick <= high]
    assert 2 <= len(shown) <= 8
    assert all(float(ax.xaxis.get_major_formatter()(tick).replace(",", "")) == pytest.approx(tick) for tick in shown)
    plt.close(ax.figure)
