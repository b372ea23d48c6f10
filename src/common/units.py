"""Which axis of which parameter belongs to which group of interchangeable units.

A group is a set of units that can be copied, split or permuted together without changing what a network computes:
hidden units of a feed-forward layer, attention heads, entries of the residual stream. Expanding a model and matching
the units of two models need the same description. Groups of a language model, with `l` a layer's number:

- `stream`: entries of the residual stream; `normed`: the same after a norm of a layer, `final`: after the last norm;
  `gain` and `final_gain`: the gains of these norms, which map the one to the other;
- `ff.l`: units of a feed-forward layer; `q.l`: query heads; `kv.l`: heads of keys and values.

Groups of a `Sequential` are `units.k`, the outputs of its linear layer k, the last one excepted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from common.errors import UserError


@dataclass(frozen=True)
class Axis:
    """One axis of a parameter: the groups that lie along it, one after the other, and what the parameter does.

    `out`: its entries make the units' values (the rows of a `Linear`, a bias, a gain); `in`: they read them.
    """

    groups: tuple[str, ...]
    role: Literal["out", "in"]


Axes = dict[str, tuple[Axis | None, ...]]
"""By name of a parameter, an `Axis` for each axis, or None where it is never changed (tokens, positions, pixels)."""


def out(*groups: str) -> Axis:
    return Axis(groups, "out")


def read(group: str) -> Axis:
    return Axis((group,), "in")


def axes(model: nn.Module) -> Axes:
    """The axes of every parameter, a tied one once. Raises `UserError` on a model of another kind."""
    if isinstance(model, nn.Sequential):
        return _sequential(model)
    known = {LlamaForCausalLM: _llama, GPT2LMHeadModel: _gpt2}
    if type(model) not in known:
        names = ", ".join([*(each.__name__ for each in known), "Sequential"])
        raise UserError(f"{type(model).__name__} has no known units, allowed: {names}")
    every = known[type(model)](model.config.num_hidden_layers)
    found = {name for name, _ in model.named_parameters()}
    if odd := sorted(found - every.keys()):
        raise UserError(f"{type(model).__name__} has parameters that it usually lacks, the first is {odd[0]}")
    return {name: axis for name, axis in every.items() if name in found}


def _llama(layers: int) -> Axes:
    named: Axes = {"model.embed_tokens.weight": (None, out("stream"))}
    for layer in range(layers):
        block = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            named[f"{block}.{norm}.weight"] = (out("gain"),)
        for name, made, used in (
            ("self_attn.q_proj", f"q.{layer}", "normed"),
            ("self_attn.k_proj", f"kv.{layer}", "normed"),
            ("self_attn.v_proj", f"kv.{layer}", "normed"),
            ("self_attn.o_proj", "stream", f"q.{layer}"),
            ("mlp.gate_proj", f"ff.{layer}", "normed"),
            ("mlp.up_proj", f"ff.{layer}", "normed"),
            ("mlp.down_proj", "stream", f"ff.{layer}"),
        ):
            named[f"{block}.{name}.weight"] = (out(made), read(used))
            named[f"{block}.{name}.bias"] = (out(made),)
    return named | {"model.norm.weight": (out("final_gain"),), "lm_head.weight": (None, read("final"))}


def _gpt2(layers: int) -> Axes:
    named: Axes = {f"transformer.{name}.weight": (None, out("stream")) for name in ("wte", "wpe")}
    for layer in range(layers):
        block = f"transformer.h.{layer}"
        for norm in ("ln_1", "ln_2"):
            named |= {f"{block}.{norm}.weight": (out("gain"),), f"{block}.{norm}.bias": (out("normed"),)}
        for name, made, used in (
            ("attn.c_attn", (f"q.{layer}", f"kv.{layer}", f"kv.{layer}"), "normed"),
            ("attn.c_proj", ("stream",), f"q.{layer}"),
            ("mlp.c_fc", (f"ff.{layer}",), "normed"),
            ("mlp.c_proj", ("stream",), f"ff.{layer}"),
        ):
            # GPT-2's layers keep inputs first.
            named[f"{block}.{name}.weight"] = (read(used), out(*made))
            named[f"{block}.{name}.bias"] = (out(*made),)
    named |= {"transformer.ln_f.weight": (out("final_gain"),), "transformer.ln_f.bias": (out("final"),)}
    return named | {"lm_head.weight": (None, read("final"))}


def linears(model: nn.Sequential) -> list[str]:
    """The names of the linear layers of a `Sequential` of linear layers and activations without parameters.

    Raises `UserError` where there is anything else, or no activation between two of them.
    """
    names = [name for name, module in model.named_children() if isinstance(module, nn.Linear)]
    others = [(name, module) for name, module in model.named_children() if not isinstance(module, nn.Linear)]
    for name, module in others:
        if next(module.parameters(), None) is not None or next(module.children(), None) is not None:
            raise UserError(f"layer {name} is a {type(module).__name__}, allowed: Linear and plain activations")
    if not names or [int(name) for name in names] != list(range(0, 2 * len(names), 2)) or len(model) % 2 == 0:
        raise UserError("a Sequential must be linear layers with one activation between each two of them")
    return names


def _sequential(model: nn.Sequential) -> Axes:
    names = linears(model)
    named: Axes = {}
    for place, name in enumerate(names):
        made = out(f"units.{place}") if place < len(names) - 1 else None
        used = read(f"units.{place - 1}") if place else None
        named[f"{name}.weight"] = (made, used)
        if model.get_submodule(name).bias is not None:
            named[f"{name}.bias"] = (made,)
    return named


def tied(model: PreTrainedModel) -> bool:
    """Whether a language model's head is its embedding."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def of(axes: Iterable[Axis | None]) -> set[str]:
    """The groups of a parameter."""
    return {group for axis in axes if axis is not None for group in axis.groups}


def interchangeable(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The groups whose units may be put into any order: how many units there are, and entries of each.

    The units of feed-forward layers and heads; see `common.units` for the names. The residual stream is not among them.
    """
    if isinstance(model, nn.Sequential):
        layers = [model.get_submodule(name) for name in linears(model)[:-1]]
        return {f"units.{place}": (layer.out_features, 1) for place, layer in enumerate(layers)}
    config = model.config
    queries = config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", queries)
    each = getattr(config, "head_dim", None) or config.hidden_size // queries
    parameters = dict(model.named_parameters())
    found: dict[str, tuple[int, int]] = {}
    for name, placed in axes(model).items():
        for dim, axis in enumerate(placed):
            if axis is not None and axis.role == "in" and axis.groups[0].startswith("ff."):
                found[axis.groups[0]] = (parameters[name].shape[dim], 1)
    for layer in range(config.num_hidden_layers):
        found |= {f"q.{layer}": (queries, each), f"kv.{layer}": (keys, each)}
    return found
