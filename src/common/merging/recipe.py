"""A method with its settings: from the tensors of one name to the merged one."""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from common.merging import methods
from common.merging.methods import PerModel
from common.merging.settings import value_at

METHODS: dict[str, Callable[..., Tensor]] = {
    "linear": methods.linear,
    "task_arithmetic": methods.task_arithmetic,
    "mergealign": methods.mergealign,
    "slerp": methods.slerp,
    "ties": methods.ties,
    "dare_linear": methods.dare_linear,
    "dare_ties": methods.dare_ties,
}
"""By name. A new method is a typed function, named here: its signature says which tensors and parameters it takes."""

Scopes = Sequence[Mapping[str, Any]]
"""Settings by parameter's name; where several scopes have a value for a tensor, the first counts."""


def takes_base(method: str) -> bool:
    """Whether the method, one of `METHODS`, merges what models changed of a base."""
    return "base" in inspect.signature(METHODS[method]).parameters


KINDS = {float: float, float | None: float, bool: bool, PerModel: float}


@dataclass(frozen=True)
class Recipe:
    """A method, settings `shared` by all models, and `own` ones of each model but the base, in the models' order.

    Raises `ValueError` where a name is no parameter of the method, where the number of models is not what it takes, and
    where a `seed` is given to a method that draws nothing.
    """

    method: str
    shared: Scopes
    own: Sequence[Scopes]
    seed: int | None = None

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"there is no merge method {self.method!r}; allowed: {', '.join(METHODS)}")
        singles = sum(p.annotation is Tensor for p in self._signature.values()) - self.takes_base
        many = "tensors" in self._signature
        if not self.own or (not many and singles != len(self.own)):
            wanted = f"{'1 or more' if many else singles} models{' beside its base' if self.takes_base else ''}"
            raise ValueError(f"{self.method} merges {wanted}, not {len(self.own)}")
        each = [name for name, parameter in self.parameters.items() if parameter.annotation == PerModel]
        for scope in self.shared:
            self._check_names(scope, list(self.parameters), "")
        for scope in (scope for scopes in self.own for scope in scopes):
            self._check_names(scope, each, " of a single model")
        if self.seed is not None and "seed" not in self._signature:
            raise ValueError(f"{self.method} draws nothing at random: it takes no seed")

    def _check_names(self, scope: Mapping[str, Any], allowed: list[str], whose: str) -> None:
        for name in scope.keys() - set(allowed):
            raise ValueError(f"{self.method} has no parameter {name!r}{whose}; allowed: {', '.join(allowed) or 'none'}")

    @cached_property
    def _signature(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(METHODS[self.method]).parameters

    @property
    def takes_base(self) -> bool:
        return takes_base(self.method)

    @property
    def roles(self) -> list[str]:
        """What the method calls each model but the base; nothing where it takes any number of models."""
        tensors = [name for name, parameter in self._signature.items() if parameter.annotation is Tensor]
        return [name for name in tensors if name not in ("base", "out")]

    @cached_property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Those that settings give values to, by mergekit's names (`lambda` is a keyword of Python's)."""
        return {name.rstrip("_"): p for name, p in self._signature.items() if p.annotation in KINDS}

    def arguments(self, tensor: str, depth: float) -> dict[str, Any]:
        """The method's keyword arguments for the tensor of this name and depth."""
        values = {}
        for name, parameter in self.parameters.items():
            if parameter.annotation == PerModel:
                found = [self._value(name, parameter, [*own, *self.shared], tensor, depth) for own in self.own]
            else:
                found = self._value(name, parameter, self.shared, tensor, depth)
            values[parameter.name] = found
        if "seed" in self._signature:
            drawn = hashlib.sha256(f"{self.seed or 0} {tensor}".encode()).digest()
            values["seed"] = int.from_bytes(drawn[:8], "little")
        return values

    def _value(self, name: str, parameter: inspect.Parameter, scopes: Scopes, tensor: str, depth: float) -> Any:
        for scope in scopes:
            if name in scope:
                try:
                    value = value_at(scope[name], KINDS[parameter.annotation], tensor, depth)
                except ValueError as error:
                    raise ValueError(f"{name} is {error}") from None
                if value is not None:
                    return value
        if parameter.default is inspect.Parameter.empty:
            raise ValueError(f"{self.method} needs {name}, which has no value for {tensor}")
        return parameter.default

    def merge(self, tensor: str, depth: float, tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """Merge tensors of one name, the base's first where the method takes one.

        `out` takes the result and sets its type, as in the methods. Tensors without a fraction, such as counters, stay
        as they are. Raises `ValueError` where those differ, and where a parameter makes no sense.
        """
        if not all(each.is_floating_point() for each in tensors):
            if any(each.dtype != tensors[0].dtype or not torch.equal(each, tensors[0]) for each in tensors):
                raise ValueError(f"of type {tensors[0].dtype}, differs between models and has no values in between")
            return tensors[0].clone()
        first, rest = ([tensors[0]], tensors[1:]) if self.takes_base else ([], tensors)
        inputs = [*first, rest] if "tensors" in self._signature else [*first, *rest]
        return METHODS[self.method](*inputs, **self.arguments(tensor, depth), out=out)
