"""Rows of published benchmarks, in their own schemas, as items.

- `memotrap`: MemoTrap (Liu and Liu 2023, of the Inverse Scaling Prize): `prompt`, `classes` (a Python list of two
  continuations as text), `answer_index`. The other continuation is the memorised one.
- `truthfulqa`: TruthfulQA (Lin et al. 2022, arXiv 2109.07958): `Question`, `Best Answer`, `Correct Answers` and
  `Incorrect Answers`, parted by semicolons, `Type`, `Category`. Asked without the authors' six examples.
- `popqa`: PopQA (Mallen et al. 2023, arXiv 2212.10511): `question`, `possible_answers` (a JSON list as text), `prop`,
  the relation, `s_pop`, monthly views of the subject's page. Asked without examples.
- `nq-swap`: NQ-Swap (Longpre et al. 2021, arXiv 2109.05052): `question`, `sub_context` and `sub_answer`, in which
  another answer was put in place of `org_answer`, the one known. Answers are lists.
- `halueval-qa`, `-dialogue`, `-summarization`: HaluEval (Li et al. 2023, arXiv 2305.11747): a right and a hallucinated
  text each. The authors judge one of the two, drawn at random, and show no knowledge; here both are judged, beside it.
- `halueval-general`: `user_query`, `chatgpt_response`, and `hallucination`, yes or no (once `hallucination_label`).

A parser raises `ValueError` or `KeyError` of a row that is not in its schema, as `common.rows.parse_rows` expects.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.corpus.csv_rows import encodable
from common.corpus.literals import literal
from common.tasks.items import NO, YES, Aspect, Item, Kind

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Schema:
    """Columns that a file must have, what a row asks, and what the task is (see `common.tasks.items.Task`)."""

    columns: frozenset[str]
    items: Callable[[Row], list[Item]]
    aspect: Aspect
    kind: Kind
    measures: str


def memotrap(row: Row) -> list[Item]:
    classes = _texts(row, "classes", literal)
    place = _number(row, "answer_index")
    if len(classes) != 2 or place > 1:
        raise ValueError(f"answer_index {place} of {len(classes)} classes, allowed: 0 or 1 of 2")
    other = (classes[1 - place],)
    return [Item(_text(row, "prompt"), (classes[place],), other, memorised=other)]


def truthfulqa(row: Row) -> list[Item]:
    best, question = _text(row, "Best Answer").strip(), _text(row, "Question").strip()
    right, wrong = (_parted(_text(row, f"{name} Answers")) for name in ("Correct", "Incorrect"))
    groups = {"category": _text(row, "Category"), "type": _text(row, "Type")}
    right = dict.fromkeys([best, *right])
    return [Item(_asked(question), _following(right), _following(wrong), groups=groups)]


def popqa(row: Row) -> list[Item]:
    views = _number(row, "s_pop")
    groups = {"popularity": decade(views), "relation": _text(row, "prop")}
    known = _texts(row, "possible_answers", json.loads)
    return [Item(_asked(_text(row, "question").strip()), tuple(known), groups=groups)]


def nq_swap(row: Row) -> list[Item]:
    prompt = f"{_text(row, 'sub_context').strip()}\n\n{_asked(_text(row, 'question').strip())}"
    right, known = (tuple(_texts(row, name)) for name in ("sub_answer", "org_answer"))
    return [Item(prompt, right, memorised=known)]


def halueval_qa(row: Row) -> list[Item]:
    shown = f"Knowledge: {_text(row, 'knowledge')}\nQuestion: {_text(row, 'question')}"
    return _judged(row, shown, "answer", "knowledge")


def halueval_dialogue(row: Row) -> list[Item]:
    shown = f"Knowledge: {_text(row, 'knowledge')}\nDialogue: {_text(row, 'dialogue_history')}"
    return _judged(row, shown, "response", "knowledge")


def halueval_summarization(row: Row) -> list[Item]:
    return _judged(row, f"Document: {_text(row, 'document')}", "summary", "document")


def halueval_general(row: Row) -> list[Item]:
    label = _text(row, "hallucination" if "hallucination" in row else "hallucination_label").strip().lower()
    if label not in ("yes", "no"):
        raise ValueError(f"hallucination is {label!r:.40}, allowed: yes, no")
    prompt = f"Query: {_text(row, 'user_query')}\nReply: {_text(row, 'chatgpt_response')}\nIs any of the reply made up"
    return [_yes_or_no(f"{prompt} or false? Yes or No:", label == "yes", "reply")]


def decade(count: int) -> str:
    """The power of ten that a count has reached, as `10^3`; `0` for none."""
    return f"10^{len(str(count)) - 1}" if count else "0"


def _judged(row: Row, shown: str, name: str, support: str) -> list[Item]:
    asked = f"Is any of the {name} not supported by the {support}? Yes or No:"
    texts = {made_up: _text(row, f"{'hallucinated' if made_up else 'right'}_{name}") for made_up in (False, True)}
    if texts[True].strip() == texts[False].strip():
        raise ValueError(f"right_{name} and hallucinated_{name} are the same")
    return [
        _yes_or_no(f"{shown}\n{name.capitalize()}: {text}\n{asked}", made_up, name) for made_up, text in texts.items()
    ]


def _yes_or_no(prompt: str, yes: bool, name: str) -> Item:
    right, wrong = (YES, NO) if yes else (NO, YES)
    return Item(prompt, (right,), (wrong,), groups={name: "hallucinated" if yes else "right"})


def _asked(question: str) -> str:
    return f"Q: {question}\nA:"


def _following(texts) -> tuple[str, ...]:
    return tuple(f" {text}" for text in texts)


def _parted(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(";") if part.strip()))


def _text(row: Row, name: str) -> str:
    """A field with something in it, its lines ended as everywhere, whatever ended those of the file."""
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r:.40}, allowed: a text")
    return encodable(value).replace("\r\n", "\n")


def _texts(row: Row, name: str, parse: Callable[[str], Any] | None = None) -> list[str]:
    """A list of texts, or, where there is a way to `parse` one, a text that spells it."""
    value = row[name]
    if isinstance(value, str) and parse:
        try:
            value = parse(encodable(value))
        except ValueError as error:
            raise ValueError(f"{name} is {row[name]!r:.40}, allowed: a list of texts") from error
    if not isinstance(value, list) or not value or not all(isinstance(text, str) and text.strip() for text in value):
        raise ValueError(f"{name} is {row[name]!r:.40}, allowed: a list of texts")
    return list(dict.fromkeys(map(encodable, value)))


def _number(row: Row, name: str) -> int:
    value = str(row[name]).strip()
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{name} is {row[name]!r:.40}, allowed: a whole number, 0 or more")
    return int(value)


def _halueval(name: str, shown: set[str], items: Callable[[Row], list[Item]], measures: str) -> Schema:
    columns = frozenset({*shown, f"right_{name}", f"hallucinated_{name}"})
    return Schema(columns, items, "faithfulness", "yes or no", measures)


SCHEMAS: dict[str, Schema] = {
    "memotrap": Schema(
        frozenset({"prompt", "classes", "answer_index"}),
        memotrap,
        "faithfulness",
        "choice",
        "follows an instruction against a memorised ending",
    ),
    "truthfulqa": Schema(
        frozenset({"Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers"}),
        truthfulqa,
        "factuality",
        "choice",
        "prefers the truth to common misconceptions",
    ),
    "popqa": Schema(
        frozenset({"prop", "s_pop", "question", "possible_answers"}),
        popqa,
        "factuality",
        "contains",
        "recalls facts, frequent and rare, without a context",
    ),
    "nq-swap": Schema(
        frozenset({"question", "sub_context", "org_answer", "sub_answer"}),
        nq_swap,
        "faithfulness",
        "contains",
        "follows a context that contradicts what is known",
    ),
    "halueval-qa": _halueval(
        "answer",
        {"knowledge", "question"},
        halueval_qa,
        "recognises an answer that the knowledge given does not support",
    ),
    "halueval-dialogue": _halueval(
        "response",
        {"knowledge", "dialogue_history"},
        halueval_dialogue,
        "recognises a reply in a dialogue that the knowledge given does not support",
    ),
    "halueval-summarization": _halueval(
        "summary", {"document"}, halueval_summarization, "recognises a summary that its document does not support"
    ),
    "halueval-general": Schema(
        frozenset({"user_query", "chatgpt_response"}),
        halueval_general,
        "factuality",
        "yes or no",
        "recognises a reply with something made up",
    ),
}
