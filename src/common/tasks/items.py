"""What a task asks: prompts, the kind of answer, right, wrong and memorised answers, groups to break down by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from common.errors import UserError

Aspect = Literal["factuality", "faithfulness"]
"""To the world, or to what the prompt gives: a context, an instruction (arXiv 2410.17477)."""

Kind = Literal["choice", "yes or no", "exact", "contains"]
"""How an answer is had and compared. `choice` and `yes or no`: the likeliest of the texts offered. `exact` and
`contains`: a generated line, which after normalisation is a right answer, or has one in it."""

OFFERED: tuple[Kind, ...] = ("choice", "yes or no")
YES, NO = " Yes", " No"


@dataclass(frozen=True)
class Item:
    """One question. Answers are texts as they follow the prompt: those that are offered begin with a space.

    `prompt` is all that the model reads, context included. Of `right` answers the first is the best one. `wrong` is
    what else is offered, and empty where the answer is generated. `memorised` is what memory would say against the
    prompt: for items that offer answers some of `wrong`. `groups` are names of breakdowns with the item's value, as
    `{"popularity": "10^3"}`. Items with the same `row`, where it is given, are resampled together.

    Raises `ValueError` where there is no prompt or right answer, an answer is blank, or right and wrong alike.
    """

    prompt: str
    right: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    memorised: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    row: str = ""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError("the prompt is empty")
        if not self.right:
            raise ValueError("there is no right answer")
        for text in (*self.right, *self.wrong, *self.memorised):
            if not text.strip():
                raise ValueError("an answer is empty")
        for name in ("wrong", "memorised"):
            if both := set(self.right) & set(getattr(self, name)):
                raise ValueError(f"{min(both)!r:.40} is right and {name}")


@dataclass(frozen=True)
class Task:
    """Items of one kind. `measures` says in a line what the task stands in for, `max_new_tokens` how long a generated
    answer may be.

    Raises `UserError` where there are no items, or one does not fit the kind of answer.
    """

    name: str
    aspect: Aspect
    kind: Kind
    measures: str
    items: Sequence[Item]
    max_new_tokens: int = 16

    def __post_init__(self) -> None:
        if not self.items:
            raise UserError(f"{self.name}: no items")
        for number, item in enumerate(self.items):
            if (self.kind in OFFERED) is not bool(item.wrong):
                offered = f"{len(item.wrong)} wrong answers are offered"
                raise UserError(f"{self.name}: item {number}: the answer is {self.kind!r}, and {offered}")
            if item.wrong and not set(item.memorised) <= set(item.wrong):
                raise UserError(f"{self.name}: item {number}: a memorised answer is not among those offered")
            if self.kind == "yes or no" and {*item.right, *item.wrong} != {YES, NO}:
                raise UserError(f"{self.name}: item {number}: answers are {item.right + item.wrong}, not {(YES, NO)}")

    def part(self, numbers: Sequence[int]) -> "Task":
        """The same task with some of its items."""
        return replace(self, items=[self.items[number] for number in numbers])
