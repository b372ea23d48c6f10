"""Expanding a `Sequential` of linear layers with one activation between each two."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.expansion.depth import DEPTHS, Layer, deeper, depth_preserves
from common.expansion.expanded import Expanded, fill
from common.expansion.plan import Plan
from common.expansion.width import WIDTHS, units
from common.units import axes, linears


class Stack:
    """Names of a `Sequential`'s tensors, see `common.expansion.plan.Naming`; its hidden linear layers are layers."""

    def __init__(self, hidden: int):
        self.hidden = hidden

    def layer(self, name: str) -> int | None:
        place = int(name.partition(".")[0]) // 2
        return place if place < self.hidden else None

    def renamed(self, name: str, layer: int, layers: int) -> str:
        place = layer if self.layer(name) is not None else layers
        return f"{2 * place}.{name.partition('.')[2]}"

    def silent(self, name: str, tensor: Tensor) -> Tensor:
        return torch.eye(len(tensor), dtype=tensor.dtype) if tensor.dim() == 2 else torch.zeros_like(tensor)

    def blank(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.new_zeros((len(tensor),) * tensor.dim())


def expand_mlp(
    model: nn.Sequential,
    widths: Sequence[int],
    *,
    width: str = "net2wider",
    layers: int | None = None,
    depth: str = "identity",
    noise: float = 0.01,
    seed: int = 0,
) -> Expanded[nn.Sequential]:
    """A wider and deeper network made from `model`, which stays as it is.

    `widths` are the new sizes of the hidden layers that there are, none below the old; `layers` is how many hidden
    layers there are to be, all by default. `width`, `depth`, `noise` and `seed` as for `expand`. A layer that adds
    nothing is the identity, which needs ReLU: its outputs pass it unchanged. Stacked and interpolated layers are those
    above the first, whose input is another.

    Raises `UserError` on an unknown name or sizes that do not fit.
    """
    names = linears(model)
    old = [model.get_submodule(name).out_features for name in names[:-1]]
    layers = len(old) if layers is None else layers
    if width not in WIDTHS or depth not in DEPTHS:
        raise UserError(f"no way to grow {width!r}, {depth!r}, allowed: {', '.join(WIDTHS)}; {', '.join(DEPTHS)}")
    if len(widths) != len(old) or any(new < least for new, least in zip(widths, old, strict=True)) or not old:
        raise UserError(f"widths are {list(widths)}, allowed: those of the hidden layers, {old}, or more")
    if layers < len(old):
        raise UserError(f"layers is {layers}, allowed: {len(old)}, which the network has, or more")
    grows_deeper = layers > len(old)
    if grows_deeper and depth != "identity" and len(set(widths)) > 1:
        raise UserError(f"widths are {list(widths)}, allowed where layers are to be repeated: equal ones")
    activation = model[1]
    preserved = not grows_deeper or (depth_preserves(depth) and isinstance(activation, nn.ReLU))
    how = WIDTHS[width]
    generator = torch.Generator().manual_seed(seed)
    growths = {
        f"units.{place}": units(least, new, how, generator)
        for place, (least, new) in enumerate(zip(old, widths, strict=True))
    }
    sizes = {f"units.{place}": least for place, least in enumerate(old)}
    order = _order(len(old), layers, depth)
    plan = Plan(axes(model), growths, sizes, order, Stack(len(old)), noise if how.noise else 0.0, how.next_layer, seed)
    first = model[0]
    outputs = [widths[layer.source] for layer in order] + [model[-1].out_features]
    inputs = [first.in_features, *outputs[:-1]]
    made: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):  # the weights that the layers draw are all replaced
        for size, after in zip(inputs, outputs, strict=True):
            made += [nn.Linear(size, after, bias=first.bias is not None, dtype=first.weight.dtype), activation]
    new = nn.Sequential(*made[:-1]).to(first.weight.device)
    fill(new, model, plan)
    grew = list(widths) != old
    return Expanded(new.train(model.training), preserved and (not grew or how.preserves), plan)


def _order(old: int, new: int, how: str) -> list[Layer]:
    if how not in ("stack", "interpolate") or new == old:
        return deeper(old, new, how)
    if old < 2:
        raise UserError(f"{how} repeats layers above the first, and there is none")
    above = deeper(old - 1, new - 1, how)
    return [Layer(0), *(Layer(layer.source + 1, layer.kind) for layer in above)]
