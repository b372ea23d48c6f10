"""Merging whole models, each given as a mapping from names to tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from common.merging.methods import PerModel
from common.merging.recipe import Recipe
from common.merging.settings import depths

State = Mapping[str, Tensor]

HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight")
"""How the names of input embeddings end."""


def merge_state_dicts(
    method: str,
    base: State | None,
    models: Sequence[State],
    *,
    seed: int | None = None,
    dtype: torch.dtype | None = None,
    **parameters: Any,
) -> dict[str, Tensor]:
    """Merge state dicts by the method of this name in `METHODS`; those given stay as they are.

        merge_state_dicts("ties", base, [expert, aligned], weight=[1, 0.5], density=0.2)

    A parameter of each model, `weight` or `density`, is a number or a list with an entry for each of `models`. In place
    of any number there may be a list for layers or of filters (see `common.merging.settings`), within a list of models
    too. `seed` is for methods that draw at random. A head tied to the embedding in all models stays tied.

    Raises `ValueError` on an unknown parameter or one that makes no sense, on tensors that are missing or have other
    shapes in a model, and on a result that is not finite, with the name of the tensor.
    """
    named = {name.rstrip("_"): value for name, value in parameters.items()}
    own: list[dict[str, Any]] = [{} for _ in models]
    for name, parameter in Recipe(method, [], [[] for _ in models], seed).parameters.items():
        if parameter.annotation == PerModel and isinstance(named.get(name), list | tuple):
            values = named.pop(name)
            if len(values) != len(models):
                raise ValueError(f"{name} has {len(values)} values for {len(models)} models")
            own = [scope | {name: value} for scope, value in zip(own, values, strict=True)]
    recipe = Recipe(method, [named], [[scope] for scope in own], seed)
    if recipe.takes_base != (base is not None):
        raise ValueError(f"{method} {'needs a' if recipe.takes_base else 'takes no'} base")
    states = ([base] if base is not None else []) + list(models)
    labels = (["the base"] if base is not None else []) + [f"model {number}" for number in range(1, len(models) + 1)]
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in states]
    embedding = tied_embedding(states)
    check_alike(dict(zip(labels, shapes, strict=True)), embedding)
    names = [name for name in states[0] if name != HEAD or not embedding]
    depth = depths(names)
    merged = {}
    for name in names:
        tensors = dict(zip(labels, (state[name] for state in states), strict=True))
        out = torch.empty(shapes[0][name], dtype=dtype, device=states[0][name].device) if dtype else None
        merged[name] = merge_named(recipe, name, depth[name], tensors, out)
    return {name: merged[embedding if embedding and name == HEAD else name] for name in states[0]}


def merge_named(
    recipe: Recipe, name: str, depth: float, tensors: Mapping[str, Tensor], out: Tensor | None = None
) -> Tensor:
    """Merge tensors of one name, given by their models' labels, into `out` if there is one.

    Raises `ValueError`, with the name, as the methods do, and on values that are not finite.
    """
    try:
        merged = recipe.merge(name, depth, list(tensors.values()), out)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    # Summing is many times faster than asking each element; a sum that merely overflows proves nothing.
    if not merged.is_floating_point() or merged.sum().isfinite() or merged.isfinite().all():
        return merged
    for label, tensor in tensors.items():
        if wrong := int((~tensor.isfinite()).sum()):
            raise ValueError(f"{name}: {wrong} of its values in {label} are infinite or not a number")
    raise ValueError(f"{name}: its merged values are too large for {merged.dtype}")


def tied_embedding(states: Sequence[State]) -> str | None:
    """Name of the embedding that is the head too, in every state: there is no other head or an equal one."""
    for name in states[0]:
        if name.endswith(EMBEDDINGS) and all(name in state for state in states):
            return name if all(_equal(state.get(HEAD), state[name]) for state in states) else None
    return None


def _equal(head: Tensor | None, embedding: Tensor) -> bool:
    # Heads that differ mostly do so in their first row: the rest is not read.
    return head is None or (
        head.shape == embedding.shape and torch.equal(head[:1], embedding[:1]) and torch.equal(head, embedding)
    )


def check_alike(shapes: Mapping[str, Mapping[str, tuple[int, ...]]], tied: str | None = None) -> None:
    """Raise `ValueError`, with a tensor's name, unless all models, given by label, have the same names and shapes.

    A head need not be stored where it is `tied`.
    """
    (first, expected), *others = shapes.items()
    for label, found in others:
        for name in sorted((expected.keys() ^ found.keys()) - ({HEAD} if tied else set())):
            here, there = (label, first) if name in expected else (first, label)
            raise ValueError(f"{name} is in {there} and not in {here}")
        for name in expected.keys() & found.keys():
            if expected[name] != found[name]:
                raise ValueError(f"{name} is {expected[name]} in {first} and {found[name]} in {label}")
