"""Expanding language models of transformers' Llama and GPT-2 classes."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from common.errors import UserError
from common.expansion.depth import DEPTHS, deeper, depth_preserves
from common.expansion.expanded import Expanded, fill
from common.expansion.growth import split
from common.expansion.plan import Plan
from common.expansion.sizes import NAMES, Sizes, grown_sizes, resized, sizes_of
from common.expansion.width import WIDTHS, heads, stream, stream_kept, units
from common.units import axes, tied

BLOCK = re.compile(r"(?:(?<=\.layers\.)|(?<=\.h\.))\d+(?=\.)")
WRITERS = re.compile(r"\.(o_proj|down_proj|c_proj)\.")


class Blocks:
    """Names of a language model's tensors, see `common.expansion.plan.Naming`."""

    def layer(self, name: str) -> int | None:
        found = BLOCK.search(name)
        return int(found[0]) if found else None

    def renamed(self, name: str, layer: int, layers: int) -> str:
        return BLOCK.sub(str(layer), name)

    def silent(self, name: str, tensor: Tensor) -> Tensor:
        return torch.zeros_like(tensor) if WRITERS.search(name) else tensor

    def blank(self, name: str, tensor: Tensor) -> Tensor:
        gain = name.endswith("weight") and tensor.dim() == 1
        return torch.ones_like(tensor) if gain else torch.zeros_like(tensor)


def expand(
    model: PreTrainedModel,
    to: Mapping[str, int],
    *,
    width: str = "net2wider",
    depth: str = "identity",
    noise: float = 0.01,
    seed: int = 0,
) -> Expanded[PreTrainedModel]:
    """A wider and deeper model made from `model`, which stays as it is.

    `to` has any of `hidden`, `ff`, `heads`, `kv_heads`, `layers`, none below what the model has. What is left out
    follows `hidden` in proportion (heads keep their size, so that rotary positions do); `layers` stays. `width` is one
    of `WIDTHS`, `depth` of `DEPTHS`; `noise`, for `copy_noise`, is in standard deviations of each tensor; `seed` fixes
    what is drawn. Wider comes first, then deeper.

    Raises `UserError` on a model of another class, an unknown name, or sizes that do not fit.
    """
    if width not in WIDTHS:
        raise UserError(f"there is no way to widen called {width!r}, allowed: {', '.join(WIDTHS)}")
    if depth not in DEPTHS:
        raise UserError(f"there is no way to deepen called {depth!r}, allowed: {', '.join(DEPTHS)}")
    if not 0 < noise < 1:
        raise UserError(f"noise is {noise}, allowed: above 0 and below 1")
    if isinstance(model, nn.Sequential):
        raise UserError("a Sequential is no language model: take expand_mlp")
    named = axes(model)
    config = model.config
    _check(config)
    old, how = sizes_of(config), WIDTHS[width]
    new = grown_sizes(config, to)
    if new == old:
        raise UserError(f"nothing grows: name one of {', '.join(NAMES)} above what the model has")
    if new.layers > old.layers and getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise UserError("scale_attn_by_inverse_layer_idx ties a layer's function to its place: it cannot be deepened")
    generator = torch.Generator().manual_seed(seed)
    centred = config.model_type == "gpt2"
    growths = stream(old.hidden, new.hidden, how, generator, centred=centred, tied=tied(model))
    if new.hidden == old.hidden:
        growths = {name: split(torch.arange(old.hidden)) for name in growths}
    sizes = dict.fromkeys(growths, old.hidden)
    for layer in range(old.layers):
        growths[f"ff.{layer}"] = units(old.ff, new.ff, how, generator)
        sizes[f"ff.{layer}"] = old.ff
        query, key = heads((old.heads, old.kv_heads), (new.heads, new.kv_heads), how, generator)
        growths[f"q.{layer}"], growths[f"kv.{layer}"] = query.spread(old.head_dim), key.spread(old.head_dim)
        sizes |= {f"q.{layer}": old.heads * old.head_dim, f"kv.{layer}": old.kv_heads * old.head_dim}
    layers = deeper(old.layers, new.layers, depth)
    plan = Plan(named, growths, sizes, layers, Blocks(), noise if how.noise else 0.0, how.next_layer, seed)
    with torch.random.fork_rng(devices=[]):  # the weights that the class draws are all replaced
        wide = type(model)(resized(config, new)).to(model.device, model.dtype)
    fill(wide, model, plan)
    return Expanded(wide.train(model.training), _preserves(old, new, width, depth, centred), plan)


def _preserves(old: Sizes, new: Sizes, width: str, depth: str, centred: bool) -> bool:
    how = WIDTHS[width]
    wider = (new.ff, new.heads, new.kv_heads) != (old.ff, old.heads, old.kv_heads)
    return (
        (new.hidden == old.hidden or stream_kept(old.hidden, new.hidden, how, centred=centred))
        and (not wider or how.preserves)
        and (new.layers == old.layers or depth_preserves(depth))
    )


def _check(config: PretrainedConfig) -> None:
    for key in ("add_cross_attention", "quantization_config"):
        if getattr(config, key, None):
            raise UserError(f"{key} is set in the model's configuration: such a model cannot be expanded")
