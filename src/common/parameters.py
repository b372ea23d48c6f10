"""Types of parameters that studies share: what a value must be is said once, in its type."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

Item = TypeVar("Item")


def _distinct(values: list[Item]) -> list[Item]:
    if len({repr(value) for value in values}) < len(values):
        raise ValueError("each value must be there once")
    return values


Distinct = Annotated[list[Item], Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[list[int], Field(min_length=2), AfterValidator(_distinct)]  # a spread needs two
Share = Annotated[float, Field(gt=0, lt=1)]
