"""Linear layers that compute with fake-quantised operands: the layers' classes change, their tensors don't."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from common.quantization.fake import RANGE_FLOOR, fake_quantize
from common.quantization.probe import note
from common.quantization.recipe import Recipe


@dataclass(frozen=True)
class LayerSettings:
    """How a layer computes; `channel_dim` is the output dimension of its weight: 0 in Linear, 1 in Conv1D."""

    name: str
    recipe: Recipe
    channel_dim: int


def _quantized(component: str, exact: Tensor, layer: LayerSettings) -> Tensor:
    quantizer = getattr(layer.recipe, component)
    if quantizer is None:
        return exact
    channel_dim = layer.channel_dim if component == "weights" else 0
    used = fake_quantize(exact, quantizer, floor=RANGE_FLOOR[component], channel_dim=channel_dim)
    note(component, layer.name, exact, used)
    return used


class _QuantizedProduct(torch.autograd.Function):
    """y = Q(x)·Q(w)^T + b and its backward pass in one node, so that no rounding is ever differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: LayerSettings) -> Tensor:
        x_used, weight_used = _quantized("activations", x, layer), _quantized("weights", weight, layer)
        ctx.layer = layer
        ctx.save_for_backward(*((x, weight) if layer.recipe.backward == "paper" else (x_used, weight_used)))
        if layer.channel_dim == 0:
            return functional.linear(x_used, weight_used, bias)
        # As Conv1D does it: the same call gives the same bits.
        rows = torch.addmm(bias, x_used.reshape(-1, x.shape[-1]), weight_used)
        return rows.reshape(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        layer = ctx.layer
        for_input, for_weight, for_bias, _ = ctx.needs_input_grad
        branch = layer.recipe.gradient_branch
        quantised_branch_runs = for_weight if branch == "weight" else for_input
        grad_used = _quantized("gradients", grad, layer) if quantised_branch_runs else grad
        grad_x = grad_weight = grad_bias = None
        if for_input:
            factor = grad_used if branch == "input" else grad
            grad_x = factor @ (weight if layer.channel_dim == 0 else weight.T)
        if for_weight:
            factor = (grad_used if branch == "weight" else grad).reshape(-1, grad.shape[-1])
            rows = x.reshape(-1, x.shape[-1])
            grad_weight = factor.T @ rows if layer.channel_dim == 0 else rows.T @ factor
        if for_bias:  # never quantised
            grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0)
        return grad_x, grad_weight, grad_bias, None


def quantized_product(x: Tensor, weight: Tensor, bias: Tensor | None, layer: LayerSettings) -> Tensor:
    """Q(x)·Q(w)^T + b for `x` (..., in), `weight` (out, in), or (in, out) with `layer.channel_dim` 1, `bias` (out,).

    Backward (arXiv 2407.11722), G being the output's gradient: grad_x = G·w and grad_w = Q(G)^T·x, with Q moved to
    grad_x by `gradient_branch="input"`; `backward="straight-through"` has Q(x) and Q(w) in place of x and w. The
    bias gradient is the sum of the unquantised G. First derivatives only.

    Under autocast the operands are cast first, as for any linear layer, and quantised in the lower precision.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return _QuantizedProduct.apply(x, weight, bias, layer)


class QuantizedLinear(nn.Linear):
    """A Linear whose products are fake-quantised; made by `quantize`, not by its constructor."""

    quantization: LayerSettings

    def forward(self, input: Tensor) -> Tensor:
        return quantized_product(input, self.weight, self.bias, self.quantization)


class QuantizedConv1D(Conv1D):
    """GPT-2's transposed linear layer, its products fake-quantised; made by `quantize`."""

    quantization: LayerSettings

    def forward(self, x: Tensor) -> Tensor:
        return quantized_product(x, self.weight, self.bias, self.quantization)
