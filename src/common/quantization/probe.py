"""What quantisers really changed, noted where their results are used: nothing is noted unless asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Plain module state: autograd runs backward passes on GPUs in threads of its own, which see no context variable.
_open: list["Effect"] = []


class Effect:
    """Relative errors ||Q(x)-x|| / ||x|| by (component, layer), pooled over all calls noted."""

    def __init__(self) -> None:
        self._squares: dict[tuple[str, str], tuple[float, float]] = {}

    def add(self, component: str, layer: str, exact: Tensor, used: Tensor) -> None:
        error, size = self._squares.get((component, layer), (0.0, 0.0))
        exact, used = (tensor.detach().to("cpu", torch.float64) for tensor in (exact, used))
        self._squares[component, layer] = (
            error + (used - exact).square().sum().item(),
            size + exact.square().sum().item(),
        )

    def relative_errors(self) -> dict[tuple[str, str], float]:
        """||Q(x)-x|| / ||x|| by (component, layer); NaN for a tensor of zeros."""
        return {key: (error / size) ** 0.5 if size else float("nan") for key, (error, size) in self._squares.items()}


def note(component: str, layer: str, exact: Tensor, used: Tensor) -> None:
    """Add what a quantiser of `component` did in `layer` to the effects being recorded, if any."""
    for effect in _open:
        effect.add(component, layer, exact, used)


@contextmanager
def recording() -> Iterator[Effect]:
    """Record the quantisers' effect in the forward and backward passes and optimiser steps inside the block."""
    effect = Effect()
    _open.append(effect)
    try:
        yield effect
    finally:
        _open.remove(effect)
