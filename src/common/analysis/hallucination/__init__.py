"""From models of a world and what they answered to what the study's claims and figures rest on."""

from common.analysis.hallucination.arms import check_arms, kind_of, ladder_share, named, of_models
from common.analysis.hallucination.claims import Basis, basis, evidence
from common.analysis.hallucination.declaring import declare
from common.analysis.hallucination.examples import examples_table
from common.analysis.hallucination.rates import check_learnt, chosen_rates, rates_table
from common.analysis.hallucination.resampling import bootstrapped
from common.analysis.hallucination.tables import (
    between_table,
    calibration_table,
    early_table,
    gained_table,
    ladder_table,
    map_table,
    matched_table,
    rarity_table,
    size_table,
    skill_table,
    temperature_table,
    tuning_table,
)
from common.analysis.hallucination.words import SUMMARY, counted, listed, spoken

__all__ = [
    "SUMMARY",
    "Basis",
    "basis",
    "between_table",
    "bootstrapped",
    "calibration_table",
    "check_arms",
    "check_learnt",
    "chosen_rates",
    "counted",
    "declare",
    "early_table",
    "evidence",
    "examples_table",
    "gained_table",
    "kind_of",
    "ladder_share",
    "ladder_table",
    "listed",
    "map_table",
    "matched_table",
    "named",
    "of_models",
    "rarity_table",
    "rates_table",
    "size_table",
    "skill_table",
    "spoken",
    "temperature_table",
    "tuning_table",
]
