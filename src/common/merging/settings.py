"""Values of parameters that differ between layers and kinds of tensors, written as in mergekit.

A setting is a number or truth value; a *gradient*, a list of numbers spread evenly over the layers and interpolated
between them; or a list of `{filter: part of a tensor's name, value: …}`, of which the first that fits counts, and one
without filter always fits.
"""

import math
from collections.abc import Iterable
from typing import Any


def depths(names: Iterable[str]) -> dict[str, float]:
    """How deep in the model each tensor is: 0 in the first layer, 1 in the last.

    Tensors of no layer, embeddings, last norm and head, count as depth 0, and an only layer as depth 1, as in
    mergekit.
    """
    layers = {name: layer_of(name) for name in names}
    last = max((layer for layer in layers.values() if layer is not None), default=0)
    return {name: 0.0 if layer is None else layer / last if last else 1.0 for name, layer in layers.items()}


def layer_of(name: str) -> int | None:
    """The first number in a tensor's name, as in `model.layers.3.mlp.up_proj.weight`."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def value_at(setting: Any, kind: type, tensor: str, depth: float) -> float | bool | int | None:
    """The value of a setting for one tensor, None where no filter fits. Raises `ValueError` where it is none."""
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return _scalar(setting, kind)
    if not setting:
        raise ValueError("an empty list")
    if not any(isinstance(part, dict) for part in setting):
        if kind is not float:
            raise ValueError(f"{setting}: a list of values, one for each layer, is for numbers only")
        values = [_scalar(part, kind) for part in setting]
        place = depth * (len(values) - 1)
        before = min(int(place), len(values) - 1)
        after = min(before + 1, len(values) - 1)
        return (1 - (place - before)) * values[before] + (place - before) * values[after]
    for part in setting:
        if not isinstance(part, dict) or "value" not in part or not part.keys() <= {"filter", "value"}:
            raise ValueError(f"{part!r} in a list of filters, allowed: filter (a part of names) and value")
        if part.get("filter") in (None, "*") or str(part["filter"]) in tensor:
            return value_at(part["value"], kind, tensor, depth)
    return None


def _scalar(value: Any, kind: type) -> float | bool | int:
    if kind is float and isinstance(value, str):
        # YAML reads 1e-3, without a point, as text.
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{value!r}, allowed: finite numbers") from None
    fits = isinstance(value, bool) if kind is bool else isinstance(value, int | kind) and not isinstance(value, bool)
    if not fits or (kind is float and not math.isfinite(value)):
        allowed = {bool: "true or false", int: "whole numbers", float: "finite numbers"}[kind]
        raise ValueError(f"{value!r}, allowed: {allowed}")
    return value
