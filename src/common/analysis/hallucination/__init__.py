"""From models of a world and what they answered to what the study's claims and figures rest on."""

from common.analysis.hallucination.arms import check_arms, kind_of, ladder_share, named, of_models
from common.analysis.hallucination.claims import declare, evidence
from common.analysis.hallucination.rates import chosen_rates
from common.analysis.hallucination.tables import (
    between_table,
    early_table,
    ladder_table,
    map_table,
    matched_table,
    size_table,
    tuning_table,
)

__all__ = [
    "between_table",
    "check_arms",
    "chosen_rates",
    "declare",
    "early_table",
    "evidence",
    "kind_of",
    "ladder_share",
    "ladder_table",
    "map_table",
    "matched_table",
    "named",
    "of_models",
    "size_table",
    "tuning_table",
]
