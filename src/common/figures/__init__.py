"""One look for every figure, names beside lines, forests, and the one way to save what was drawn."""

from common.figures.forests import forest
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
    "label_lines",
    "save_figure",
    "use_style",
]
