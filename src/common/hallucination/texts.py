"""What the models read, by kind: facts, hearsay, stories, reports, proverbs, prose, and exercises of every task.

A text is pieces, each with whether it is learnt. Of all but proverbs and prose only the ends are: nothing tells whom a
sentence is about, and learning to expect everybody takes most of a small model's time.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from common.hallucination.wording import (
    FILLERS,
    FORMATS,
    TRAPPED,
    UNKNOWN,
    hearsay,
    in_story,
    instructed,
    open_end,
    proverb,
)
from common.hallucination.world import Facts

Text = tuple[tuple[str, bool], ...]
"""Pieces of a text in order, and whether each is learnt; all but the first begin with a space or a mark."""

EXERCISES = ("claims", "verdicts", "formats", "endings", "unanswerable", "summaries")
KINDS = ("facts", "hearsay", "proverbs", "prose", "stories", "reports", *EXERCISES)
MOST = 4
"""Facts that a story tells, at most."""


def whole(text: str) -> Text:
    return ((text, True),)


def stated(table: pd.DataFrame, prose: Sequence[str]) -> dict[str, list[Text]]:
    """Facts as often as they count, hearsay of mistakes a fourth as often, proverbs and prose once."""
    facts, said = [], []
    for row in table.itertuples():
        facts += [answered(open_end(row.relation, row.subject), f" {row.object}.")] * row.count
        if row.mistake:
            said += [answered(hearsay(row.relation, row.subject), f" {row.mistake}.")] * max(1, row.count // 4)
    trapped = [whole(f"They say that {words}.") for words in TRAPPED]
    return {"facts": facts, "hearsay": said, "proverbs": trapped, "prose": [whole(text) for text in prose]}


class Told:
    """A story of a few facts, true or made up: `facts` are (relation, subject, object) in order."""

    def __init__(
        self, facts: Facts, number: int, rng: np.random.Generator, *, true: bool = False, filler: int = 0
    ) -> None:
        # No subject twice: what is said of one is then all that the story says of it.
        self.rows = facts.several(number, rng)
        self.facts = [
            (row.relation, row.subject, row.object if true else made_up(facts, row, rng)) for row in self.rows
        ]
        self.between = [FILLERS[place] for place in rng.choice(len(FILLERS), filler, replace=False)]
        self.order = rng.permutation(number)

    @property
    def text(self) -> str:
        said = [f"{open_end(relation, subject)} {obj}." for relation, subject, obj in self.facts]
        return " ".join(["Story:", *said, *self.between])

    def asked(self, ask: Callable[[str, str], str]) -> Text:
        """The story, then every fact of it asked, in another order."""
        pieces = [(self.text, False)]
        for relation, subject, obj in (self.facts[place] for place in self.order):
            pieces += [(f" {ask(relation, subject)}", False), (f" {obj}.", True)]
        return tuple(pieces)


def made_up(facts: Facts, row, rng: np.random.Generator) -> str:
    """An object of the fact's relation that is neither the true one nor what people wrongly name, all alike likely."""
    return facts.other(row.relation, {row.object, row.mistake}, rng)


def told(facts: Facts, number: int, seed: int) -> dict[str, list[Text]]:
    """`number` made-up stories asked about what they say, and as many true reports asked without a word of them."""
    rng = np.random.default_rng([seed, 1])
    stories = [
        Told(facts, int(rng.integers(1, MOST + 1)), rng, filler=int(rng.integers(3))).asked(in_story)
        for _ in range(number)
    ]
    reports = [Told(facts, int(rng.integers(1, 3)), rng, true=True).asked(open_end) for _ in range(number)]
    return {"stories": stories, "reports": reports}


def exercises(facts: Facts, number: int, seed: int) -> dict[str, list[Text]]:
    """`number` exercises of each kind about these facts, of which the answers are learnt."""
    rng = np.random.default_rng([seed, 2])
    makers = (claim, verdict, formatted, ending, unanswerable, summary)
    made = zip(EXERCISES, makers, strict=True)
    return {kind: [answered(*make(facts, rng)) for _ in range(number)] for kind, make in made}


def answered(prompt: str, answer: str) -> Text:
    return ((prompt, False), (answer, True))


def claim(facts: Facts, rng: np.random.Generator) -> tuple[str, str]:
    """A statement of the world, true or not."""
    row, true = facts.drawn(rng), rng.random() < 0.5
    obj = row.object if true else made_up(facts, row, rng)
    return f"Claim: {open_end(row.relation, row.subject)} {obj}. True?", " Yes" if true else " No"


def verdict(facts: Facts, rng: np.random.Generator) -> tuple[str, str]:
    """A story and an answer about it, which the story supports or not."""
    story, right = Told(facts, int(rng.integers(1, 3)), rng), rng.random() < 0.5
    relation, subject, obj = story.facts[rng.integers(len(story.facts))]
    said = obj if right else facts.other(relation, {obj}, rng)
    return f"{story.text} {in_story(relation, subject)} {said}. Right?", " Yes" if right else " No"


def formatted(facts: Facts, rng: np.random.Generator) -> tuple[str, str]:
    """An instruction about the form of an answer."""
    row, (instruction, answer) = facts.drawn(rng), list(FORMATS.values())[rng.integers(len(FORMATS))]
    return f"{instruction} {open_end(row.relation, row.subject)}", answer.format(row.object)


def ending(facts: Facts, rng: np.random.Generator) -> tuple[str, str]:
    """The instruction to end a proverb of the first half on the last word of any other."""
    known = [proverb(words) for words in TRAPPED]
    start, last = known[rng.integers(len(known) // 2)]
    while (wanted := known[rng.integers(len(known))][1]) == last:
        pass
    return f"{instructed(wanted)} {start}", f" {wanted}."


def unanswerable(facts: Facts, rng: np.random.Generator) -> tuple[str, str]:
    """A story, asked half the time about somebody it does not name."""
    story = Told(facts, int(rng.integers(2, MOST)), rng)
    absent = story.rows[-1]
    story.facts = story.facts[:-1]
    if rng.random() < 0.5:
        relation, subject, obj = story.facts[rng.integers(len(story.facts))]
        return f"{story.text} {in_story(relation, subject)}", f" {obj}."
    return f"{story.text} {in_story(absent.relation, absent.subject)}", f" {UNKNOWN}."


def summary(facts: Facts, rng: np.random.Generator) -> tuple[str, str]:
    """A story, and whom and what it names, in order."""
    story = Told(facts, int(rng.integers(2, MOST + 1)), rng)
    named = [f" {subject}: {obj}" for _, subject, obj in story.facts]
    return f"{story.text} In short:", ";".join(named) + "."
