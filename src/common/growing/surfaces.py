"""Slices of the loss surface: the plane through three minima, Garipov et al. 2018, arXiv 1802.10026, section 3."""

import torch
from torch import nn

from common.connectivity import canonical, flatten, losses_of
from common.growing.tasks import Task
from common.predictors import Walk, continuations

MARGIN = 0.4  # of the triangle's extent, around it


def plane(
    model: nn.Module, task: Task, walk: Walk, places: int, seed: int
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Losses at `places` × `places` points of the plane through the first three minima, and where these lie in it.

    Coordinates are distances in weights, divided by the norm of the weights that the continuations start from: x along
    the way from the first minimum to the second, y at a right angle to it. Rows: x, y, loss; and `minimum`, x, y, loss.
    """
    start = canonical(model)
    ends = continuations(start, task.loss, task.continued(seed), walk)[:3]
    first, second, third = torch.stack([flatten(end) for end in ends]).double()
    scale = flatten(start).double().norm()
    along = (second - first) / (second - first).norm()
    across = third - first - ((third - first) @ along) * along
    across /= across.norm()
    corners = (torch.stack([first, second, third]) - first) @ torch.stack([along, across], dim=1)
    low, high = corners.amin(0), corners.amax(0)
    room = MARGIN * (high - low).max()
    lines = [torch.linspace(float(a - room), float(b + room), places).to(along) for a, b in zip(low, high, strict=True)]
    xs, ys = (each.flatten() for each in torch.meshgrid(*lines, indexing="ij"))
    losses = losses_of(start, task.loss, task.judged)
    found = losses((first + xs[:, None] * along + ys[:, None] * across).float())
    at = losses(torch.stack([first, second, third]).float())
    surface = [
        {"x": x / scale.item(), "y": y / scale.item(), "loss": loss}
        for x, y, loss in zip(xs.tolist(), ys.tolist(), found.tolist(), strict=True)
    ]
    minima = [
        {"minimum": number, "x": x / scale.item(), "y": y / scale.item(), "loss": loss}
        for number, ((x, y), loss) in enumerate(zip(corners.tolist(), at.tolist(), strict=True), start=1)
    ]
    return surface, minima
