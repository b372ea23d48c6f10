"""Words with numbers in them: prose, printed tables, labels of figures."""

import re
from collections import Counter

# A number as it is printed; digits inside a name such as W8, GPT-2 or m2 are part of the name.
NUMBER = re.compile(r"(?:(?<![\w.])[-+−]|(?<![\w.-]))\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


def words_of(text: str) -> str:
    """A text with its numbers blanked and its white space evened."""
    return " ".join(NUMBER.sub("#", text).split())


def numbers_of(text: str) -> list[str]:
    """The numbers of a text as printed."""
    return NUMBER.findall(text)


def close(one: str, other: str) -> bool:
    """Whether two printed numbers differ by no more than one in the last digit of the coarser."""
    return abs(_value(one) - _value(other)) <= max(_step(one), _step(other)) * (1 + 1e-9)


def _value(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def _step(number: str) -> float:
    digits, _, exponent = number.replace(",", "").partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2])) if "." in number or exponent else 0.0


def first_difference(old: str, new: str) -> str:
    """The first words that differ, with some of those around them."""
    one, other = old.split(), new.split()
    place = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    shown = [" ".join(words[max(0, place - 2) : place + 4]) or "nothing" for words in (one, other)]
    return f"“{shown[0]}” → “{shown[1]}”"


def svg_labels(content: bytes) -> Counter[str]:
    """Words that a figure of ours shows, numbers blanked."""
    labels = Counter(words_of(text) for text in svg_texts(content).elements())
    return Counter({label: number for label, number in labels.items() if re.search(r"[^\W\d_]", label)})


def svg_texts(content: bytes) -> Counter[str]:
    """All that a figure of ours shows as text, ticks too: matplotlib notes each text beside its outlines."""
    return Counter(" ".join(text.split()) for text in re.findall(r"<!-- (.*?) -->", content.decode(), flags=re.DOTALL))
