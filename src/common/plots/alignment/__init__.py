"""Figures of the alignment study: functions from tidy tables to a drawn figure, which compute nothing but layout."""

from common.plots.alignment.contrasts import contrast, merges, rows
from common.plots.alignment.curves import curves, frontier

__all__ = ["contrast", "curves", "frontier", "merges", "rows"]
