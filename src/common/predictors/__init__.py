"""Predictors of how well a network will train on: the manifold of minima, and its rivals.

    measure(model, loss, batches, judged, outputs, Walk())     # M, M_C and what they come from
    snip(model, loss, batch)                                   # and so on, without training

The sharpness is `common.landscape.sharpness`, the trace of the Hessian `common.connectivity.hessian_trace`, the number
of parameters `common.models.parameter_count`.
"""

from common.predictors.continuations import POINTS, Manifold, Walk, continuations, measure, sized
from common.predictors.manifold import reach, reach_size, simplex_size, volume_per_function
from common.predictors.short_run import short_run
from common.predictors.zero_cost import gradient_norm, loss_before, naswot, snip, synflow

__all__ = [
    "POINTS",
    "Manifold",
    "Walk",
    "continuations",
    "gradient_norm",
    "loss_before",
    "measure",
    "naswot",
    "reach",
    "reach_size",
    "short_run",
    "simplex_size",
    "sized",
    "snip",
    "synflow",
    "volume_per_function",
]
