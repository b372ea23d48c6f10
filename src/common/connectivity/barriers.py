"""Barriers of the loss on straight lines between weights: which minima are linearly connected.

Frankle et al. 2020, Linear mode connectivity and the lottery ticket hypothesis, arXiv 1912.05671.
"""

import torch
from torch import Tensor

from common.connectivity.vectors import Losses


def line_losses(losses: Losses, first: Tensor, second: Tensor, places: Tensor) -> Tensor:
    """Losses `(pairs, places)` on the lines from `first` to `second`, `(pairs, weights)`; places run from 0 to 1."""
    rows = [torch.lerp(first, second, place) for place in places.to(first.dtype)]
    return torch.stack([losses(row) for row in rows], dim=1)


def barriers(losses: Losses, first: Tensor, second: Tensor, points: int = 11) -> Tensor:
    """Loss barriers `(pairs,)`, in float64, between `first` and `second`, `(pairs, weights)`, in the unit of the loss.

    The largest height of the loss on the line over the straight line between its ends, at `points` places, ends
    included: sup_α L((1−α)θ₁ + αθ₂) − (1−α)L(θ₁) − αL(θ₂) (arXiv 2405.15895). It is never negative.
    Raises `ValueError` on fewer than three points, `RuntimeError` where a loss is not finite.
    """
    if points < 3:
        raise ValueError(f"points is {points}, allowed: 3 or more, as the ends have no height")
    places = torch.linspace(0, 1, points, dtype=torch.float64)
    found = line_losses(losses, first, second, places).double()
    if not found.isfinite().all():
        raise RuntimeError(f"{int((~found.isfinite()).sum())} losses on {len(first)} lines are not finite")
    ends = torch.lerp(found[:, :1], found[:, -1:], places)
    return (found - ends).amax(1).clamp(min=0)


def barrier_matrix(losses: Losses, minima: Tensor, points: int = 11) -> Tensor:
    """Barriers between all pairs of `minima (count, weights)`; `(count, count)`, symmetric, its diagonal zero."""
    rows, columns = torch.triu_indices(len(minima), len(minima), offset=1)
    matrix = torch.zeros(len(minima), len(minima), dtype=torch.float64)
    if len(rows):
        matrix[rows, columns] = barriers(losses, minima[rows], minima[columns], points)
    return matrix + matrix.T


def connected(matrix: Tensor, tolerance: float) -> Tensor:
    """The largest set of minima between all pairs of which the barrier is at most `tolerance`; indices, in order.

    Of equally large sets the one whose first indices are the smallest. `matrix` is what `barrier_matrix` gives; the
    search is by branching and is meant for tens of minima.
    """
    near = (matrix <= tolerance).tolist()
    best: list[int] = []

    def extend(chosen: list[int], left: list[int]) -> None:
        nonlocal best
        if len(chosen) > len(best):
            best = chosen
        for place, candidate in enumerate(left):
            if len(chosen) + len(left) - place <= len(best):
                return
            extend([*chosen, candidate], [other for other in left[place + 1 :] if near[candidate][other]])

    extend([], list(range(len(near))))
    return torch.tensor(best)
