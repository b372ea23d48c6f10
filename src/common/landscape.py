"""The loss around a model's weights: how fast it rises next to them."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from common.training import Batch


def sharpness(
    model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], batches: Iterable[Batch], radius: float
) -> float:
    """m-sharpness: mean over `batches` b of L_b(w + radius·g_b/||g_b||) − L_b(w), in the unit of the loss.

    g_b is the gradient of L_b = `loss(model, batch)`, a scalar, over all trainable parameters at once, a tied one
    counted once. The step is the first-order solution of max L_b(w + e) over ||e|| <= radius; m is the batch size.
    Source: Foret et al., arXiv 2010.01412; for quantised models Chitsaz et al., arXiv 2407.11722: both losses pass
    through the quantisers, and g_b is what their backward pass gives.

    The model is in evaluation mode meanwhile. Its parameters, gradients and modes are left as they were, also after an
    exception. Batches are moved to the model's device.

    Raises `ValueError` on a radius that is not positive and finite, on no batches, on a model without trainable
    parameters, or on half-precision ones, whose rounding would swallow the step; `RuntimeError` where a gradient is
    zero or not finite or the loss at the end of the step is not finite.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"radius is {radius}, allowed: positive and finite")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    coarse = {str(parameter.dtype) for parameter in parameters if parameter.dtype.itemsize < 4}
    if coarse:
        raise ValueError(f"parameters in {', '.join(sorted(coarse))} swallow small steps: convert them to float32")
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no trainable parameter to move")
    device = parameters[0].device
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        rises = [
            _rise(model, loss, {name: value.to(device) for name, value in batch.items()}, parameters, radius)
            for batch in batches
        ]
    finally:
        for module, training in modes:
            module.training = training
    if not rises:
        raise ValueError("sharpness needs at least one batch, got none")
    return math.fsum(rises) / len(rises)


def _rise(
    model: nn.Module,
    loss: Callable[[nn.Module, Batch], Tensor],
    batch: Batch,
    parameters: list[nn.Parameter],
    radius: float,
) -> float:
    with torch.enable_grad():
        here = loss(model, batch)
        gradients = torch.autograd.grad(here, parameters, materialize_grads=True)
    norm = get_total_norm(gradients).item()
    if not 0 < norm < math.inf:
        raise RuntimeError(f"the gradient has norm {norm} at loss {here.item()}: sharpness has no direction to go")
    there = _loss_beside(model, loss, batch, parameters, gradients, radius / norm)
    if not math.isfinite(there):
        raise RuntimeError(f"the loss is {there} at distance {radius} from weights where it is {here.item()}")
    return there - here.item()


@torch.no_grad()
def _loss_beside(
    model: nn.Module,
    loss: Callable[[nn.Module, Batch], Tensor],
    batch: Batch,
    parameters: list[nn.Parameter],
    directions: tuple[Tensor, ...],
    step: float,
) -> float:
    # Other memory under the same parameters: taking a step back would not give the same bits.
    memories = [parameter.data for parameter in parameters]
    try:
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.data = torch.add(parameter, direction, alpha=step)
        return loss(model, batch).item()
    finally:
        for parameter, memory in zip(parameters, memories, strict=True):
            parameter.data = memory
