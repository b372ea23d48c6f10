"""One look for every figure, and the one way to save it: as picture, as drawing and as the data it shows.

Text in an SVG is drawn as paths. As text it would be set by the viewer's fonts, which may be other ones, or as
wide as others, so that labels collide; as paths of DejaVu Sans, which comes with matplotlib, it looks the same
everywhere and the bytes depend on nothing but the versions installed.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike
from PIL import Image
from scipy.optimize import isotonic_regression

from common.errors import UserError
from common.files import write_atomic

COLUMN, PAGE = 3.4, 7.0  # widths in inches: one column, two columns
DPI = 200
LARGEST = 1_000_000  # bytes per file, so that a repository can carry the figures
# Okabe and Ito's palette, distinct in all common forms of colour blindness; yellow last as it fades on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
INK, RULE = "#222222", "#999999"

STYLE = {
    "figure.figsize": (COLUMN, 2.4),
    "figure.dpi": DPI,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "figure.titlesize": 8,
    "figure.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.use_mathtext": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "errorbar.capsize": 0,
    "axes.prop_cycle": cycler(color=PALETTE),
}
# What a file's bytes depend on is fixed when it is written, whatever was set before.
FIXED = {
    "svg.hashsalt": "figure",
    "svg.fonttype": "path",
    "savefig.bbox": "standard",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
}
NO_STAMP = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


def use_style() -> None:
    """Set matplotlib's defaults for figures read at column width: 7 to 8 pt, colour-blind-safe colours."""
    mpl.rcParams.update(STYLE)


def label_lines(ax: Axes, lines: Mapping[str, Line2D] | None = None) -> list[Annotation]:
    """Write each series' name beside the right end of its line, in its colour, instead of a legend.

    Names, of one line of text or more, stand in one column right of the axes, each as near to its line's end as the
    others allow, and a thin rule leads from the end to the name. `lines`: by name; by default all labelled lines and
    error bars of `ax`.
    Call it last, when limits and axis labels are set. Returns the names as drawn, in the order of `lines`.
    Raises `UserError` where there is nothing to label or more names than the axes are high.
    """
    if lines is None:
        handles, names = ax.get_legend_handles_labels()
        lines = {
            name: handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle
            for handle, name in zip(handles, names, strict=True)
        }
    if not lines:
        raise UserError("no labelled lines to write names beside; give plot a label")
    figure = ax.get_figure(root=True)
    figure.draw_without_rendering()  # settles the layout, and with it the height of the axes
    ends = np.array([_last_point(line) for line in lines.values()])
    wanted = ax.transAxes.inverted().transform(ax.transData.transform(ends))[:, 1]
    size = FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points()
    line_height = 1.25 * size / 72 * figure.dpi / ax.get_window_extent().height
    sizes = line_height * np.array([1 + name.count("\n") for name in lines])
    if sizes.sum() > 1 + sizes.min():
        raise UserError(f"{len(lines)} names do not fit beside axes of this height; draw fewer lines or enlarge")
    heights = _spread(np.clip(wanted, 0, 1), sizes)
    beside = ax.transAxes + ScaledTranslation(6 / 72, 0, figure.dpi_scale_trans)
    return [
        ax.annotate(
            name,
            xy=end,
            xytext=(1, height),
            textcoords=beside,
            va="center",
            fontsize=size,
            linespacing=1.1,
            color=_legible(line.get_color()),
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )
        for (name, line), end, height in zip(lines.items(), ends, heights, strict=True)
    ]


def forest(
    ax: Axes,
    labels: Sequence[str],
    estimates: ArrayLike,
    lows: ArrayLike,
    highs: ArrayLike,
    band: tuple[float, float] | None = None,
    colors: Sequence[str] | None = None,
    rows: ArrayLike | None = None,
    line: float | None = 0,
) -> PathCollection:
    """Estimates as dots with their intervals as bars, one row per arm, the first on top, and a line at zero.

    `labels`, `estimates`, `lows`, `highs`, `colors`, `rows`: `(arms,)`. `band`: range of differences too small to
    matter, shaded. `rows`: heights, from the top down, by default 0, 1, 2 and so on. `line`: where the line stands,
    None for no line. The caller names the x axis. Returns the dots. Raises `UserError` on no arms, unequal lengths,
    NaN or inf, and where not low ≤ estimate ≤ high.
    """
    mid, low, high = (np.asarray(numbers, dtype=np.float64) for numbers in (estimates, lows, highs))
    colors = [PALETTE[0]] * len(labels) if colors is None else colors
    if not len(labels) or {mid.shape, low.shape, high.shape, (len(colors),)} != {(len(labels),)}:
        raise UserError(f"{len(labels)} labels, shapes {mid.shape}, {low.shape}, {high.shape}, {len(colors)} colours")
    for label, *numbers in zip(labels, low, mid, high, strict=True):
        if not np.isfinite(numbers).all() or numbers != sorted(numbers):
            raise UserError(f"{label}: low, estimate, high are {numbers}; must be finite and in this order")
    if band is not None:
        ax.axvspan(*band, color="#E8E8E8", linewidth=0, zorder=0)
    if line is not None:
        ax.axvline(line, color=RULE, linewidth=0.6, zorder=1)
    rows = np.arange(len(labels)) if rows is None else np.asarray(rows, dtype=np.float64)
    ax.hlines(rows, low, high, color=colors, linewidth=1.4)
    dots = ax.scatter(mid, rows, color=colors, s=14, zorder=3)
    ax.set_yticks(rows, labels)
    ax.set_ylim(rows.max() + 0.5, rows.min() - 0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return dots


def save_figure(fig: Figure, folder: Path, name: str, data: pd.DataFrame) -> None:
    """Write `name`.svg, `name`.png (200 dpi) and `name`.csv, the drawn data, into `folder`; close the figure.

    Equal figures give equal bytes. All three are made before the first is written, each written whole or not
    at all. Floats in the CSV keep every digit that tells them apart; a named index becomes columns.
    Raises `UserError` where data are empty or hold NaN or inf, axes are empty or lack a label (ticks that are
    words, and axes that share a labelled one, need none), matplotlib warns of a drawing that went wrong (a
    character its font lacks, no room for the layout), or a file exceeds 1 MB: many points must then be drawn
    with `rasterized=True`.
    """
    _check_data(data, name)
    table = data if data.index.names == [None] else data.reset_index()
    files = {"csv": table.to_csv(index=False, lineterminator="\n").encode()}
    try:
        with mpl.rc_context(FIXED), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            _check_axes(fig, name)
            for kind, metadata in NO_STAMP.items():
                buffer = io.BytesIO()
                fig.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
                files[kind] = buffer.getvalue()
            files["png"] = _with_palette(files["png"])
    except UserWarning as warning:
        raise UserError(f"figure {name}: {warning}") from warning
    for kind, content in files.items():
        if len(content) > LARGEST:
            raise UserError(
                f"{name}.{kind} has {len(content):,} bytes, allowed are {LARGEST:,}; "
                "draw dense artists with rasterized=True, or fewer points"
            )
    for kind, content in files.items():
        write_atomic(Path(folder) / f"{name}.{kind}", content)
    plt.close(fig)


def _with_palette(png: bytes) -> bytes:
    """The picture in 256 colours, at a third of the bytes; drawings have few, and a colour map's steps stay unseen."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        reduced = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        reduced.save(buffer, format="png", dpi=(DPI, DPI), optimize=True)
    return buffer.getvalue()


def _spread(wanted: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Middles, in 0 to 1, of things of these sizes, none on another, in the order of `wanted` and nearest to it."""
    order = np.argsort(wanted, kind="stable")
    offsets = np.cumsum(sizes[order]) - sizes[order] / 2
    offsets -= offsets[0]
    room = max(0.0, 1 - offsets[-1])
    heights = np.empty_like(wanted)
    heights[order] = np.clip(isotonic_regression(wanted[order] - offsets).x, 0, room) + offsets
    return heights


def _legible(color: str) -> tuple[float, ...]:
    """The colour, darkened where needed for text on white: contrast 4.5 or more (WCAG 2, level AA)."""
    rgb = np.array(to_rgb(color))
    luminance = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return tuple(rgb * min(1.0, (0.17 / max(luminance, 1e-9)) ** (1 / 2.2)))


def _last_point(line: Line2D) -> tuple[float, float]:
    points = line.get_xydata()
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        raise UserError(f"line {line.get_label()!r} has no point to write its name beside")
    return tuple(points[points[:, 0].argmax()])


def _check_data(data: pd.DataFrame, name: str) -> None:
    if data.empty:
        raise UserError(f"figure {name}: its data are empty")
    broken = data.isna() | data.isin([np.inf, -np.inf])
    if broken.any(axis=None):
        column = broken.any().idxmax()
        raise UserError(f"figure {name}: NaN or inf in column {column!r}, row {broken[column].to_numpy().argmax()}")


def _check_axes(fig: Figure, name: str) -> None:
    shown = [ax for ax in fig.axes if ax.axison and ax.get_visible()]
    if not shown:
        raise UserError(f"figure {name}: it has no axes")
    fig.draw_without_rendering()  # settles tick labels
    for number, ax in enumerate(shown, start=1):
        if not ax.has_data():
            raise UserError(f"figure {name}: nothing is drawn in axes {number} of {len(shown)}")
        if hasattr(ax, "_colorbar"):
            if not (ax.get_xlabel().strip() or ax.get_ylabel().strip()):
                raise UserError(f"figure {name}: the colour bar has no label")
            continue
        for which, common in (("x", "get_supxlabel"), ("y", "get_supylabel")):
            sharing = getattr(ax, f"get_shared_{which}_axes")().get_siblings(ax)
            axes = [getattr(other, f"{which}axis") for other in sharing]
            above = {ax.get_figure(root=False), fig}
            if not any(map(_is_labelled, axes)) and not any(getattr(f, common)() for f in above):
                raise UserError(f"figure {name}: axes {number} of {len(shown)} have no {which} label")


def _is_labelled(axis: Axis) -> bool:
    """Whether the axis has a label, is not shown, or has words for ticks, which name themselves."""
    if axis.get_label_text().strip() or not axis.get_visible():
        return True
    return any(tick.get_text()[:1].isalpha() for tick in axis.get_ticklabels())
