"""Rescalings that leave a network's function as it is, settled in one way, so that a measure cannot depend on them."""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from common.errors import UserError
from common.units import linears, tied

Network = TypeVar("Network", bound=nn.Module)

READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    "ln_1": ("attn.c_attn",),
    "ln_2": ("mlp.c_fc",),
}
"""By norm of a block, the layers that read it and nothing else."""


@torch.no_grad()
def canonical(model: Network) -> Network:
    """A copy that computes the same and is the same, up to rounding, for all rescalings of `model`.

    - A `Sequential` with ReLU: a hidden unit's incoming weights times s > 0 and its outgoing ones divided by s. Here
      incoming weights get one common norm in all hidden layers, which is also the mean norm of the last layer's rows,
      as training leaves it more or less; a unit that nothing comes into is left alone.
    - A Llama or GPT-2: a norm's gain times s and what reads it divided by s. Here gains become one, and the weights
      that read them take them over (but for the last norm where the head is tied, which leaves no such freedom).
      Entries with a gain of zero in a GPT-2 keep it, as their bias could not be expressed otherwise.

    Raises `UserError` on another model, or a `Sequential` with another activation.
    """
    new = copy.deepcopy(model)
    if isinstance(new, nn.Sequential):
        _balance(new)
    elif isinstance(new, LlamaForCausalLM | GPT2LMHeadModel):
        _fold_gains(new)
    else:
        raise UserError(f"rescalings of {type(model).__name__} are not known, allowed: Sequential, Llama, GPT-2")
    return new


def _balance(model: nn.Sequential) -> None:
    layers = [model.get_submodule(name) for name in linears(model)]
    if other := next((module for module in model if not isinstance(module, nn.Linear | nn.ReLU)), None):
        raise UserError(f"a network with {type(other).__name__} has no rescalings, allowed: ReLU")
    for layer, reader in pairwise(layers):
        norm = layer.weight.norm(dim=1)
        _rescale(layer, reader, torch.where(norm > 0, 1 / norm, 1.0))
    common = layers[-1].weight.norm(dim=1).mean() ** (1 / len(layers))
    if common > 0:
        for place, (layer, reader) in enumerate(pairwise(layers), start=1):
            # What the layer reads has been scaled by one power less.
            _rescale(layer, reader, (common**place).expand(layer.out_features))


def _rescale(layer: nn.Linear, reader: nn.Linear, scale: Tensor) -> None:
    layer.weight.mul_(scale[:, None])
    if layer.bias is not None:
        layer.bias.mul_(scale)
    reader.weight.div_(scale)


def _fold_gains(model: PreTrainedModel) -> None:
    for name, module in list(model.named_modules()):
        block, _, norm = name.rpartition(".")
        if norm in READERS:
            _fold(module, [model.get_submodule(f"{block}.{reader}") for reader in READERS[norm]])
    if not tied(model):
        _fold(model.model.norm if isinstance(model, LlamaForCausalLM) else model.transformer.ln_f, [model.lm_head])


def _fold(norm: nn.Module, readers: list[nn.Module]) -> None:
    gain = norm.weight.clone()
    bias = getattr(norm, "bias", None)
    if bias is not None:
        gain = torch.where(gain == 0, 1.0, gain)
        bias.div_(gain)
    norm.weight.copy_(torch.where(norm.weight == 0, norm.weight, 1.0) if bias is not None else torch.ones_like(gain))
    for reader in readers:
        inputs_last = reader.weight if isinstance(reader, nn.Linear) else reader.weight.T
        inputs_last.mul_(gain)
