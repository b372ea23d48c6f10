"""The one way to save a figure: as picture, as drawing and as the data it shows, once all three are found sound.

Text in an SVG is drawn as paths. As text it would be set by the viewer's fonts, which may be other ones, or as
wide as others, so that labels collide; as paths of DejaVu Sans, which comes with matplotlib, it looks the same
everywhere and the bytes depend on nothing but the versions installed.
"""

import io
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from PIL import Image

from common.errors import UserError
from common.figures.style import DPI
from common.files import write_atomic

LARGEST = 1_000_000  # bytes per file, so that a repository can carry the figures
# What a file's bytes depend on is fixed when it is written, whatever was set before.
FIXED = {
    "svg.hashsalt": "figure",
    "svg.fonttype": "path",
    "savefig.bbox": "standard",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
}
NO_STAMP = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


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
