"""Short texts that differ by little belong to one group, and a group to one split."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import CountVectorizer

from common.corpus.prose import near_duplicates, normalised

APOSTROPHES = str.maketrans("‘’", "''")
QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|(?<=\s)'[^']*'(?=[\s.,?!])")
WORD = re.compile(r"[\w'-]+|[.?!]")
# "my neighbor, Shanice" and "my boss, Jake" are one slot: whose it is changes along with the name.
RELATION = re.compile(r"\bmy (?:[\w-]+ ){1,2}X\b")

# Words that ask, whatever for: "rob a bank" and "Describe how to rob a bank" are one prompt.
ASKING = {
    "a", "about", "an", "and", "any", "are", "as", "at", "best", "can", "could", "describe", "do", "does", "explain",
    "for", "from", "get", "give", "help", "how", "i", "if", "in", "is", "it", "let", "list", "make", "me", "my", "of",
    "on", "one", "or", "people", "please", "provide", "show", "some", "somebody", "someone", "teach", "tell", "that",
    "the", "there", "this", "to", "way", "ways", "what", "when", "where", "which", "who", "why", "will", "with",
    "would", "write", "you", "your", "X", "0",
}  # fmt: skip

STEM = 5  # letters of a word
TELLING = 4  # words that say what is asked for: fewer may be shared by chance

DEAL = ("train", "validation", "train", "test", "train")


def template(text: str) -> str:
    """The words of a text in lower case, with `X` for each name and quotation and `0` for each number.

    A name is a run of words with a capital that don't begin a sentence; "my", a relation and a name are one `X`.
    """
    text = QUOTED.sub(" X ", text.translate(APOSTROPHES))
    text = re.sub(r"\d+(?:[.,]\d+)*", "0", re.sub(r"'s\b", "", text))
    words, first = [], True
    for word in WORD.findall(text):
        if word in {".", "?", "!"}:
            first = True
            continue
        name = word[0].isupper() and not first and word.split("'")[0] != "I"
        word, first = "X" if name else word if word == "X" else word.casefold(), False
        if word != "X" or words[-1:] != ["X"]:
            words.append(word)
    return RELATION.sub("X", " ".join(words))


def opening(text: str) -> str:
    """The first two words of a text, in lower case."""
    return " ".join(re.findall(r"[\w']+", text.translate(APOSTROPHES).casefold())[:2])


def near_templates(templates: Sequence[str]) -> np.ndarray:
    """Whether two templates share at least two thirds of the longer one's words, in any order; `(n, n)`, boolean.

    Of all words or, by their first five letters, of those that say what is asked for. Of the latter it is enough that
    one template has at least four and the other four fifths of these. A word that comes twice in both is shared twice.
    """
    words = [text.split() for text in templates]
    shared, sizes = _shared(words)
    near = (shared > 0) & (3 * shared >= 2 * np.maximum.outer(sizes, sizes))
    shared, sizes = _shared([[word[:STEM] for word in several if word not in ASKING] for several in words])
    shorter, longer = np.minimum.outer(sizes, sizes), np.maximum.outer(sizes, sizes)
    near |= (shared > 0) & (3 * shared >= 2 * longer)
    return near | (shorter >= TELLING) & (5 * shared >= 4 * shorter)


def _shared(texts: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """How many words each two texts share, `(n, n)`, and how many each has, `(n,)`."""
    counted = [[(word, words[:place].count(word)) for place, word in enumerate(words)] for words in texts]
    rows = CountVectorizer(analyzer=list, dtype=np.float32).fit_transform(counted)
    return (rows @ rows.T).toarray(), np.array([len(words) for words in counted])


def grouped(
    texts: Sequence[str], strata: Sequence[str], families: Sequence[int] | None = None
) -> list[tuple[str, str]]:
    """Group and split of each text; near-duplicates, perhaps by steps, and texts of one family are one group.

    Near-duplicates are by `near_templates` or, of long texts, by word sequences (`prose.near_duplicates`).

    The groups of one stratum and opening are dealt in turn to train, validation and test as 3 : 1 : 1, in the order of
    a hash and from a place that follows from the opening: an opening that only a few texts have falls into the same
    splits in every stratum and table, so that it tells nothing about the kind of a prompt in any of them.
    A group belongs where the foremost of its texts does, and is named by a hash of that text's template.
    """
    templates = [template(text) for text in texts]
    links = csr_array(near_templates(templates))
    for groups in (near_duplicates([normalised(text) for text in texts]), families):
        if groups is not None:
            member = csr_array((np.ones(len(texts)), (range(len(texts)), groups)))
            links = links + member @ member.T
    components = connected_components(links, directed=False)[1].tolist()
    foremost: dict[int, tuple[str, str, str]] = {}
    for component, text, words, stratum in zip(components, texts, templates, strata, strict=True):
        place = (stratum, opening(text), _hash(words))
        foremost[component] = min(place, foremost.get(component, place))
    dealt: Counter[tuple[str, str]] = Counter()
    found = {}
    for component, (stratum, first, name) in sorted(foremost.items(), key=lambda item: item[1]):
        turn = int(_hash(first), 16) + dealt[stratum, first]
        dealt[stratum, first] += 1
        found[component] = (name[:12], DEAL[turn % len(DEAL)])
    return [found[component] for component in components]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
