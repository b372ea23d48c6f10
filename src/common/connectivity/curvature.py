"""Curvature of the loss at a model's weights."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.training import Batch


def hessian_trace(
    model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], batch: Batch, *, samples: int, seed: int = 0
) -> float:
    """Trace of the Hessian of `loss(model, batch)` over all trainable parameters, in the unit of the loss.

    Hutchinson's estimate: the mean of vᵀHv over `samples` vectors v of random signs, which `seed` fixes. Source: Yao et
    al. 2020, PyHessian, arXiv 1912.07145. The model is in evaluation mode meanwhile and its gradients are untouched.
    Raises `ValueError` without samples, `RuntimeError` where the estimate is not finite.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}, allowed: 1 or more")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        # The fused attention kernels have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            gradients = torch.autograd.grad(loss(model, batch), parameters, create_graph=True, materialize_grads=True)
            found = [_quadratic_form(gradients, parameters, generator) for _ in range(samples)]
    finally:
        for module, training in modes:
            module.training = training
    trace = math.fsum(found) / samples
    if not math.isfinite(trace):
        raise RuntimeError(f"the trace of the Hessian is {trace}")
    return trace


def _quadratic_form(gradients: tuple[Tensor, ...], parameters: list[nn.Parameter], generator: torch.Generator) -> float:
    signs = [
        (torch.randint(2, parameter.shape, generator=generator) * 2 - 1).to(parameter.device, parameter.dtype)
        for parameter in parameters
    ]
    slope = sum((gradient * sign).sum() for gradient, sign in zip(gradients, signs, strict=True))
    if not slope.requires_grad:  # a loss linear in the weights
        return 0.0
    curved = torch.autograd.grad(slope, parameters, retain_graph=True, materialize_grads=True)
    return sum((product * sign).sum().item() for product, sign in zip(curved, signs, strict=True))
