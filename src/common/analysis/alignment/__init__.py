"""The alignment study: what its table of runs must hold, tables beside the paper's, plateaus, claims."""

from common.alignment.evaluation import MEASURES
from common.analysis.alignment.beside import (
    TABLES,
    agreement,
    beside_paper,
    slerp_rows,
    spoken,
    spoken_of_starts,
    table_6,
    wide,
)
from common.analysis.alignment.claims import CELL, declare, evidence, spreads
from common.analysis.alignment.plateaus import NotIdentified, Plateau, fit_plateau, plateau_table
from common.analysis.alignment.runs import MAIN, PARTS, part, scored, summary
from common.analysis.alignment.tables import (
    adapters,
    compared,
    fidelities,
    frontier,
    means,
    merges,
    mixtures,
    of_largest,
    selections,
    sizes,
    unseen,
    varied,
)
from common.analysis.alignment.words import ALL_LIMITS, SUMMARIES

__all__ = [
    "ALL_LIMITS",
    "CELL",
    "MAIN",
    "MEASURES",
    "PARTS",
    "SUMMARIES",
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
    "means",
    "merges",
    "mixtures",
    "of_largest",
    "part",
    "plateau_table",
    "scored",
    "selections",
    "sizes",
    "slerp_rows",
    "spoken",
    "spoken_of_starts",
    "spreads",
    "summary",
    "table_6",
    "unseen",
    "varied",
    "wide",
]
