"""What there is to read in a world, from the tables, and the tokenizer that all its models share."""

from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, PositiveInt

from common.errors import UserError
from common.hallucination.names import fit_names
from common.hallucination.texts import Text, exercises, stated, told
from common.hallucination.wording import phrases
from common.hallucination.world import RELATIONS, Facts, Population, facts_of

SHORTEST, LONGEST = 6, 20  # words of a piece of prose
REPEATED = 40  # how often the tokenizer meets the study's own wording, so that each of its words becomes one token


class World(BaseModel):
    """What there is to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    population: Population
    told: PositiveInt  # stories, and as many reports
    exercises: PositiveInt  # of each kind
    prose: PositiveInt  # pieces
    vocab_size: PositiveInt  # of words and their parts; names come on top


def texts_of(knobs: World, seed: int, facts: Path, sotu: Path) -> tuple[pd.DataFrame, dict[str, list[Text]]]:
    """The facts of a seed's world, and all that is written there by kind: see `facts_of` and `texts`."""
    table = facts_of(pd.read_json(facts, lines=True, dtype=False), knobs.population, seed)
    written = stated(table, prose(sotu, knobs.prose))
    train = Facts(table[table["asked"] == "train"])
    return table, written | told(Facts(table), knobs.told, seed) | exercises(train, knobs.exercises, seed)


def prose(sotu: Path, number: int) -> list[str]:
    """The first `number` sentences of six to twenty words of the addresses to train on. Raises `UserError` if fewer."""
    table = pd.read_json(sotu, lines=True, dtype=False)
    found: list[str] = []
    for text in table.loc[table["split"] == "train", "text"]:
        found += [" ".join(words) for line in text.split(". ") if SHORTEST <= len(words := line.split()) <= LONGEST]
        if len(found) >= number:
            return found[:number]
    raise UserError(f"the addresses have {len(found)} sentences of {SHORTEST} to {LONGEST} words, wanted: {number}")


def fit_tokenizer(knobs: dict, *, keep: Path, facts: Path, sotu: Path) -> dict:
    """The tokenizer of all models of a world, whatever its seed: words by their parts, every name a token."""
    parts, table = World.model_validate(knobs), pd.read_json(facts, lines=True, dtype=False)
    table = table[table["relation"].isin(RELATIONS)]
    names = sorted({*table["subject"], *table["object"]})
    fit_names([*prose(sotu, parts.prose), *phrases(RELATIONS) * REPEATED], names, parts.vocab_size, keep)
    return {"names": len(names)}
