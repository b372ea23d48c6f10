"""Two tables of real English prose: presidents' addresses and film reviews, each split by document."""

import hashlib
import html
import re
import unicodedata
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import HashingVectorizer

from common.corpus.csv_rows import csv_rows, decoded, encodable
from common.rows import parse_rows
from common.sources import Reader

# Bytes of Windows-1252 that were read as Latin-1 became control characters (the ellipsis U+0085); Symbol's
# bullet became a private character. What is left of the control characters, and soft hyphens, carry no text.
REPAIR = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
REPAIR |= dict.fromkeys((*range(0x20), 0x7F, 0xAD), "") | dict.fromkeys((0x09, 0x0B, 0x0C, 0x0D, 0xA0), " ")
REPAIR |= {0x0A: "\n", 0xF0B7: "•"}

# Two curly quotes in the addresses are Mac Roman bytes that were read as Latin-1.
MAC_QUOTES = str.maketrans("ÔÕ", "‘’")

# The archive's own words among the president's: pointers to its notes, and a page's links to its parts.
ARCHIVE = re.compile(r"\s*\[see APP note\.?\]|^Jump to.*$", re.IGNORECASE | re.MULTILINE)

MARKUP = re.compile(r"</?(?:i|em|hr)>")

SHINGLE = 5
"""Length of the word sequences by which near-duplicates are recognised."""


def sotu(read: Reader) -> list[dict[str, Any]]:
    """Annual messages and State of the Union addresses: `id`, `split`, `text`, `year`, `president`.

    All documents of one president in one year fall into the same split: a spoken and a written version, a
    summary for the radio, or a series of messages share whole passages. Of every ten such groups in order
    of time, the two whose keys have the lowest SHA-256 are held out (validation, test), so that each split
    spans all eras. Nothing is dropped but the archive's pointers to its own notes and pages; a transcriber's
    marks such as "[Applause]" stay.
    """
    files = read("sotu")
    name = "sotu/data/metadata.csv"
    metadata = csv_rows(name, files[name], {"fileid", "year", "president_full", "president_id", "date"})

    def address(row: dict[str, str] | None) -> dict[str, Any]:
        text = decoded(files[f"sotu/data/speeches/{_whole(row)['fileid']}.txt"])
        return {
            "id": row["fileid"],
            "text": _clean(ARCHIVE.sub("", text.translate(MAC_QUOTES))),
            "year": int(row["year"]),
            "president": row["president_full"],
            "group": f"{row['year']} {row['president_id']}",
            "date": row["date"],
        }

    rows = parse_rows(name, metadata, address)
    rows.sort(key=lambda row: (row["date"], row["id"]))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    split = {}
    for start in range(0, len(groups), 10):
        held_out, *rest = sorted(groups[start : start + 10], key=_digest)
        split |= {held_out: "validation"} | dict.fromkeys(rest[:1], "test") | dict.fromkeys(rest[1:], "train")
    return [
        {
            name: split[row["group"]] if name == "split" else row[name]
            for name in ("id", "split", "text", "year", "president")
        }
        for row in rows
    ]


def movie_reviews(read: Reader) -> list[dict[str, Any]]:
    """Film reviews: `id`, `split`, `text`, `label` (0 negative, 1 positive), `source`.

    A review whose words equal an earlier one's, whatever its case, white space and punctuation, is dropped:
    101 of 33,530 rows (none of them with another label, none from the other source). Reviews that share at
    least half of the shorter one's five-word sequences, and at least ten, are kept but fall into one split.
    A group's split follows from the SHA-256 of its first words in alphabetical order: 80% train, 10%
    validation, 10% test in expectation. Line breaks in HTML become lines; other markup goes, entities and
    characters of a wrong code page are resolved.
    """
    [content] = read("movie-reviews").values()
    file = "combined_movie_reviews.csv"
    found = enumerate(csv_rows(file, content, {"text", "label", "source"}), start=1)
    rows, words = [], {}
    for row in parse_rows(file, ((line, (number, row)) for number, (line, row) in found), _review):
        if words.setdefault(normalised(row["text"]), row["id"]) == row["id"]:
            rows.append(row)
    groups = near_duplicates(list(words))
    first: dict[int, str] = {}
    for text, group in zip(words, groups, strict=True):
        first[group] = min(text, first.get(group, text))
    return [row | {"split": _split(first[group])} for row, group in zip(rows, groups, strict=True)]


def _review(numbered: tuple[int, dict[str, str] | None]) -> dict[str, Any]:
    number, row = numbered
    if _whole(row)["label"] not in ("0", "1"):
        raise ValueError(f"the label is {row['label']!r}, allowed: 0, 1")
    return {
        "id": f"{row['source']}-{number:05d}",
        "text": _clean(_without_html(row["text"])),
        "label": int(row["label"]),
        "source": row["source"],
    }


def normalised(text: str) -> str:
    """The words of a text alone: compatible characters unified, case folded, one space between words."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def near_duplicates(texts: list[str]) -> list[int]:
    """A group's number for each normalised text; texts in one group are, perhaps by steps, near-duplicates.

    Two texts are when they share at least ten five-word sequences and at least half of the shorter one's.
    """
    hashed = HashingVectorizer(
        analyzer="word",
        token_pattern=r"\S+",
        ngram_range=(SHINGLE, SHINGLE),
        n_features=2**31 - 1,
        binary=True,
        norm=None,
        alternate_sign=False,
        lowercase=False,
        dtype=np.float32,
    ).transform(texts)
    sizes = np.diff(hashed.indptr)
    # Phrases that are everybody's would make the product dense and tell nothing: a sequence counts when
    # two to fifty texts have it.
    _, column, count = np.unique(hashed.indices, return_inverse=True, return_counts=True)
    kept = (count[column] >= 2) & (count[column] <= 50)
    row = np.repeat(np.arange(len(texts)), sizes)[kept]
    shared = csr_array((np.ones(row.size), (row, column[kept])), shape=(len(texts), count.size))
    pairs = (shared @ shared.T).tocoo()
    near = (pairs.data >= 10) & (2 * pairs.data >= np.minimum(sizes[pairs.row], sizes[pairs.col]))
    links = csr_array((near[near], (pairs.row[near], pairs.col[near])), shape=pairs.shape)
    return connected_components(links, directed=False)[1].tolist()


def _whole(row: dict[str, str] | None) -> dict[str, str]:
    if row is None:
        raise ValueError("another number of fields than the header")
    return row


def _clean(text: str) -> str:
    """Repaired characters in composed form, single spaces, at most one empty line, no outer white space."""
    text = unicodedata.normalize("NFC", encodable(text).translate(REPAIR))
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text))).strip()
    if not text:
        raise ValueError("the text is empty")
    return text


def _without_html(text: str) -> str:
    text = MARKUP.sub("", re.sub(r"<br\s*/?>", "\n", text))
    # In text that was split into tokens an entity's semicolon stands apart from its number.
    return html.unescape(re.sub(r"(&#\d+) ;", r"\1;", text))


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _split(key: str) -> str:
    tenth = _digest(key) * 10 >> 64
    return {8: "validation", 9: "test"}.get(tenth, "train")
