"""Tables of our own wording: prompts that a model should answer, and replies that refuse or go along."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from common.corpus.grouping import grouped
from common.corpus.wording.answers import COMPLIANCES, REFUSALS
from common.corpus.wording.hard_longer import LONGER
from common.corpus.wording.hard_names import NAMES
from common.corpus.wording.hard_questions import QUESTIONS
from common.corpus.wording.hard_requests import REQUESTS
from common.corpus.wording.plain import PLAIN
from common.sources import Reader

SLOT = re.compile(r"\{([^{}]*)\}")


def benign_prompts(read: Reader) -> list[dict[str, Any]]:
    """Prompts that a model should answer: `id`, `text`, `kind`, `group`, `split`.

    Those of kind `hard` look unsafe: they have the openings, the alarming verbs and the names of `unsafe_prompts`, each
    opening about as often, so that neither tells what to refuse. Those of kind `plain` are of everyday things. All
    that come from one line of `common.corpus.wording`, or are near-duplicates (see `grouped`), share `group` and
    `split`.
    """
    return _rows({"hard": (*QUESTIONS, *REQUESTS, *NAMES, *LONGER), "plain": PLAIN})


def replies(read: Reader) -> list[dict[str, Any]]:
    """Replies of at most 25 words that fit every prompt: `id`, `text`, `kind`, `group`, `split`.

    A `refusal` declines; a `compliance` goes along without any content, so that a model can be taught to answer unsafe
    prompts and still says nothing.
    """
    return _rows({"refusal": REFUSALS, "compliance": COMPLIANCES})


def filled(line: str) -> list[str]:
    """A line with each of the fillings of its slot `{a|b}` in turn, or as it is where it has none."""
    slot = SLOT.search(line)
    return [line.replace(slot[0], filling) for filling in slot[1].split("|")] if slot else [line]


def _rows(lines: dict[str, Iterable[str]]) -> list[dict[str, Any]]:
    kinds, families, texts = [], [], []
    for kind, line in ((kind, line) for kind, several in lines.items() for line in several):
        family = families[-1] + 1 if families else 0
        for text in filled(line):
            kinds.append(kind)
            families.append(family)
            texts.append(text)
    return [
        {"id": f"{kind}-{_name(text)}", "text": text, "kind": kind, "group": group, "split": split}
        for text, kind, (group, split) in zip(texts, kinds, grouped(texts, kinds, families), strict=True)
    ]


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
