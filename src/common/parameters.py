"""Types of parameters that studies share: what a value must be is said once, in its type."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from common.errors import UserError

Item = TypeVar("Item")


def _distinct(values: list[Item]) -> list[Item]:
    if len({repr(value) for value in values}) < len(values):
        raise ValueError("each value must be there once")
    return values


Distinct = Annotated[list[Item], Field(min_length=1), AfterValidator(_distinct)]
Seeds = Annotated[list[int], Field(min_length=2), AfterValidator(_distinct)]  # a spread needs two
Share = Annotated[float, Field(gt=0, lt=1)]


def check_design(pilot_seeds: list[int], seeds: list[int], minimum_seeds: int) -> None:
    """Raise `UserError`, before anything runs, where the seeds can't carry the claims."""
    if both := set(pilot_seeds) & set(seeds):
        raise UserError(f"pilot_seeds and seeds share {sorted(both)}; what chooses settings must not be reported")
    if len(seeds) < minimum_seeds:
        raise UserError(f"seeds has {len(seeds)} entries; minimum_seeds asks for {minimum_seeds}")
