"""Figures of the expansion study: functions from tables to a drawn figure."""

from common.plots.expansion.candidates import changes, curves, gains, rival_gains
from common.plots.expansion.minima import surfaces, walks
from common.plots.expansion.predictors import cost, equal, forest_by_task

__all__ = ["changes", "cost", "curves", "equal", "forest_by_task", "gains", "rival_gains", "surfaces", "walks"]
