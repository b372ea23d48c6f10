"""Whether a written answer is one of those that are known, after the normalisation of SQuAD.

Rajpurkar et al. 2016, arXiv 1606.05250: lower case, without punctuation (ASCII), articles and surplus white space.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """The text as SQuAD compares it."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def is_exact(answer: str, known: Iterable[str]) -> bool:
    """Whether the answer is one of those known."""
    return normalise(answer) in {normalise(text) for text in known}


def f1(answer: str, known: Iterable[str]) -> float:
    """The best F1 of the answer's words against those of an answer known; 1 where both have none, as in SQuAD v2."""
    return max(_f1(normalise(answer).split(), normalise(text).split()) for text in known)


def _f1(said: list[str], known: list[str]) -> float:
    if not said or not known:
        return float(said == known)
    return 2 * (Counter(said) & Counter(known)).total() / (len(said) + len(known))


def named(answer: str, groups: Sequence[Sequence[str]]) -> int | None:
    """Which of several groups of known answers the answer names first; None where it names none.

    Whole words count: "Rome" is not in "Romeo". Of two that begin at the same word it is the longer one.
    """
    said = normalise(answer).split()
    found = [
        (start, -len(words), number)
        for number, group in enumerate(groups)
        for words in (normalise(text).split() for text in group)
        for start in range(len(said) - len(words) + 1)
        if words and said[start : start + len(words)] == words
    ]
    return min(found)[2] if found else None
