"""Barriers of the loss on straight lines between weights: which minima are linearly connected.

Frankle et al. 2020, Linear mode connectivity and the lottery ticket hypothesis, arXiv 1912.05671.
"""

import torch
from torch import Tensor

from common.connectivity.vectors import Losses


def line_losses(losses: Losses, first: Tensor, second: Tensor, places: Tensor) -> Tensor:
    """Losses `(pairs, places)` on the lines from `first` to `second`, `(pairs, weights)`; places run from 0 to 1."""
    rows = [torch.lerp(first, second, place) for place in places.to(first)]
    return torch.stack([losses(row) for row in rows], dim=1)


def barriers(losses: Losses, first: Tensor, second: Tensor, points: int = 11) -> Tensor:
    """Loss barriers `(pairs,)`, in float64, between `first` and `second`, `(pairs, weights)`, in the unit of the loss.

    The largest height of the loss on the line over the straight line between its ends, at `points` places, ends
    included: sup_α L((1−α)θ₁ + αθ₂) − (1−α)L(θ₁) − αL(θ₂) (arXiv 2405.15895). It is never negative.
    Raises `ValueError` on fewer than three points, `RuntimeError` where a loss is not finite.
    """
    return heights(evenly(losses, first, second, points))


def evenly(losses: Losses, first: Tensor, second: Tensor, points: int) -> Tensor:
    """Losses `(pairs, points)`, in float64, at evenly spaced places, ends included; raises as `barriers`."""
    if points < 3:
        raise ValueError(f"points is {points}, allowed: 3 or more, as the ends have no height")
    found = line_losses(losses, first, second, torch.linspace(0, 1, points, dtype=torch.float64)).double()
    if not found.isfinite().all():
        raise RuntimeError(f"{int((~found.isfinite()).sum())} losses on {len(first)} lines are not finite")
    return found


def heights(lines: Tensor) -> Tensor:
    """Barriers `(pairs,)` of losses `(pairs, points)` at evenly spaced places of lines, see `barriers`."""
    places = torch.linspace(0, 1, lines.shape[1], dtype=lines.dtype, device=lines.device)
    ends = torch.lerp(lines[:, :1], lines[:, -1:], places)
    return (lines - ends).amax(1).clamp(min=0)


def pairs(count: int) -> tuple[Tensor, Tensor]:
    """Numbers of the two of each pair of so many, `(pairs,)` each."""
    rows, columns = torch.triu_indices(count, count, offset=1)
    return rows, columns


def matrix_of(values: Tensor, count: int) -> Tensor:
    """What is known of each of `pairs(count)` as a symmetric matrix `(count, count)` with a diagonal of zeros."""
    rows, columns = pairs(count)
    matrix = torch.zeros(count, count, dtype=torch.float64, device=values.device)
    matrix[rows, columns] = values
    return matrix + matrix.T


def barrier_matrix(losses: Losses, minima: Tensor, points: int = 11) -> Tensor:
    """Barriers between all pairs of `minima (count, weights)`; `(count, count)`, symmetric, its diagonal zero."""
    rows, columns = pairs(len(minima))
    found = barriers(losses, minima[rows], minima[columns], points) if len(rows) else torch.zeros(0)
    return matrix_of(found, len(minima))


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
