"""The expansion study: its runs, how well each predictor foresaw the gain, its claims."""

from common.analysis.expansion.claims import TASKS, check_walks, declare, evidence
from common.analysis.expansion.foresight import (
    PREDICTORS,
    RIVALS,
    RUN,
    choose_rates,
    gains,
    lead_table,
    oriented,
    power_table,
    regret,
    signs,
    with_run,
)
from common.analysis.expansion.laboratory import NONE, Laboratory
from common.analysis.expansion.tables import (
    change_table,
    choice_table,
    cost_table,
    curve_table,
    equal_table,
    flat,
    gain_table,
    pilot_table,
    spoken,
    surface_table,
    walk_correlations,
)
from common.analysis.expansion.words import SUMMARY

__all__ = [
    "NONE",
    "PREDICTORS",
    "RIVALS",
    "RUN",
    "SUMMARY",
    "TASKS",
    "Laboratory",
    "change_table",
    "check_walks",
    "choice_table",
    "choose_rates",
    "cost_table",
    "curve_table",
    "declare",
    "equal_table",
    "evidence",
    "flat",
    "gain_table",
    "gains",
    "lead_table",
    "oriented",
    "pilot_table",
    "power_table",
    "regret",
    "signs",
    "spoken",
    "surface_table",
    "walk_correlations",
    "with_run",
]
