"""Multiple choice about facts: which of some objects of a relation belongs to a subject."""

import hashlib
import math
from collections import Counter, defaultdict
from operator import ne
from typing import Any

import pandas

from common.errors import UserError
from common.knowledge.templates import question, templates


def choices(facts: pandas.DataFrame, split: str, candidates: int = 4, seed: int = 0) -> pandas.DataFrame:
    """One item for every fact and every question template of `split`.

    `facts` has the columns of the table `facts`. Items have `fact` (its id), `relation`, `template` (its id),
    `question`, `candidates` (a list of as many objects) and `answer` (the place of the right one, uniform).

    The others are objects of the same relation that no fact gives for the same subject, drawn without replacement in
    proportion to how often they are answers, so that a frequent object is as likely beside the answer as in its
    place. Where there are enough, they are like the answer: objects that a model has been taught beside one that it
    has, and never taught ones (all their facts are of the split control) beside one that never was, or the odd one
    out would give itself away; then capitals of the same continent, and symbols with the same first letter.

    Draws follow from the SHA-256 of seed, fact and object, so they depend neither on the order of the facts nor on
    the template: all questions about a fact have the same candidates at the same places. Other facts matter as a
    pool: give the whole table, and take of the items those that are wanted.

    Raises `UserError` for fewer than two candidates, no facts, a relation with too few objects or an unknown split.
    """
    if candidates < 2:
        raise UserError(f"{candidates} candidates leave no choice: at least 2 are needed")
    if facts.empty:
        raise UserError("no facts to ask about")
    rows = facts.to_dict("records")
    kinds = _kinds(rows)
    pool: defaultdict[str, Counter[str]] = defaultdict(Counter)
    right: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        pool[row["relation"]][row["object"]] += 1
        right[row["relation"], row["subject"]].add(row["object"])
    items = []
    for row in rows:
        relation, subject, name = row["relation"], row["subject"], f"{seed}\n{row['id']}"
        keys = {
            obj: (*map(ne, kinds[relation, obj], kinds[relation, row["object"]]), _race(f"{name}\n{obj}", weight), obj)
            for obj, weight in pool[relation].items()
            if obj not in right[relation, subject]
        }
        if len(keys) < candidates - 1:
            raise UserError(
                f"relation {relation!r} has {len(keys)} other objects for {subject!r}: too few for {candidates}"
            )
        shown = sorted(keys, key=keys.__getitem__)[: candidates - 1]
        place = int(_uniform(name) * candidates)
        shown.insert(place, row["object"])
        for template in templates("question", relation, split):
            item = {"fact": row["id"], "relation": relation, "template": template.id}
            items.append(item | {"question": question(template, subject), "candidates": shown, "answer": place})
    return pandas.DataFrame(items)


def prior_accuracy(items: pandas.DataFrame, facts: pandas.DataFrame) -> float:
    """Accuracy of the rule that knows no subject: it picks the candidate that is most often an answer.

    Counted are the facts that may be taught, all but those of the split control, each within its relation. Where
    several candidates are most frequent it picks one of them at random: the value is the expectation. Raises
    `UserError` where there are no items.
    """
    if items.empty:
        raise UserError("no items to score")
    taught = facts[facts.split != "control"]
    count = Counter(zip(taught.relation, taught.object, strict=True))
    total = 0.0
    for relation, shown, answer in zip(items.relation, items.candidates, items.answer, strict=True):
        frequency = [count[relation, obj] for obj in shown]
        if frequency[answer] == max(frequency):
            total += 1 / frequency.count(max(frequency))
    return total / len(items)


def _kinds(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[bool, str]]:
    """What makes two objects of a relation alike: whether one may be taught, and where it is or how it begins."""
    continent = {row["subject"]: row["object"] for row in rows if row["relation"] == "continent"}
    taught = {(row["relation"], row["object"]) for row in rows if row["split"] != "control"}
    kinds = {}
    for row in rows:
        relation, obj = row["relation"], row["object"]
        near = {"capital": continent.get(row["subject"], ""), "symbol": obj[0]}.get(relation, "")
        kinds[relation, obj] = ((relation, obj) in taught, near)
    return kinds


def _uniform(name: str) -> float:
    """A number in (0, 1) that looks random, from the SHA-256 of a name."""
    return (int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") + 0.5) / 2**48


def _race(name: str, weight: float) -> float:
    """An exponential time with rate `weight`: the first k of a race are a weighted draw without replacement.

    See Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006).
    """
    return -math.log(_uniform(name)) / weight
