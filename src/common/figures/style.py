"""One look for every figure: widths, colours and matplotlib's defaults."""

import matplotlib as mpl
from cycler import cycler

COLUMN, PAGE = 3.4, 7.0  # widths in inches: one column, two columns
DPI = 200
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


def use_style() -> None:
    """Set matplotlib's defaults for figures read at column width: 7 to 8 pt, colour-blind-safe colours."""
    mpl.rcParams.update(STYLE)
