"""Where the minima of a loss lie to each other: barriers, matched units, volumes, curvature.

losses = losses_of(model, loss, batch)                    # of many weight vectors at once
barrier_matrix(losses, torch.stack([flatten(each) for each in models]))
permuted(other, match(model, other))                      # the other's units in the model's order
"""

from common.connectivity.barriers import (
    barrier_matrix,
    barriers,
    connected,
    evenly,
    heights,
    line_losses,
    matrix_of,
    pairs,
)
from common.connectivity.curvature import hessian_trace
from common.connectivity.matching import match, permuted
from common.connectivity.symmetries import canonical
from common.connectivity.vectors import flatten, losses_of, unflatten
from common.connectivity.volumes import edge_spectrum, log_volume

__all__ = [
    "barrier_matrix",
    "barriers",
    "canonical",
    "connected",
    "edge_spectrum",
    "evenly",
    "flatten",
    "heights",
    "hessian_trace",
    "line_losses",
    "log_volume",
    "losses_of",
    "match",
    "matrix_of",
    "pairs",
    "permuted",
    "unflatten",
]
