"""How well two makings of the same results agree: four levels, each weaker than the one before, and none."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """What holds. The values are exit codes of `compendium verify`; 1 and 2 are those of errors and wrong usage."""

    BITWISE = 0  # the same bytes
    NUMERICAL = 3  # the same words, every number within its metric's tolerance
    STATISTICAL = 4  # the same words and verdicts, estimates inside each other's intervals
    VERDICTS = 5  # the same verdicts
    NONE = 6  # not even those


@dataclass(frozen=True)
class Finding:
    """What came of comparing one file, or one part, of a study. `notes`: what differs, the gravest first."""

    study: str
    part: str
    name: str
    level: Level
    notes: tuple[str, ...] = ()


def weakest(levels: Iterable[Level]) -> Level:
    """The level that holds of all."""
    return max(levels, default=Level.BITWISE)
