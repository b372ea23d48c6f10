"""The table of preference pairs: a dialogue up to a user's turn, the reply that is preferred, the one that is not."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from common.errors import UserError

Aim = Literal["harmless", "helpful"]
Choice = Literal["harmless", "helpful", "mix", "sentiment"]
AIMS: tuple[Aim, ...] = get_args(Aim)
FILE = "pairs.jsonl"  # in the folder that a run keeps
ROLES = ("user", "assistant")


@dataclass(frozen=True)
class Pair:
    """`prompt` are a dialogue's turns as chat templates take them, the last one a user's.

    `category` says what kind of harm the rejected reply does, or which sentiment is wanted, and is empty where the
    source doesn't say; `source` names the data set.
    """

    prompt: tuple[dict[str, str], ...]
    chosen: str
    rejected: str
    aim: Aim | Literal["sentiment"]
    category: str
    source: str


def turns(texts: Iterable[str]) -> tuple[dict[str, str], ...]:
    """Texts said by user and assistant in turn."""
    return tuple({"role": ROLES[place % 2], "content": text} for place, text in enumerate(texts))


def pair_table(pairs: Iterable[Pair]) -> pd.DataFrame:
    """Columns `prompt` (a list of turns), `chosen`, `rejected`, `aim`, `category`, `source`."""
    return pd.DataFrame([asdict(pair) for pair in pairs], columns=list(Pair.__dataclass_fields__))


def write_pairs(table: pd.DataFrame, folder: Path) -> None:
    """Write a table of pairs to `pairs.jsonl` in a folder, the same bytes wherever the table is the same."""
    text = table.to_json(orient="records", lines=True, force_ascii=False)
    (folder / FILE).write_text(text, encoding="utf-8", newline="\n")


def load_pairs(folder: Path) -> pd.DataFrame:
    """What `write_pairs` wrote; `UserError` where there is none."""
    if not (folder / FILE).is_file():
        raise UserError(f"{folder} holds no {FILE}")
    return pd.read_json(folder / FILE, lines=True, dtype=False)


def of_aim(table: pd.DataFrame, aim: Choice) -> pd.DataFrame:
    """The pairs of an aim, or a mix: as many pairs as each aim has on average, half of each, by turns.

    A mix is no larger than its parts, so that what mixing does is not what more data does. Raises `UserError` where
    an aim has no pairs.
    """
    by_aim = {name: table[table["aim"] == name] for name in (AIMS if aim == "mix" else (aim,))}
    if absent := [name for name, rows in by_aim.items() if rows.empty]:
        there = ", ".join(sorted(set(table["aim"]))) or "none"
        raise UserError(f"there are no {absent[0]} pairs; aims in this table: {there}")
    if aim != "mix":
        return by_aim[aim].reset_index()
    half = min(map(len, by_aim.values())) // 2
    return (
        pd.concat([rows.head(half).assign(turn=range(half)) for rows in by_aim.values()])
        .sort_values("turn", kind="stable")
        .drop(columns="turn")
        .reset_index()
    )
