"""Ways to make a network wider: for each group of units, which are copies and which are fresh.

To add one, name it in `WIDTHS`.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from common.errors import UserError
from common.expansion.growth import FRESH, Growth, copies, split


@dataclass(frozen=True)
class Width:
    """A way to widen.

    `draw` is how copies are chosen: `uniform` draws each new unit among the old ones, `even` goes through them in
    order, None makes fresh units. `made` and `read` are of fresh ones, see `Growth`. `noise`: whether copies get noise;
    `next_layer`: whether what makes a copy comes from the layer above; `preserves`: whether the function stays.
    """

    draw: Literal["uniform", "even"] | None
    read: Literal["random", "zero"] = "random"
    made: Literal["random", "zero"] = "random"
    noise: bool = False
    next_layer: bool = False
    preserves: bool = False


WIDTHS = {
    # Chen, Goodfellow and Shlens 2016, Net2Net, arXiv 1511.05641, section 2.1: copies, drawn at random.
    "net2wider": Width("uniform", preserves=True),
    # The same with the noise that Net2Net adds to tell copies apart.
    "copy_noise": Width("uniform", noise=True),
    # Chen et al. 2022, bert2BERT, arXiv 2110.07143, section 4.1: function-preserving initialisation. That is Net2Wider
    # with heads as the units of attention; ours copies all units equally often as far as that goes.
    "fpi": Width("even", preserves=True),
    # The same, section 4.2: advanced knowledge initialisation, what makes copies comes from the layer above.
    "aki": Width("even", next_layer=True),
    # Fresh units that nothing reads yet; Evci et al. 2022, GradMax, arXiv 2201.05125, start from there too.
    "zero": Width(None, read="zero", preserves=True),
    "random": Width(None),
}


def drawn(old: int, new: int, how: Width, generator: torch.Generator) -> Tensor:
    """The old unit of each of the `new`, the first `old` being themselves; `(new,)`."""
    kept = torch.arange(old)
    if how.draw == "uniform":
        return torch.cat([kept, torch.randint(old, (new - old,), generator=generator)])
    if how.draw == "even":
        return torch.arange(new) % old
    return torch.cat([kept, torch.full((new - old,), FRESH)])


def units(old: int, new: int, how: Width, generator: torch.Generator) -> Growth:
    """The growth of a group of hidden units."""
    return split(drawn(old, new, how, generator), made=how.made, read=how.read)


def heads(old: tuple[int, int], new: tuple[int, int], how: Width, generator: torch.Generator) -> tuple[Growth, Growth]:
    """The growths of query heads and of heads of keys and values; `old` and `new` are the numbers of both.

    A copied query head reads a copy of the keys and values that it read before, and all copies of these serve the same
    queries, so that they stay copies. Only where fewer queries are to share keys than before are they dealt out; then
    the gradients of keys and values are mapped by their mean over the queries.
    Raises `UserError` where the new numbers leave no place for an old head.
    """
    (queries, keys), (new_queries, new_keys) = old, new
    shared, new_shared = queries // keys, new_queries // new_keys
    dealt = new_shared < shared
    # Drawn at random, some keys might get too few places for their queries.
    even = replace(how, draw="even") if dealt and how.draw else how
    key_source = drawn(keys, new_keys, even, generator)
    query_source = torch.full((new_keys, new_shared), FRESH)
    for key in range(keys):
        groups = (key_source == key).nonzero().flatten()
        places = len(groups) * new_shared if dealt else new_shared
        if places < shared:
            raise UserError(
                f"{new_queries} heads on {new_keys} of keys and values have no place for all of the old "
                f"{queries} on {keys}: take more heads, or fewer of keys and values"
            )
        chosen = drawn(shared, places, even, generator)
        chosen = torch.where(chosen == FRESH, FRESH, chosen + key * shared)
        query_source[groups] = chosen.view(-1, new_shared)
    query = split(query_source.flatten(), made=how.made, read=how.read)
    returning = torch.where(query.fresh, 0.0, query.backward).view(new_keys, new_shared).sum(1) / shared
    key = Growth(key_source, torch.ones(new_keys, dtype=torch.float64), returning, made=how.made, read=how.read)
    return query, key


def stream(
    old: int, new: int, how: Width, generator: torch.Generator, *, centred: bool, tied: bool
) -> dict[str, Growth]:
    """The growths of the residual stream and of all that is as wide; see `common.units` for their names.

    `centred`: LayerNorm rather than RMSNorm; `tied`: the head is the embedding.

    A norm divides by the root mean square over the width, which copies change unless all units have equally many. So a
    unit with c copies is put into the stream as √(new / (old · c)) times its value, which leaves the mean square as it
    was, and the norm's gain takes that back. LayerNorm's mean has no such remedy: there copies are made as evenly as
    possible, and the function stays only where the new width is a multiple of the old. Fresh units have no value, for
    RMSNorm zero and for LayerNorm the mean of the others, so that after the norm they are zero.
    """
    kept = replace(how, draw="even") if centred and how.draw else how
    source = drawn(old, new, kept, generator)
    count = copies(source).double()
    one = torch.ones(new, dtype=torch.float64)
    if how.draw is None and how.read == "random":
        scale = one  # fresh values are as large as the others
    elif centred and how.draw:
        scale = one
    else:
        scale = (new / (old * count)).sqrt()
    silent = "mean" if centred else "zero"
    made = silent if how.read == "zero" else how.made
    back = 1 / (scale * count)
    # The embedding as head multiplies by the stream's scale again.
    final = (back, scale) if tied else (one, 1 / count)
    grown = {
        "stream": Growth(source, scale, back, made=made),
        "normed": Growth(source, one, 1 / count, made="zero"),
        "final": Growth(source, *final, made="zero"),
        "gain": Growth(source, 1 / scale, scale / count, made="mean"),
        "final_gain": Growth(source, final[0] / scale, final[1] * scale, made="mean"),
    }
    return grown


def stream_kept(old: int, new: int, how: Width, *, centred: bool) -> bool:
    """Whether `stream` leaves the function as it is."""
    return how.preserves and (not centred or how.draw is None or new % old == 0)
