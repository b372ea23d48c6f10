"""How a group of units grows, and what that does to a tensor that makes or reads them.

A unit of the wider network is a copy of one of the old, or fresh. Where a copy's value is `forward` times the old one's
and the gradient with respect to it `backward` times the old one's gradient, then

    weight'[o, i]   = weight[old(o), old(i)] · forward_o · backward_i
    gradient'[o, i] = gradient[old(o), old(i)] · backward_o · forward_i

with o the units that a tensor makes and i those that it reads. The network computes what it did where Σ forward ·
backward = 1 over the copies of each old unit. Adam's first moment goes as the gradient, the second as its square.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from common.units import Axis

FRESH = -1


@dataclass(frozen=True)
class Growth:
    """The units of a wider group.

    `source (new,)`: the old unit that each is a copy of, or `FRESH`; `forward (new,)` and `backward (new,)` as above,
    in float64, of no meaning for fresh ones. `made` says what makes fresh units: random entries, zeros, or the mean of
    the entries that make the others; `read`, what reads them.
    """

    source: Tensor
    forward: Tensor
    backward: Tensor
    made: Literal["random", "zero", "mean"] = "random"
    read: Literal["random", "zero"] = "random"

    @property
    def fresh(self) -> Tensor:
        return self.source == FRESH

    @property
    def later(self) -> Tensor:
        """Which units are copies of an old one that an earlier unit is a copy of already; `(new,)`, boolean."""
        first = {}
        for place, unit in enumerate(self.source.tolist()):
            first.setdefault(unit, place)
        return torch.tensor([u != FRESH and first[u] != place for place, u in enumerate(self.source.tolist())])

    def spread(self, size: int) -> "Growth":
        """The same for units of `size` entries each."""
        within = torch.arange(size)
        source = torch.where(self.fresh[:, None], FRESH, self.source[:, None] * size + within).flatten()
        wide = {name: getattr(self, name).repeat_interleave(size) for name in ("forward", "backward")}
        return replace(self, source=source, **wide)


def copies(source: Tensor) -> Tensor:
    """How many copies there are of the unit that each is a copy of; `(new,)`, 1 for fresh ones."""
    counts = torch.bincount(source[source != FRESH], minlength=1)
    return torch.where(source == FRESH, 1, counts[source.clamp(min=0)])


def split(source: Tensor, **fresh: str) -> Growth:
    """Units with their old values, whose readers share the old weight evenly."""
    return Growth(source, torch.ones(len(source), dtype=torch.float64), 1 / copies(source).double(), **fresh)


def along(axis: Axis, growths: Mapping[str, Growth], sizes: Mapping[str, int]) -> Growth:
    """The growth along an axis; `sizes` are the old lengths of the groups along it, in entries."""
    parts, start = [], 0
    for group in axis.groups:
        part = growths[group]
        parts.append(replace(part, source=torch.where(part.fresh, FRESH, part.source + start)))
        start += sizes[group]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("source", "forward", "backward")}
    return replace(parts[0], **joined)


def grow(
    tensor: Tensor, axes: Sequence[tuple[str, Growth] | None], generator: torch.Generator, noise: float = 0.0
) -> Tensor:
    """A parameter of the wider network from the old one's. `axes` has the role and growth of each axis, or None.

    Fresh entries that are to be random are normal with the old tensor's standard deviation, or zero in a bias. Copies
    beyond the first get normal noise of `noise` such deviations in what makes them.
    """
    spread = tensor.double().std(correction=0).item()
    wide = _scaled(tensor, axes, power=0)
    for dim, axis in sorted(enumerate(axes), key=lambda item: item[1] is not None and item[1][0] == "out"):
        if axis is None:
            continue
        role, growth = axis
        places = growth.fresh.nonzero().flatten()
        if len(places):
            wide.index_copy_(dim, places, _fresh(wide, dim, growth, role, spread, generator))
        places = growth.later.nonzero().flatten()
        if noise and role == "out" and len(places):
            drawn = torch.randn(_shape(wide, dim, len(places)), generator=generator, dtype=torch.float64)
            wide.index_add_(dim, places, drawn, alpha=noise * spread)
    return wide.to(tensor.dtype)


def grow_moment(tensor: Tensor, axes: Sequence[tuple[str, Growth] | None], power: int) -> Tensor:
    """Adam's moment of this power for the wider network; zero where a unit is fresh, which has no past."""
    wide = _scaled(tensor, axes, power)
    for dim, axis in enumerate(axes):
        if axis is not None:
            wide.index_fill_(dim, axis[1].fresh.nonzero().flatten(), 0.0)
    return wide.to(tensor.dtype)


def _scaled(tensor: Tensor, axes: Sequence[tuple[str, Growth] | None], power: int) -> Tensor:
    wide = tensor.detach().cpu().double()
    for dim, axis in enumerate(axes):
        if axis is None:
            continue
        role, growth = axis
        # A weight takes what its unit gives forward where it makes it; a gradient, what comes back.
        factor = growth.forward if (role == "out") == (power == 0) else growth.backward
        shape = [-1 if place == dim else 1 for place in range(wide.dim())]
        wide = wide.index_select(dim, growth.source.clamp(min=0)) * (factor ** max(1, power)).view(shape)
    return wide


def _fresh(wide: Tensor, dim: int, growth: Growth, role: str, spread: float, generator: torch.Generator) -> Tensor:
    shape = _shape(wide, dim, int(growth.fresh.sum()))
    how = growth.made if role == "out" else growth.read
    if how == "mean":
        kept = wide.index_select(dim, (~growth.fresh).nonzero().flatten())
        return kept.mean(dim, keepdim=True).expand(shape).clone()
    if how == "zero" or wide.dim() == 1:
        return torch.zeros(shape, dtype=torch.float64)
    return spread * torch.randn(shape, generator=generator, dtype=torch.float64)


def _shape(wide: Tensor, dim: int, length: int) -> list[int]:
    return [length if place == dim else size for place, size in enumerate(wide.shape)]
