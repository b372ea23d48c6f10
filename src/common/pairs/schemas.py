"""Rows of published preference data, in their own schemas, as pairs.

- `hh`: HH-RLHF (Bai et al. 2022, arXiv 2204.05862): `chosen` and `rejected`, two dialogues that differ in the last
  reply.
- `beavertails`: BeaverTails (Ji et al. 2023, arXiv 2307.04657): one answer a row with its harms, `is_safe` or not.
- `safe-rlhf`: PKU-SafeRLHF (Ji et al. 2024, arXiv 2406.15513): two answers a row, which is better and which safer.

A parser raises `ValueError` or `KeyError` of a row that is not in its schema, as `common.rows.parse_rows` expects.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common.pairs.table import Aim, Pair, turns

Row = Mapping[str, Any]
SPEAKERS = ("Human", "Assistant")
TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Answer:
    """A reply to a prompt, with whether it is safe."""

    prompt: str
    text: str
    safe: bool
    category: str


def hh_pair(row: Row, aim: Aim, source: str) -> Pair:
    """The pair of a row of HH-RLHF, which aim it serves being known from its folder.

    Both dialogues begin with a human, take turns, are the same but for the last turn, and that is the assistant's.
    """
    chosen, rejected = (_said(_text(row, name), name) for name in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected differ before their last turn")
    return _pair(turns(chosen[:-1]), chosen[-1], rejected[-1], aim, "", source)


def beavertails_answer(row: Row) -> Answer:
    """The answer in a row of BeaverTails. `is_safe` says that it has no harm among the categories."""
    category, safe = _harm(row["category"]), _flag(row, "is_safe")
    if safe != (category == ""):
        raise ValueError(f"is_safe is {safe}, and its category {category or 'none'}")
    return Answer(_text(row, "prompt"), _text(row, "response"), safe, category)


def paired(answers: Iterable[Answer], source: str) -> list[Pair]:
    """Safe answers over unsafe ones to the same prompt, each answer in one pair at most.

    A prompt all of whose answers are safe, or none, gives no pair. The category is that of the unsafe answer.
    """
    by_prompt: dict[str, tuple[dict[str, Answer], dict[str, Answer]]] = {}
    for answer in answers:
        by_prompt.setdefault(answer.prompt, ({}, {}))[answer.safe].setdefault(answer.text.strip(), answer)
    return [
        Pair(turns([prompt]), good.text, bad.text, "harmless", bad.category, source)
        for prompt, (unsafe, safe) in by_prompt.items()
        for good, bad in zip(
            [safe[text] for text in safe if text not in unsafe], [unsafe[text] for text in unsafe if text not in safe],
            strict=False,
        )
    ]  # fmt: skip


def safe_rlhf_pair(row: Row, aim: Aim, source: str) -> Pair:
    """The pair of a row of PKU-SafeRLHF: the better answer is helpful, the safer one harmless, over the other.

    The category is that of the rejected answer where the row has harms.
    """
    answers = [_text(row, f"response_{number}") for number in (0, 1)]
    safe = [_flag(row, f"is_response_{number}_safe") for number in (0, 1)]
    better, safer = _which(row, "better_response_id"), _which(row, "safer_response_id")
    if safe[0] != safe[1] and not safe[safer]:
        raise ValueError(f"safer_response_id is {safer}, and only the other response is safe")
    first = better if aim == "helpful" else safer
    harms = row.get(f"response_{1 - first}_harm_category")
    category = "" if harms is None else _harm(harms)
    return _pair(turns([_text(row, "prompt")]), answers[first], answers[1 - first], aim, category, source)


PARSERS: dict[str, Callable[[Row, Aim, str], Pair]] = {"hh": hh_pair, "safe-rlhf": safe_rlhf_pair}
"""Schemas of which a row is a pair."""


def _pair(prompt, chosen: str, rejected: str, aim: Aim, category: str, source: str) -> Pair:
    if chosen.strip() == rejected.strip():
        raise ValueError("both responses are the same")
    return Pair(prompt, chosen, rejected, aim, category, source)


def _said(dialogue: str, name: str) -> list[str]:
    """What human and assistant say in turn."""
    before, *parts = TURN.split(dialogue)
    speakers, texts = parts[::2], [text.strip() for text in parts[1::2]]
    if before.strip() or not speakers:
        raise ValueError(f"{name} does not begin with '\\n\\nHuman:'")
    for place, (speaker, text) in enumerate(zip(speakers, texts, strict=True)):
        if speaker != SPEAKERS[place % 2]:
            raise ValueError(f"{name}: turn {place + 1} is by {speaker}, not by {SPEAKERS[place % 2]}")
        if not text:
            raise ValueError(f"{name}: turn {place + 1} is empty")
    if len(texts) % 2:
        raise ValueError(f"{name} does not end with a turn of the assistant")
    return texts


def _text(row: Row, name: str) -> str:
    if not isinstance(row[name], str) or not row[name].strip():
        raise ValueError(f"{name} is {row[name]!r:.40}, allowed: a text")
    return row[name]


def _flag(row: Row, name: str) -> bool:
    if not isinstance(row[name], bool):
        raise ValueError(f"{name} is {row[name]!r:.40}, allowed: true, false")
    return row[name]


def _which(row: Row, name: str) -> int:
    if isinstance(row[name], bool) or row[name] not in (0, 1):
        raise ValueError(f"{name} is {row[name]!r:.40}, allowed: 0, 1")
    return int(row[name])


def _harm(categories: object) -> str:
    """The first harm that is there; empty where there is none."""
    if not isinstance(categories, Mapping) or not all(isinstance(value, bool) for value in categories.values()):
        raise ValueError(f"category is {categories!r:.40}, allowed: true or false by name of a harm")
    return next((name for name, there in categories.items() if there), "")
