"""A model's weights as one vector, and its loss as a function of many such vectors at once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.training import Batch

Losses = Callable[[Tensor], Tensor]
"""From weights `(points, weights)` to losses `(points,)`."""


class _Loss(nn.Module):
    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor]):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(self.model, batch)


def flatten(model: nn.Module) -> Tensor:
    """All parameters of a model, a tied one once, as a vector `(weights,)` of its own memory."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def unflatten(model: nn.Module, vectors: Tensor) -> dict[str, Tensor]:
    """Vectors `(…, weights)` as tensors `(…, *shape)` by the names of the model's parameters."""
    named = dict(model.named_parameters())
    sizes = [parameter.numel() for parameter in named.values()]
    if vectors.shape[-1] != sum(sizes):
        raise ValueError(f"vectors have {vectors.shape[-1]} entries, the model has {sum(sizes)} weights")
    parts = vectors.split(sizes, dim=-1)
    return {
        name: part.unflatten(-1, parameter.shape)
        for (name, parameter), part in zip(named.items(), parts, strict=True)
    }  # fmt: skip


def losses_of(
    model: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], batch: Batch, *, at_once: int = 16
) -> Losses:
    """The loss on one batch as a function of weights, `at_once` vectors in one pass (`torch.vmap`); no gradients.

    The model's own weights, and its mode, which is evaluation meanwhile, stay as they are.
    """
    whole = _Loss(model, loss)

    def one(tensors: dict[str, Tensor]) -> Tensor:
        return functional_call(whole, {f"model.{name}": tensor for name, tensor in tensors.items()}, (batch,))

    def losses(vectors: Tensor) -> Tensor:
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            # The fused attention kernels know nothing of several weights at once.
            with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                return torch.cat([vmap(one)(unflatten(model, part)) for part in vectors.split(at_once)])
        finally:
            for module, training in modes:
                module.training = training

    return losses
