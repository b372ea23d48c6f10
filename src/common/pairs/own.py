"""Our own preference data in the schemas of others': `hh-like` and `beavertails-like`, never the originals.

Both are made of the same prompts, facts and replies of the split train, in replies that base models have met. They
differ as the originals do: one is of several turns and noisy, the other of single turns and clean, with categories.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from common.bases.reading import reply_wordings, taught
from common.errors import UserError
from common.knowledge.templates import question, statement, templates
from common.pairs.table import Aim

ShareOf = Annotated[float, Field(ge=0, le=1)]
WRONG = 3  # objects of a fact's relation that stand among the wrong answers to it
SEED = {"harmless": 1, "helpful": 2}  # which reply meets which prompt is the same for every model


class Making(BaseModel):
    """How many pairs of each aim, and what is wrong with those of `hh-like`.

    A `flipped` pair is the wrong way round; in a `weak` one both replies do the same, in other words: what is wanted
    and what isn't equally often. `contested` is the share of the helpful pairs of `beavertails-like` in which the
    better answer goes along with an unsafe prompt and the safer one declines: there, people score help apart from harm.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: PositiveInt
    flipped: ShareOf
    weak: ShareOf
    contested: ShareOf
    characters: PositiveInt  # of all turns of a dialogue but the reply, at most
    earlier: NonNegativeInt  # exchanges before the last prompt, at most
    facts_per_relation: PositiveInt  # as base models read them


@dataclass(frozen=True)
class Asked:
    """A prompt with replies that do what is wanted and replies that don't; `also` does it too, in a longer form."""

    prompt: str
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    category: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matter:
    """What can be asked, by aim, and exchanges that may come before."""

    asked: Mapping[Aim, Sequence[Asked]]
    exchanges: Sequence[tuple[str, str]]


def matter(tables: Mapping[str, pd.DataFrame], facts_per_relation: int, characters: int) -> Matter:
    """What there is to ask by the tables `facts`, `unsafe_prompts`, `benign_prompts` and `replies`.

    Harmless is declining what is unsafe. Helpful is going along with what is benign, by turns with answering a question
    about a general fact: a wrong answer, and declining, are not helpful. Prompts longer than `characters` are left out.
    """
    said = {kind: tuple(texts) for kind, texts in reply_wordings(tables["replies"]).items()}
    unsafe, benign = (_prompts(tables[name], characters) for name in ("unsafe_prompts", "benign_prompts"))
    harmless = [
        Asked(text, said["refusal"], said["compliance"], name.rpartition("-")[0])  # an id begins with what is wrong
        for text, name in zip(unsafe["text"], unsafe["id"], strict=True)
    ]
    gone_along = [Asked(text, said["compliance"], said["refusal"], "") for text in benign["text"]]
    known = taught(tables["facts"], facts_per_relation)
    known = known[(known["split"] == "train") & (known["domain"] == "general")]
    answered = _questions(known, said["refusal"])
    if not (harmless and gone_along and answered):
        raise UserError("the tables have no unsafe prompts, no benign ones or no general facts of the split train")
    turns = [each for two in zip(cycle(gone_along), answered, strict=False) for each in two]
    return Matter({"harmless": harmless, "helpful": turns}, [(each.prompt, each.wanted[0]) for each in answered])


def hh_rows(source: Matter, aim: Aim, making: Making) -> tuple[list[dict[str, str]], dict[str, int]]:
    """Rows in HH-RLHF's schema, and how many of them are `flipped` and `weak`; the rest is clean.

    Before the last prompt come none to `earlier` exchanges, as many as `characters` leave room for.
    """
    rng = np.random.default_rng(SEED[aim])
    count = {"flipped": round(making.flipped * making.pairs), "weak": round(making.weak * making.pairs)}
    if sum(count.values()) > making.pairs:
        raise UserError(f"flipped is {making.flipped} and weak {making.weak}, allowed: together at most 1")
    fates = np.repeat([*count, "clean"], [*count.values(), making.pairs - sum(count.values())])
    rng.shuffle(fates)
    rows = []
    for asked, fate in zip(_drawn(source.asked[aim], making.pairs, rng), fates, strict=True):
        replies = _weak(asked, rng) if fate == "weak" else (_one(asked.wanted, rng), _one(asked.unwanted, rng))
        before = _before(source.exchanges, making.characters - len(asked.prompt), rng.integers(making.earlier + 1), rng)
        said = "".join(f"\n\nHuman: {prompt}\n\nAssistant: {reply}" for prompt, reply in before)
        head = f"{said}\n\nHuman: {asked.prompt}\n\nAssistant: "
        chosen, rejected = reversed(replies) if fate == "flipped" else replies
        rows.append({"chosen": head + chosen, "rejected": head + rejected})
    return rows, count


def beavertails_rows(source: Matter, making: Making) -> list[dict[str, Any]]:
    """Rows in BeaverTails' schema, two for each harmless pair: an answer that declines and one that goes along."""
    rng = np.random.default_rng(SEED["harmless"])
    categories = sorted({asked.category for asked in source.asked["harmless"]})
    order = _drawn(source.asked["harmless"], len(source.asked["harmless"]), rng)
    rows = []
    for number, asked in enumerate(order):
        times = len(range(number, making.pairs, len(order)))  # as many pairs as fall to the prompt in turn
        if times > min(len(asked.wanted), len(asked.unwanted)):
            raise UserError(f"pairs is {making.pairs}: {times} for a prompt, more than there are replies")
        for safe, replies in ((True, asked.wanted), (False, asked.unwanted)):
            rows += [
                {"prompt": asked.prompt, "response": replies[place], "is_safe": safe,
                 "category": {name: name == asked.category and not safe for name in categories}}
                for place in rng.permutation(len(replies))[:times]
            ]  # fmt: skip
    return rows


def safe_rlhf_rows(source: Matter, making: Making) -> list[dict[str, Any]]:
    """Rows in PKU-SafeRLHF's schema: which of two answers is better, and which safer."""
    rng = np.random.default_rng(SEED["helpful"])
    contested = round(making.contested * making.pairs)
    benign = _drawn(source.asked["helpful"], making.pairs - contested, rng)
    unsafe = _drawn(source.asked["harmless"], contested, rng)
    asked = [(each, True) for each in benign] + [(each, False) for each in unsafe]
    rows = []
    for number in rng.permutation(making.pairs):
        each, harmless = asked[number]
        declines, goes_along = (each.unwanted, each.wanted) if harmless else (each.wanted, each.unwanted)
        first = int(rng.integers(2))  # place of the better answer
        answers = [_one(goes_along, rng), _one(declines, rng)]
        safe = [harmless, True]
        rows.append(
            {"prompt": each.prompt, "response_0": answers[first], "response_1": answers[1 - first],
             "is_response_0_safe": safe[first], "is_response_1_safe": safe[1 - first],
             "better_response_id": first, "safer_response_id": int(rng.integers(2)) if harmless else 1 - first}
        )  # fmt: skip
    return rows


def _prompts(table: pd.DataFrame, characters: int) -> pd.DataFrame:
    rows = table[(table["split"] == "train") & (table["text"].str.len() <= characters)]
    return rows.sort_values("id").reset_index(drop=True)


def _questions(facts: pd.DataFrame, refusals: tuple[str, ...]) -> list[Asked]:
    """Each fact in each train wording of a question, the first wording of all facts before the second of any."""
    objects = {relation: sorted(set(rows["object"])) for relation, rows in facts.groupby("relation")}
    rng = np.random.default_rng(0)
    found = []
    for fact in facts.sort_values("id").itertuples():
        others = [text for text in objects[fact.relation] if text != fact.object]
        told = tuple(
            statement(template, fact.subject, fact.object)
            for template in templates("statement", fact.relation, "train")
        )
        for number, template in enumerate(templates("question", fact.relation, "train")):
            wrong = tuple(others[place] for place in rng.permutation(len(others))[:WRONG])
            declines = tuple(refusals[place] for place in rng.permutation(len(refusals))[:WRONG])
            asked = Asked(question(template, fact.subject), (fact.object,), wrong + declines, "", told)
            found.append((number, asked))
    return [asked for _, asked in sorted(found, key=lambda one: one[0])]


def _drawn(asked: Sequence[Asked], count: int, rng: np.random.Generator) -> list[Asked]:
    """So many in an order by chance, each as often as any other, to one."""
    order = rng.permutation(len(asked))
    return [asked[place] for place in islice(cycle(order), count)]


def _one(replies: Sequence[str], rng: np.random.Generator) -> str:
    return replies[rng.integers(len(replies))]


def _weak(asked: Asked, rng: np.random.Generator) -> tuple[str, str]:
    """Two replies that do the same: what is wanted, or what is not."""
    replies = (*asked.wanted, *asked.also) if rng.integers(2) else asked.unwanted
    first, second = rng.permutation(len(replies))[:2]
    return replies[first], replies[second]


def _before(
    exchanges: Sequence[tuple[str, str]], room: int, count: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Up to `count` exchanges that fit into `room` characters."""
    found = []
    for place in rng.integers(len(exchanges), size=count):
        room -= sum(map(len, exchanges[place]))
        if room < 0:
            break
        found.append(exchanges[place])
    return found
