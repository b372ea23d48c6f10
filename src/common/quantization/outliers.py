"""Outlier features put into a model that has none, without changing the function it computes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from common.errors import UserError
from common.quantization.model import linear_layers


@dataclass(frozen=True)
class _PreNorms:
    """Where a model class keeps its norms and the linear layers that read them and nothing else."""

    blocks: str
    readers: dict[str, tuple[str, ...]]  # by norm, within a block
    last: str  # norm, read by lm_head


_PRE_NORMS: dict[type[nn.Module], _PreNorms] = {
    GPT2LMHeadModel: _PreNorms("transformer.h", {"ln_1": ("attn.c_attn",), "ln_2": ("mlp.c_fc",)}, "transformer.ln_f"),
    LlamaForCausalLM: _PreNorms(
        "model.layers",
        {
            "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
        },
        "model.norm",
    ),
}


@torch.no_grad()
def inject_outliers(model: PreTrainedModel, scale: float, channels: Sequence[int]) -> None:
    """Multiply `channels` of every norm's output by `scale` and divide the weights that read them by it, in place.

    `channels` are indices into the hidden width, each counted once. The logits stay the same up to rounding (exactly
    so when `scale` is a power of two), while the inputs of the linear layers after norms carry a few channels much
    larger than the rest, as those of large models do (Dettmers et al., arXiv 2208.07339). It is the reparametrisation
    of SmoothQuant (Xiao et al., arXiv 2211.10438) run backwards: it makes quantising harder, not easier.
    Works before and after `quantize`. An optimiser's moments are not rescaled with the weights.

    Raises `UserError`, with the model untouched, if its class is not a known one, its head is tied to the embedding,
    a layer that reads a norm is not an ordinary linear one, a channel is out of range, none is given, or `scale` is
    not positive and finite.
    """
    kind = type(model).__name__
    if type(model) not in _PRE_NORMS:
        allowed = ", ".join(known.__name__ for known in _PRE_NORMS)
        raise UserError(f"{kind}: outliers can be injected into {allowed} only")
    width = model.config.hidden_size
    if not 0 < scale < math.inf:
        raise UserError(f"scale of outliers is {scale}, allowed: positive and finite")
    wrong = [channel for channel in channels if not 0 <= channel < width]
    if wrong or not channels:
        raise UserError(f"outlier channels {list(wrong or channels)}, allowed: one or more of 0 to {width - 1}")
    embedding = model.get_input_embeddings().weight
    if model.get_output_embeddings().weight is embedding:
        raise UserError(f"{kind} has a head tied to its embedding, which would change with it: use an untied one")
    layers = linear_layers(model)
    pairs = list(_norms_and_readers(model))
    for _, readers in pairs:
        for name in readers:
            if name not in layers:
                raise UserError(f"{name} is a {type(model.get_submodule(name)).__name__}, allowed: Linear or Conv1D")
    factors = torch.ones(width, dtype=embedding.dtype, device=embedding.device)
    factors[list(channels)] = scale
    for norm, readers in pairs:
        for parameter in model.get_submodule(norm).parameters():  # gain, and bias where there is one
            parameter.mul_(factors)
        for name in readers:
            weight = layers[name].weight
            inputs_last = weight if isinstance(layers[name], nn.Linear) else weight.T
            inputs_last.div_(factors)


def _norms_and_readers(model: nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of every norm and of the linear layers that read it."""
    places = _PRE_NORMS[type(model)]
    for index in range(len(model.get_submodule(places.blocks))):
        block = f"{places.blocks}.{index}"
        for norm, readers in places.readers.items():
            yield f"{block}.{norm}", tuple(f"{block}.{reader}" for reader in readers)
    yield places.last, ("lm_head",)
