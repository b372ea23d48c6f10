"""Names of lines beside their ends, instead of a legend."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import ScaledTranslation
from scipy.optimize import isotonic_regression

from common.errors import UserError


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
