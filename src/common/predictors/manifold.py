"""The size of the manifold of minima that are reached from a network's weights: three definitions.

arXiv 2405.15895 predicts which expansion will train best from how the size of the manifold of linearly connected
minima changes with it. Its formula is not known to us: these are our own operationalisations. All take the weights θ
`(weights,)` at which a network stands and those θ_k `(continuations, weights)` at which short training runs from there
end, the data in another order in each; the change is the expanded network's size minus its base's.
"""

import torch
from torch import Tensor

from common.connectivity import edge_spectrum
from common.connectivity.vectors import Losses


def mean_log_spread(points: Tensor) -> float:
    """Mean of ½ ln λ over the non-zero eigenvalues λ of the centred Gram matrix of `points (count, size)`.

    The log-volume of the points' simplex per dimension, but for a constant. Raises `RuntimeError` where they do not
    span count − 1 dimensions: then there is no such volume.
    """
    spectrum = edge_spectrum(points)
    # Rounding leaves about this much where there should be none.
    if not spectrum[-1] > spectrum[0] * 1e-12:
        raise RuntimeError(f"{len(points)} points lie in fewer than {len(spectrum)} dimensions: two of them coincide?")
    return 0.5 * spectrum.log().mean().item()


def volume_per_function(start: Tensor, minima: Tensor, outputs: Tensor, losses: Tensor) -> float:
    """M = ½⟨ln λ(G_w)⟩ − ½⟨ln λ(G_f)⟩ − ln L̄: volume of the minima per volume of their functions, at their loss.

    G_w is the centred Gram matrix of (θ_k − θ) / ‖θ‖; G_f that of the outputs `(continuations, probes, classes)`, each
    probe's logits less their mean over classes, which no softmax sees, divided by the number of probes; L̄ the mean of
    `losses`, of any shape: training losses on the lines between all pairs of minima, ends included, so that a barrier
    between two of them counts against.
    """
    weights = mean_log_spread((minima - start) / start.norm())
    functions = outputs.double() - outputs.double().mean(-1, keepdim=True)
    spread = mean_log_spread(functions.flatten(1) / functions.shape[1] ** 0.5)
    return weights - spread - losses.double().mean().log().item()


def simplex_size(start: Tensor, minima: Tensor) -> float:
    """M_C = 1/(K−1) Σ_j ln σ_j([θ_k − θ̄]) − ln ‖θ‖: log-volume per dimension of the simplex of minima, relative to θ.

    `minima` are those connected to each other, K of them; σ are the singular values of the centred minima.
    """
    return mean_log_spread(minima) - start.norm().double().log().item()


def reach_size(start: Tensor, minima: Tensor, reach: Tensor) -> float:
    """M_R = 1/K Σ_j ln σ_j([R_k (θ_k − θ)]) − ln ‖θ‖: how far one gets towards each minimum before the loss rises.

    `reach (continuations,)` is what `reach` gives. Unlike in M_C the start counts as a corner.
    """
    steps = (reach[:, None] * (minima - start)).double()
    spectrum = torch.linalg.eigvalsh(steps @ steps.T)
    if not spectrum[0] > spectrum[-1] * 1e-12:
        raise RuntimeError(f"{len(minima)} directions span fewer dimensions: two of them coincide?")
    return 0.5 * spectrum.log().mean().item() - start.norm().double().log().item()


def reach(losses: Losses, start: Tensor, minima: Tensor, tolerance: float, farthest: float = 3.0) -> Tensor:
    """R_k, `(continuations,)`: the last t, up to `farthest`, before L(θ + t(θ_k − θ)) exceeds L(θ) by `tolerance`.

    Looked for in steps of a twentieth, and between the last two by a straight line.
    """
    places = torch.arange(0, farthest + 0.025, 0.05, dtype=start.dtype)
    found = torch.stack([losses(start + place * (minima - start)) for place in places], dim=1).double()
    over = found > found[:, :1] + tolerance
    distance = torch.full((len(minima),), farthest, dtype=torch.float64, device=start.device)
    for row in over.any(1).nonzero().flatten().tolist():
        first = int(over[row].nonzero()[0])
        below, above = (found[row, first - 1] - found[row, 0], found[row, first] - found[row, 0])
        share = (tolerance - below) / (above - below) if above.isfinite() else 0.0
        distance[row] = places[first - 1] + share * 0.05
    return distance
