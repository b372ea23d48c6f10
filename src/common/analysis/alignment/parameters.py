"""What the study's parameters may be: arms as lines, ways to merge, how reviews are used."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PositiveInt,
    RootModel,
    Tag,
    model_validator,
)

from common.alignment.design import Arm, check_balanced
from common.alignment.runs import merge_tuned
from common.alignment.starting import Instruction
from common.analysis.alignment.claims import CELL
from common.bases.given import Given
from common.errors import UserError
from common.pairs.reviews import Sampling
from common.parameters import Distinct
from common.preference.tuning import Tuning


class Taken(Given):
    """An instruct model of others, taken as it is."""

    further: None


def _kind(value: object) -> str:
    return "taken" if isinstance(value, Taken) or (isinstance(value, Mapping) and "model" in value) else "made"


class Instruct(RootModel):
    """How bases become instruct models, or one that others trained."""

    root: Annotated[Annotated[Instruction, Tag("made")] | Annotated[Taken, Tag("taken")], Discriminator(_kind)]


def taken_model(instruction: Mapping[str, Any]) -> Taken | None:
    """The instruct model that the study's parameter `instruction` names; None where it says how one is made."""
    return Taken.model_validate(instruction) if _kind(instruction) == "taken" else None


class Reviews(BaseModel):
    """How a base becomes a reader of reviews, how pairs are drawn from what it writes, how it is tuned on them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passages: PositiveInt
    tuning: Tuning
    sampling: Sampling
    recipe: Tuning


class Way(BaseModel):
    """A way to merge: method and settings of `common.merging`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["linear", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties"]
    settings: dict[str, Any]

    @model_validator(mode="after")
    def _works(self) -> "Way":
        tiny = [{"model.layers.0.weight": torch.full((2, 2), value)} for value in (1.0, 2.0, 3.0)]
        weight = self.settings.get("weight")
        count = len(weight) if isinstance(weight, list) else 2
        try:
            merge_tuned(self.method, tiny[0], (tiny[1:] * 2)[:count], self.settings, seed=0)
        except (UserError, TypeError) as error:
            raise ValueError(str(error)) from error
        return self


def arms(listed: Iterable[str]) -> list[dict[str, object]]:
    """Arms of `common.alignment.design` from lines such as `base hh-like harmless,mix dpo quantized=true n=50,100`.

    Start, data, aim and method, then what is otherwise than in the recipe; of each word every alternative meets every
    other's, the last running fastest. Raises `UserError` where one is no arm.
    """
    found = []
    for line in listed:
        words = [word.split("=", 1) for word in line.split()]
        named = [(name, *rest) for name, rest in zip(("start", "data", "aim", "method"), words[:4], strict=False)]
        named += words[4:]
        if len(words) < 4 or any(len(word) != 2 for word in named):
            raise UserError(f"arm {line!r}, allowed: start, data, aim and method, then name=value")
        for values in product(*(values.split(",") for _, values in named)):
            try:
                arm = Arm.model_validate(dict(zip((name for name, _ in named), values, strict=True)))
            except ValueError as error:
                raise UserError(f"arm {line!r}: {' '.join(str(error).split()[5:20])}") from error
            found.append(arm.model_dump(exclude_defaults=True))
    return found


def _parsed(listed: list[str]) -> list[str]:
    try:
        arms(listed)
    except UserError as error:
        raise ValueError(str(error)) from error
    return listed


Lines = Annotated[Distinct[str], AfterValidator(_parsed)]
"""Arms as a parameter lists them."""

MaybeLines = Annotated[list[str], Field(max_length=0)] | Lines
"""Arms of a part that a scale may leave out."""


def places(listed: Iterable[str], *, quantized: bool) -> list[dict[str, object]]:
    """Where in the crossing arms stand, by the names of `common.analysis.alignment.claims.CELL`.

    Raises `UserError` where factors' levels do not meet equally often, or an arm is not `quantized` as all should be.
    """
    several = arms(listed)
    check_balanced([Arm.model_validate(arm) for arm in several], ("start", "data", "aim", "method"))
    if other := [arm for arm in several if arm.get("quantized", False) != quantized]:
        words = " ".join(str(other[0][name]) for name in ("start", "data", "aim", "method"))
        raise UserError(f"arm {words}: quantized must be {str(quantized).lower()}, as of all arms beside it")
    return [{"dataset": arm["data"], **{name: arm[name] for name in CELL if name != "dataset"}} for arm in several]
