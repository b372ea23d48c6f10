"""What the quantisation study's claims and figures rest on: tables of runs and of examined tensors."""

from common.analysis.quantization.claims import (
    SETTINGS,
    declare,
    evidence,
)
from common.analysis.quantization.runs import (
    BASELINE,
    beside_the_authors,
    cells_at,
    choose_learning_rates,
    curve_table,
    difference_table,
    difference_tables,
    disagreements,
    diverged,
    divergence_notes,
    edges,
    effect_table,
    groups_of,
    perplexity_table,
    sharpness_table,
)
from common.analysis.quantization.tensors import (
    histogram,
    layer_table,
    of_runs,
    outlier_growth,
    outlier_table,
    surface_table,
)
from common.analysis.quantization.words import SUMMARY, spoken

__all__ = [
    "BASELINE",
    "SETTINGS",
    "SUMMARY",
    "beside_the_authors",
    "cells_at",
    "choose_learning_rates",
    "curve_table",
    "declare",
    "difference_table",
    "difference_tables",
    "disagreements",
    "diverged",
    "divergence_notes",
    "edges",
    "effect_table",
    "evidence",
    "groups_of",
    "histogram",
    "layer_table",
    "of_runs",
    "outlier_growth",
    "outlier_table",
    "perplexity_table",
    "sharpness_table",
    "spoken",
    "surface_table",
]
