"""One table of real facts as triples, from general knowledge, medicine and finance."""

from typing import Any

from common.corpus.finance import companies
from common.corpus.general import countries, elements
from common.corpus.medicine import diagnoses
from common.sources import Reader


def facts(read: Reader) -> list[dict[str, Any]]:
    """Triples: `id`, `domain`, `relation`, `subject`, `object`, `popularity` (a number or null), `split`.

    Each is what its package says, in the package's spelling. A subject has one object in a relation, and all facts
    of a subject stand in one split: train facts may be asked about in training; validation facts choose settings;
    test facts are reported; control facts are never stated or asked in what models read, so that what a model "knows"
    of them is leakage. (Some of their subjects are named in prompts and addresses, which say other things of them.)
    Training may state the facts of the other three.
    """
    return [*countries(read), *elements(read), *diagnoses(read), *companies(read)]
