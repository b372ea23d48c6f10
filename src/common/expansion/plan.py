"""An expansion as a plan: from the tensors of a network to those of the expanded one, weights and moments alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.expansion.depth import Layer
from common.expansion.growth import Growth, along, grow, grow_moment
from common.units import Axes

Named = Mapping[str, Tensor]


class Naming(Protocol):
    """How a kind of network names its layers' tensors, and what a new layer of it is like."""

    def layer(self, name: str) -> int | None:
        """The layer that a tensor belongs to, None where it belongs to none."""

    def renamed(self, name: str, layer: int, layers: int) -> str:
        """What the same tensor is called in another layer, or outside of all, of a network of `layers` layers."""

    def silent(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor in a copy of its layer that leaves its input as it is."""

    def blank(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the shape that it has in a new layer, with the values of a new network where those are fixed."""


@dataclass(frozen=True)
class Plan:
    """How each tensor of an expanded network comes from an old one.

    `growths` has every group, `sizes` the old lengths of the groups along an axis, in entries; `layers` are those of
    the deeper network. `noise` is for copies, in standard deviations of a tensor; `next_layer` says whether what makes
    copies comes from the layer above (AKI). `seed` fixes what is drawn.
    """

    axes: Axes
    growths: Mapping[str, Growth]
    sizes: Mapping[str, int]
    layers: list[Layer]
    naming: Naming
    noise: float
    next_layer: bool
    seed: int

    def weights(self, old: Named) -> dict[str, Tensor]:
        """The weights of the expanded network by name."""
        generator = torch.Generator().manual_seed(self.seed)
        wide = {name: grow(old[name], self._along(name), generator, self.noise) for name in self.axes}

        def fresh(name: str, tensor: Tensor) -> Tensor:
            blank = self.naming.blank(name, tensor)
            if blank.dim() == 1:
                return blank
            drawn = torch.randn(blank.shape, generator=generator, dtype=torch.float64)
            return (drawn * tensor.double().std(correction=0)).to(tensor.dtype)

        return self._deepened(wide, {"silent": self.naming.silent, "fresh": fresh})

    def moments(self, old: Named, power: int) -> dict[str, Tensor]:
        """Adam's moments of the first or second power; zero in layers that are no copies and for fresh units."""
        wide = {name: grow_moment(old[name], self._along(name), power) for name in self.axes}

        def nothing(name: str, tensor: Tensor) -> Tensor:
            return torch.zeros_like(self.naming.blank(name, tensor))

        return self._deepened(wide, {"silent": nothing, "fresh": nothing})

    def _along(self, name: str) -> list[tuple[str, Growth] | None]:
        return [axis and (axis.role, along(axis, self.growths, self.sizes)) for axis in self.axes[name]]

    def _from_above(self, wide: Named) -> dict[str, Tensor]:
        """Copies beyond the first are made as the same units of the next layer are."""
        replaced = dict(wide)
        for name, tensor in wide.items():
            layer = self.naming.layer(name)
            above = None if layer is None else wide.get(self.naming.renamed(name, layer + 1, 0))
            if above is None or above.shape != tensor.shape:
                continue
            for dim, axis in enumerate(self.axes[name]):
                # A gain says how large the units of the stream are, which are the same in all layers.
                if axis is not None and axis.role == "out" and axis.groups != ("gain",):
                    later = along(axis, self.growths, self.sizes).later.nonzero().flatten()
                    replaced[name] = tensor.index_copy(dim, later, above.index_select(dim, later))
        return replaced

    def _deepened(self, wide: Named, changed: Mapping[str, Callable[[str, Tensor], Tensor]]) -> dict[str, Tensor]:
        wide = self._from_above(wide) if self.next_layer else wide
        deep = {}
        for name, tensor in wide.items():
            layer = self.naming.layer(name)
            if layer is None:
                deep[self.naming.renamed(name, 0, len(self.layers))] = tensor
                continue
            for number, new in enumerate(self.layers):
                if new.source == layer:
                    made = tensor if new.kind == "copy" else changed[new.kind](name, tensor)
                    deep[self.naming.renamed(name, number, len(self.layers))] = made
        return deep
