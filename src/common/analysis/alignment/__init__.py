"""The alignment study: what its table of runs must hold, tables beside the paper's, plateaus, claims."""

from common.alignment.evaluation import MEASURES
from common.analysis.alignment.beside import (
    TABLES,
    agreed,
    agreement,
    beside_paper,
    slerp_rows,
    table_6,
    wide,
)
from common.analysis.alignment.claims import CELL, declare, evidence, spreads
from common.analysis.alignment.plateaus import NotIdentified, Plateau, fit_plateau, plateau_table
from common.analysis.alignment.runs import MAIN, PARTS, part, scored, summary
from common.analysis.alignment.spoken import edges, spoken, spoken_of_limits
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
from common.analysis.alignment.words import AGREEMENT, ALL_LIMITS, EDGES, SUMMARIES

__all__ = [
    "AGREEMENT",
    "ALL_LIMITS",
    "CELL",
    "EDGES",
    "MAIN",
    "MEASURES",
    "PARTS",
    "SUMMARIES",
    "TABLES",
    "NotIdentified",
    "Plateau",
    "adapters",
    "agreed",
    "agreement",
    "beside_paper",
    "compared",
    "declare",
    "edges",
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
    "spoken_of_limits",
    "spreads",
    "summary",
    "table_6",
    "unseen",
    "varied",
    "wide",
]
