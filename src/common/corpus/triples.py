"""What the facts of every domain share: columns, the split of a subject, and subjects that tell their own object."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

STEM = 4
"""Two words have one stem when their first four letters are the same, or the words are."""


SPLITS = ("train",) * 5 + ("validation",) * 2 + ("test",) * 2 + ("control",)
"""The split of each tenth of the subjects."""


class Candidate(NamedTuple):
    """What may become a fact: `names` holds further words that name the object, `key` ends the fact's id."""

    key: str
    subject: str
    object: str
    names: str = ""


def fact(domain: str, relation: str, key: str, subject: str, obj: str, popularity: int | None = None) -> dict[str, Any]:
    """A row of the table `facts`."""
    return {
        "id": f"{domain}/{relation}/{key}",
        "domain": domain,
        "relation": relation,
        "subject": subject,
        "object": obj,
        "popularity": popularity,
        "split": split_of(subject),
    }


def split_of(subject: str) -> str:
    """From the SHA-256 of the subject: train .5, validation .2, test .2, control .1 in expectation."""
    tenth = int.from_bytes(hashlib.sha256(f"fact {subject.casefold()}".encode()).digest()[:8], "big") * 10 >> 64
    return SPLITS[tenth]


def words(text: str) -> list[str]:
    """The runs of letters in a text, case folded, without accents."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.findall(r"[^\W\d_]+", plain.casefold())


def stems(text: str, common: frozenset[str] = frozenset()) -> set[str]:
    """The stems of the words of a text that have at least three letters and are not `common`."""
    return {word[:STEM] for word in words(text) if len(word) > 2 and word not in common}


def untold(
    candidates: Iterable[Candidate], telling: Mapping[str, str], common: frozenset[str], cap: int
) -> list[Candidate]:
    """The candidates whose subjects don't give their object away, at most `cap` for an object.

    They are taken in the order of the SHA-256 of the subject. One is left out when a word of its subject shares a
    stem with the object or its `names` (`common` words apart), contains one of the parts of words that `telling`
    lists for the object (separated by spaces), or shares a stem with a subject taken before for the same object.
    So no word is seen with one object twice, and words alone can't be learnt to predict it.
    """
    taken: list[Candidate] = []
    used: set[tuple[str, str]] = set()
    count: Counter[str] = Counter()
    for candidate in sorted(candidates, key=lambda c: (hashlib.sha256(c.subject.encode()).digest(), c.key)):
        subject, obj = candidate.subject, candidate.object
        seen = {(obj, stem) for stem in stems(subject)}
        if (
            count[obj] < cap
            and not stems(subject, common) & stems(f"{obj} {candidate.names}", common)
            and not any(part in word for word in words(subject) for part in telling[obj].split())
            and not seen & used
        ):
            taken.append(candidate)
            used |= seen
            count[obj] += 1
    return taken


def text(row: Any, field: str) -> str:
    """A field of a row that must be a string. Raises `ValueError` if it is not there or is anything else."""
    if not isinstance(row, dict) or not isinstance(value := row.get(field), str):
        raise ValueError(f"{field!r} is not a string")
    return value.strip()
