"""One look for every figure, names beside lines, forests, and the one way to save what was drawn."""

from common.figures.forests import forest, grouped_rows
from common.figures.labels import label_lines
from common.figures.saving import NO_STAMP, save_figure
from common.figures.style import COLUMN, INK, PAGE, PALETTE, RULE, use_style

__all__ = [
    "COLUMN",
    "INK",
    "NO_STAMP",
    "PAGE",
    "PALETTE",
    "RULE",
    "forest",
    "grouped_rows",
    "label_lines",
    "save_figure",
    "use_style",
]
