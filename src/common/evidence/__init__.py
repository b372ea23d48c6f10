"""Evidence: from numbers by seed to intervals, from claims declared beforehand to verdicts and sentences."""

from common.evidence.claims import Claim, claims_table, decide, holm, write_claims
from common.evidence.comparisons import (
    Outcome,
    equivalent,
    greater,
    minus,
    non_inferior,
    paired_differences,
    require_varied,
    share_above,
)
from common.evidence.intervals import Interval, mean_interval, proportion_interval
from common.evidence.power import (
    MOST_SEEDS,
    detectable_effect,
    paired_power,
    seeds_needed,
    trials_needed,
)
from common.evidence.prose import prose

__all__ = [
    "MOST_SEEDS",
    "Claim",
    "Interval",
    "Outcome",
    "claims_table",
    "decide",
    "detectable_effect",
    "equivalent",
    "greater",
    "holm",
    "mean_interval",
    "minus",
    "non_inferior",
    "paired_differences",
    "paired_power",
    "proportion_interval",
    "prose",
    "require_varied",
    "seeds_needed",
    "share_above",
    "trials_needed",
    "write_claims",
]
