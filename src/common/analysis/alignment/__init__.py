"""The alignment study: what its table of runs must hold, tables beside the paper's, plateaus, claims."""

from common.alignment.evaluation import MEASURES
from common.analysis.alignment.beside import TABLES, agreement, beside_paper, slerp_rows, spoken, table_6, wide
from common.analysis.alignment.claims import CELL, declare, evidence, spreads
from common.analysis.alignment.plateaus import NotIdentified, Plateau, fit_plateau, plateau_table
from common.analysis.alignment.runs import MAIN, PARTS, part, scored, summary
from common.analysis.alignment.tables import (
    adapters,
    compared,
    fidelities,
    frontier,
    merges,
    mixtures,
    of_largest,
    sizes,
    varied,
)
from common.analysis.alignment.words import SUMMARY

__all__ = [
    "CELL",
    "MAIN",
    "MEASURES",
    "PARTS",
    "SUMMARY",
    "TABLES",
    "NotIdentified",
    "Plateau",
    "adapters",
    "agreement",
    "beside_paper",
    "compared",
    "declare",
    "evidence",
    "fidelities",
    "fit_plateau",
    "frontier",
    "merges",
    "mixtures",
    "of_largest",
    "part",
    "plateau_table",
    "scored",
    "sizes",
    "slerp_rows",
    "spoken",
    "spreads",
    "summary",
    "table_6",
    "varied",
    "wide",
]
