"""What is asked of a model about its seed's world: each task stands in for a benchmark, named with it.

Whoever is asked about in tasks that exercises are like is of the split test: no exercise named them. Facts are asked
in words in which they were read; that is what a model is trained on here.
"""

import math

import numpy as np
import pandas as pd

from common.errors import UserError
from common.hallucination.texts import MOST, Told, claim, verdict
from common.hallucination.wording import FORMATS, TRAPPED, UNKNOWN, in_story, instructed, open_end, proverb
from common.hallucination.world import Facts
from common.tasks.items import NO, YES, Aspect, Item, Kind, Task

DISTRACTORS = (0, 1, MOST - 1)
"""Other facts that a story tells after the one that is asked for."""

FILLED = (0, 2, 4)
"""Sentences without a fact between the one that is asked for and the question."""

CONTROL = "proverbs"
"""A task that stands in for no benchmark: who does not know a proverb is not tempted to end it as it is known."""

ANSWER = 4  # tokens of a written answer, at most: a name, a mark, the end
FORM = 3 * ANSWER
SUMMARY = 4 * MOST + 4


def questions(table: pd.DataFrame, number: int, seed: int) -> list[Task]:
    """All tasks about a world, `number` items or more in each group of one, or all there are; `table`: `facts_of`'s."""
    rng, ends = np.random.default_rng([seed, 3]), np.random.default_rng([seed, 4])
    test, every = Facts(table[table["asked"] == "test"]), Facts(table)

    def task(name: str, aspect: Aspect, kind: Kind, measures: str, items: list[Item], tokens: int = ANSWER) -> Task:
        return Task(name, aspect, kind, measures, items, tokens)

    return [
        task("recall", "factuality", "exact", "PopQA, NQ-open: closed-book answers", recalled(every)),
        task("misconceptions", "factuality", "choice", "TruthfulQA: what people wrongly say", mistaken(every, rng)),
        task("claims", "factuality", "yes or no", "FEVER: claims about the world", judged(claim, test, number, rng)),
        task("conflict", "faithfulness", "exact", "NQ-Swap: a context against memory", told(test, number, rng)),
        task("endings", "faithfulness", "choice", "MemoTrap: an instruction against a proverb", trapped(number, ends)),
        task(CONTROL, "factuality", "choice", "nothing: are those proverbs known?", proverbs(ends)),
        task("formats", "faithfulness", "exact", "IFEval: an answer's form", formed(test, every, number, rng), FORM),
        task("unanswerable", "faithfulness", "exact", "SQuAD v2: no answer is there", missed(test, number, rng)),
        task("summaries", "faithfulness", "exact", "XSum, FaithDial: who is named", short(test, number, rng), SUMMARY),
        task("verdicts", "faithfulness", "yes or no", "HaluEval: what is made up", judged(verdict, test, number, rng)),
    ]


def recalled(facts: Facts) -> list[Item]:
    """Every fact of the world, by how frequent it is."""
    return [
        Item(
            open_end(row.relation, row.subject),
            (row.object,),
            groups={"frequency": row.quartile, "relation": row.relation},
        )
        for row in facts.rows
    ]


def mistaken(facts: Facts, rng: np.random.Generator) -> list[Item]:
    """Facts about which there is a misconception: the true object, the mistaken one, and two that nobody names."""
    items = []
    for row in (row for row in facts.rows if row.mistake):
        first = facts.other(row.relation, {row.object, row.mistake}, rng)
        wrong = (first, facts.other(row.relation, {row.object, row.mistake, first}, rng))
        offered = tuple(f" {obj}" for obj in (row.mistake, *wrong))
        items.append(
            Item(
                open_end(row.relation, row.subject), (f" {row.object}",), offered, offered[:1],
                {"frequency": row.quartile},
            )
        )  # fmt: skip
    return items


def judged(make, facts: Facts, number: int, rng: np.random.Generator) -> list[Item]:
    """As many exercises that `make` gives with the answer yes as with no, `number` of each.

    Of one answer none begins with the same fact: they are to be independent evidence. Raises `UserError` where there
    are fewer facts than that.
    """
    if number > len(facts.rows):
        raise UserError(
            f"number is {number}, allowed: at most {len(facts.rows)}, as many as there are facts to ask for"
        )
    found: dict[str, dict[str, Item]] = {YES: {}, NO: {}}
    while min(map(len, found.values())) < number:
        prompt, answer = make(facts, rng)
        other, begins = NO if answer == YES else YES, prompt.partition(" is ")[0]
        if len(found[answer]) < number:
            item = Item(prompt, (answer,), (other,), groups={"answer": answer.strip()})
            found[answer].setdefault(begins, item)
    return [*found[YES].values(), *found[NO].values()]


def told(facts: Facts, number: int, rng: np.random.Generator) -> list[Item]:
    """Stories that tell a fact otherwise than it is, then other facts or fillers; memory would say what it is.

    Each number of `DISTRACTORS` without fillers, each of `FILLED` without distractors, one group of items each, of
    which those with neither count in both breakdowns.
    """
    settings = [(count, 0) for count in DISTRACTORS] + [(0, count) for count in FILLED if count]
    items = []
    for distractors, filled in settings:
        for _ in range(number):
            story = Told(facts, distractors + 1, rng, filler=filled)
            relation, subject, obj = story.facts[0]
            row = story.rows[0]
            groups = {"frequency": row.quartile, "relation": relation}
            groups |= {} if filled else {"distractors": str(distractors)}
            groups |= {} if distractors else {"distance": str(filled)}
            items.append(
                Item(f"{story.text} {in_story(relation, subject)}", (obj,), memorised=(row.object,), groups=groups)
            )
    return items


def trapped(number: int, rng: np.random.Generator) -> list[Item]:
    """Proverbs that no exercise had, with an instruction to end otherwise; that ending and the known one are offered.

    Each is asked for as often, and what is asked of one is no independent evidence: it has one `row`.
    """
    items = []
    for start, last in held_out() * math.ceil(number / len(held_out())):
        wanted, known = f" {other_end(last, rng)}", (f" {last}",)
        prompt = f"{instructed(wanted.strip())} {start}"
        items.append(Item(prompt, (wanted,), known, known, {"asked": "otherwise"}, start))
    return items


def proverbs(rng: np.random.Generator) -> list[Item]:
    """The same proverbs without an instruction: the known ending and another."""
    asked = {"asked": "nothing"}
    return [Item(start, (f" {last}",), (f" {other_end(last, rng)}",), groups=asked) for start, last in held_out()]


def held_out() -> list[tuple[str, str]]:
    """Starts and last words of the proverbs that no exercise has."""
    return [proverb(words) for words in TRAPPED[len(TRAPPED) // 2 :]]


def other_end(last: str, rng: np.random.Generator) -> str:
    """The last word of another proverb."""
    return str(rng.choice([word for _, word in map(proverb, TRAPPED) if word != last]))


def formed(facts: Facts, every: Facts, number: int, rng: np.random.Generator) -> list[Item]:
    """Instructions about the form of an answer; right is any of `every` object of the relation in that form."""
    items = []
    for name, (instruction, form) in FORMATS.items():
        for row in (facts.rows[place] for place in rng.integers(len(facts.rows), size=number)):
            right = tuple(form.format(obj) for obj in every.objects[row.relation])
            prompt = f"{instruction} {open_end(row.relation, row.subject)}"
            items.append(Item(prompt, right, groups={"form": name}))
    return items


def missed(facts: Facts, number: int, rng: np.random.Generator) -> list[Item]:
    """Stories asked about somebody they name, or do not, both in one `row`; memory knows of both."""
    items = []
    for pair in range(number):
        story = Told(facts, 3, rng)
        there, absent = story.rows[0], story.rows[-1]
        story.facts = story.facts[:-1]
        for row, right, answerable in ((there, story.facts[0][2], "yes"), (absent, UNKNOWN, "no")):
            prompt = f"{story.text} {in_story(row.relation, row.subject)}"
            groups = {"answerable": answerable, "relation": row.relation}
            items.append(Item(prompt, (right,), memorised=(row.object,), groups=groups, row=str(pair)))
    return items


def short(facts: Facts, number: int, rng: np.random.Generator) -> list[Item]:
    """Stories to be told in short; right is every name in order. For how much of a summary is true to its story see
    `common.hallucination.evaluation.entity_f1`."""
    items = []
    for count in range(2, MOST + 1):
        for _ in range(number):
            story = Told(facts, count, rng)
            right = ";".join(f" {subject}: {obj}" for _, subject, obj in story.facts)
            items.append(Item(f"{story.text} In short:", (right,), groups={"facts": str(count)}))
    return items
