"""What is read off a network before it is trained on, without training: rivals of the manifold.

Each takes the network, its loss and a batch; a larger number is not always a better promise, see each.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from common.training import Batch

Loss = Callable[[nn.Module, Batch], Tensor]
RELUS = (nn.ReLU,)


@torch.no_grad()
def loss_before(model: nn.Module, loss: Loss, batch: Batch) -> float:
    """The loss before training on: what is low already has less to gain and less to lose."""
    return _finite(loss(model.eval(), batch).item(), "the loss")


def gradient_norm(model: nn.Module, loss: Loss, batch: Batch) -> float:
    """Euclidean norm of the gradient. Abdelfattah et al. 2021, Zero-cost proxies, arXiv 2101.08134, section 3.2."""
    return _finite(math.sqrt(sum(g.square().sum().item() for g in _gradients(model, loss, batch))), "the gradient")


def snip(model: nn.Module, loss: Loss, batch: Batch) -> float:
    """Σ |θ · ∂L/∂θ|: what the loss would change by if each weight went. Lee et al. 2019, arXiv 1810.02340, equation 5.

    As a score of a whole network by Abdelfattah et al. 2021, arXiv 2101.08134.
    """
    gradients = _gradients(model, loss, batch)
    parts = [(p * g).abs().sum().item() for p, g in zip(_trainable(model), gradients, strict=True)]
    return _finite(math.fsum(parts), "SNIP")


def synflow(model: nn.Module) -> float:
    """ln Σ θ · ∂R/∂θ, with R the summed output for an input of ones when all weights are their absolute values.

    Tanaka et al. 2020, arXiv 2006.05467, equation 1; as a score of a whole network arXiv 2101.08134. It needs no data.
    The logarithm, as R grows exponentially with depth. A language model's input of ones are embeddings, four of them.
    """
    positive = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    if isinstance(positive, PreTrainedModel):
        ones = torch.ones(1, 4, positive.config.hidden_size, dtype=torch.float64, device=positive.device)
        result = positive(inputs_embeds=ones).logits.sum()
    else:
        result = positive(positive[0].weight.new_ones(1, positive[0].in_features)).sum()
    parameters = _trainable(positive)
    gradients = torch.autograd.grad(result, parameters, materialize_grads=True)
    total = math.fsum((p * g).sum().item() for p, g in zip(parameters, gradients, strict=True))
    if not 0 < total < math.inf:
        raise RuntimeError(f"SynFlow is {total}")
    return math.log(total)


@torch.no_grad()
def naswot(model: nn.Module, forward: Callable[[nn.Module], object], *, ridge: float = 1e-3) -> float:
    """ln det(K / units + ridge · I), K_ij the number of rectified units that are on, or off, for both examples i and j.

    Mellor et al. 2021, Neural architecture search without training, arXiv 2006.04647, equation 2. Division by the
    number of units and the ridge are ours: without them a network of fewer units than examples has no score at all.
    `forward(model)` runs the model on the examples. Units are those that a `ReLU` of a `Sequential` rectifies, and in a
    language model those before the feed-forward layer's activation, whose sign is taken, at the last token.
    """
    codes: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        codes.append((inputs[0] if inputs[0].dim() == 2 else inputs[0][:, -1]) > 0)

    places = [module for name, module in model.named_modules() if isinstance(module, RELUS) or _activates(name)]
    if not places:
        raise ValueError(f"{type(model).__name__} has no rectified units")
    # A `Sequential` may use one module several times: a hook on each call, one on each module.
    hooks = [module.register_forward_hook(record) for module in dict.fromkeys(places)]
    try:
        forward(model.eval())
    finally:
        for hook in hooks:
            hook.remove()
    active = torch.cat(codes, dim=1).double()
    kernel = (active @ active.T + (1 - active) @ (1 - active).T) / active.shape[1]
    return torch.linalg.slogdet(kernel + ridge * torch.eye(len(kernel)).to(kernel)).logabsdet.item()


def _activates(name: str) -> bool:
    return name.endswith((".mlp.act_fn", ".mlp.act"))


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _gradients(model: nn.Module, loss: Loss, batch: Batch) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(model.eval(), batch), _trainable(model), materialize_grads=True)


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise RuntimeError(f"{what} is {value}")
    return value
