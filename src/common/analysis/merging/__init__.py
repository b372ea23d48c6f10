"""The merging study: its models and merges as grids, what they keep, its claims."""

from common.analysis.merging.claims import MERGEALIGN, TIED, declare, evidence
from common.analysis.merging.laboratory import Laboratory
from common.analysis.merging.scores import (
    PARENTS,
    ablation_table,
    arm_table,
    barriers,
    best_settings,
    cost_table,
    edges,
    kept,
    part_table,
    path_table,
    plane_table,
    shown,
    with_parents,
)
from common.analysis.merging.words import SUMMARY, spoken

__all__ = [
    "MERGEALIGN",
    "PARENTS",
    "SUMMARY",
    "TIED",
    "Laboratory",
    "ablation_table",
    "arm_table",
    "barriers",
    "best_settings",
    "cost_table",
    "declare",
    "edges",
    "evidence",
    "kept",
    "part_table",
    "path_table",
    "plane_table",
    "shown",
    "spoken",
    "with_parents",
]
