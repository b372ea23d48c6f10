"""Bringing the units of one model into the order of another's: weight matching.

Ainsworth, Hayase and Srinivasa 2023, Git Re-Basin, arXiv 2209.04836, section 3.2. Hidden units of a feed-forward layer
and heads can be put into any order without changing what a network computes. Query heads move with the keys and values
that they share. The residual stream is left alone: models that come from one base agree on it.
"""

import copy
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from common.units import Axes, axes, interchangeable

Network = TypeVar("Network", bound=nn.Module)
Order = dict[str, Tensor]
"""By group of units, which unit of the other model comes at each place; `(units,)`."""


def match(model: nn.Module, other: nn.Module) -> Order:
    """The order of `other`'s units in which its weights are nearest to `model`'s.

    One group is assigned optimally after the other, given the rest, until nothing gets better: the total inner product
    of the weights never falls. Raises `ValueError` where the two differ in shape.
    """
    mine, theirs = (dict(each.named_parameters()) for each in (model, other))
    shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (mine, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the models differ in the shape of {sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[0]}"
        )
    layout, sizes = axes(model), interchangeable(model)
    mine = {name: tensor.detach().double() for name, tensor in mine.items()}
    theirs = {name: tensor.detach().double() for name, tensor in theirs.items()}
    order: Order = {group: torch.arange(count) for group, (count, _) in sizes.items()}
    while True:
        changed = False
        for group in sizes:
            if group.startswith("q."):  # assigned together with its keys and values
                continue
            alike = _alike(group, layout, sizes, mine, _ordered(theirs, layout, sizes, order | _kept(group, sizes)))
            found = {group: _assigned(alike)}
            if group.startswith("kv."):
                query = group.replace("kv.", "q.")
                other_order = order | _kept(group, sizes) | _kept(query, sizes)
                queries = _alike(query, layout, sizes, mine, _ordered(theirs, layout, sizes, other_order))
                found = _grouped(group, query, alike, queries)
            for name, best in found.items():
                changed |= not torch.equal(best, order[name])
            order |= found
        if not changed:
            return order


def permuted(model: Network, order: Mapping[str, Tensor]) -> Network:
    """A copy of the model with its units in this order, which computes the same."""
    new = copy.deepcopy(model)
    tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}
    placed = _ordered(tensors, axes(model), interchangeable(model), order)
    with torch.no_grad():
        for name, parameter in new.named_parameters():
            parameter.copy_(placed[name])
    return new


def _kept(group: str, sizes: Mapping[str, tuple[int, int]]) -> Order:
    return {group: torch.arange(sizes[group][0])}


def _ordered(
    tensors: Mapping[str, Tensor], layout: Axes, sizes: Mapping[str, tuple[int, int]], order: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    placed = {}
    for name, tensor in tensors.items():
        for dim, axis in enumerate(layout[name]):
            if axis is None or axis.groups[0] not in sizes:
                continue
            index, start = [], 0
            for group in axis.groups:
                count, each = sizes[group]
                index.append((order[group][:, None] * each + torch.arange(each)).flatten() + start)
                start += count * each
            tensor = tensor.index_select(dim, torch.cat(index))
        placed[name] = tensor
    return placed


def _alike(
    group: str,
    layout: Axes,
    sizes: Mapping[str, tuple[int, int]],
    mine: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
) -> Tensor:
    """Inner products `(units, units)` of all weights that make or read a unit here with those of each unit there."""
    count = sizes[group][0]
    total = torch.zeros(count, count, dtype=torch.float64)
    for name, placed in layout.items():
        for dim, axis in enumerate(placed):
            if axis is None or group not in axis.groups:
                continue
            start = 0
            for part in axis.groups:
                length = sizes[part][0] * sizes[part][1]
                if part == group:
                    here, there = (
                        tensor.narrow(dim, start, length).movedim(dim, 0).reshape(count, -1)
                        for tensor in (mine[name], theirs[name])
                    )
                    total += here @ there.T
                start += length
    return total


def _assigned(alike: Tensor) -> Tensor:
    return torch.from_numpy(linear_sum_assignment(alike.cpu().numpy(), maximize=True)[1])


def _grouped(group: str, query: str, alike: Tensor, queries: Tensor) -> Order:
    """Keys and values assigned by what they and their queries have in common, the queries in their best order."""
    count = len(alike)
    shared = len(queries) // count
    blocks = queries.view(count, shared, count, shared)
    inner = {(i, j): _assigned(blocks[i, :, j]) for i in range(count) for j in range(count)}
    gain = np.array(
        [[blocks[i, range(shared), j, inner[i, j]].sum().item() for j in range(count)] for i in range(count)]
    )
    keys = _assigned(alike + torch.from_numpy(gain))
    return {group: keys, query: torch.cat([inner[i, j] + j * shared for i, j in enumerate(keys.tolist())])}
