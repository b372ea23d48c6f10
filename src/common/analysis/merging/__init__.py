"""The merging study: its models and merges as grids, what they keep, its claims."""

from common.analysis.merging.claims import declare, evidence
from common.analysis.merging.grids import (
    FAMILIES,
    Plan,
    checked,
    comparisons,
    examined,
    makers,
    merges,
    rivals,
)
from common.analysis.merging.scores import (
    ablation_table,
    arm_table,
    best_settings,
    kept,
    part_table,
    path_table,
    plane_table,
)

__all__ = [
    "FAMILIES",
    "Plan",
    "ablation_table",
    "arm_table",
    "best_settings",
    "checked",
    "comparisons",
    "declare",
    "evidence",
    "examined",
    "kept",
    "makers",
    "merges",
    "part_table",
    "path_table",
    "plane_table",
    "rivals",
]
