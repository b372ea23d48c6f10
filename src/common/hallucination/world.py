"""Facts that are met more or less often, and what people wrongly take for them.

How often a fact is written follows Zipf's law (1935) with an exponent that is set, over an order that is drawn: a rare
fact is no other kind of fact than a frequent one. Kandpal et al. 2023 (arXiv 2211.08411) found how often to decide what
a model knows; PopQA (Mallen et al. 2023, arXiv 2212.10511) asks for it by popularity, which is not drawn.
"""

import re
from itertools import groupby
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from common.errors import UserError

RELATIONS = ("capital", "currency", "continent")
"""Every country has them; so a subject alone never tells what is asked for."""

QUARTILES = ("most frequent", "frequent", "rare", "rarest")


class Population(BaseModel):
    """How many countries there are, how unequally often their facts are written, and how many err about them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subjects: Annotated[int, Field(ge=8)]
    exponent: Annotated[float, Field(ge=0)]  # of Zipf's law; at 0 all facts are written equally often
    mistaken: Annotated[float, Field(ge=0, le=1)]  # share of facts about which there is a misconception
    repeats: PositiveInt  # of the most frequent fact, in one pass over all that is written of facts


def facts_of(facts: pd.DataFrame, population: Population, seed: int) -> pd.DataFrame:
    """One row a fact: relation, subject, object, rank, count, quartile, mistake, asked.

    `facts` has the columns of the table `facts`. `rank` from 1 is how often the fact comes compared to the others,
    drawn from `seed` within each relation in turn so that relations are equally frequent; `count = repeats /
    rank**exponent`, at least 1, how often it is written in one pass; `quartile` of the rank is one of `QUARTILES`.
    `mistake` is the object that people wrongly name, or empty: of the relation's other objects one that is drawn in
    proportion to how often it is written, since errors favour what is familiar. `asked` is train or test by subject:
    exercises are of the first, questions that tell what came of them of the second. Every fact is written all the same.

    Raises `UserError` where there are fewer such countries than `subjects`.
    """
    own = facts[facts["relation"].isin(RELATIONS)]
    complete = own.groupby("subject")["relation"].nunique()
    names = complete.index[complete == len(RELATIONS)]
    # A capital that is called as its country, or as another one, is two things with one name.
    doubled = set(own["object"]) & set(own["subject"])
    names = [name for name in names if not doubled & {name, *own.loc[own["subject"] == name, "object"]}]
    if len(names) < population.subjects:
        raise UserError(f"{len(names)} countries have all of {', '.join(RELATIONS)}, wanted: {population.subjects}")
    rng = np.random.default_rng(seed)
    chosen = [names[place] for place in rng.permutation(len(names))[: population.subjects]]
    table = own[own["subject"].isin(chosen)].drop_duplicates(["subject", "relation"])
    table = table.set_index(["subject", "relation"])["object"]
    rows = [(relation, name, table[name, relation]) for relation in RELATIONS for name in chosen]
    made = pd.DataFrame(rows, columns=["relation", "subject", "object"])
    places = [rng.permutation(len(chosen)) for _ in RELATIONS]
    made["rank"] = np.concatenate([place * len(RELATIONS) + turn + 1 for turn, place in enumerate(places)])
    made["count"] = np.maximum(1, np.round(population.repeats / made["rank"] ** population.exponent)).astype(int)
    made["quartile"] = [QUARTILES[4 * (rank - 1) // len(made)] for rank in made["rank"]]
    made["mistake"] = _mistakes(made, population.mistaken, rng)
    train = set(rng.permutation(chosen)[: len(chosen) // 2])
    made["asked"] = np.where(made["subject"].isin(train), "train", "test")
    return made


class Facts:
    """Facts of a world to draw from: a draw is made a hundred thousand times, and a table's rows are slow."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.rows = list(table.itertuples(index=False))
        self.about = {subject: list(own) for subject, own in groupby(sorted(self.rows, key=_subject), key=_subject)}
        self.subjects = list(self.about)
        self.objects = {name: sorted(set(own)) for name, own in table.groupby("relation")["object"]}
        names = sorted({*self.subjects, *table["object"]}, key=len, reverse=True)
        self.pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b")  # any name as whole words
        self._ends = np.cumsum(table["count"]) / table["count"].sum()

    def drawn(self, rng: np.random.Generator):
        """A fact, each as likely as it is frequent."""
        return self.rows[int(np.searchsorted(self._ends, rng.random(), side="right"))]

    def several(self, number: int, rng: np.random.Generator) -> list:
        """`number` facts of as many subjects, all alike likely."""
        chosen = rng.choice(len(self.subjects), number, replace=False)
        rows = [self.about[self.subjects[place]] for place in chosen]
        return [own[rng.integers(len(own))] for own in rows]

    def other(self, relation: str, but: set[str], rng: np.random.Generator) -> str:
        """An object of a relation that is none of `but`, all alike likely."""
        objects = self.objects[relation]
        while (obj := objects[rng.integers(len(objects))]) in but:
            pass
        return obj


def _subject(row) -> str:
    return row.subject


def _mistakes(table: pd.DataFrame, share: float, rng: np.random.Generator) -> list[str]:
    mistaken = np.zeros(len(table), bool)
    mistaken[rng.permutation(len(table))[: round(share * len(table))]] = True
    written = table.groupby(["relation", "object"])["count"].sum()
    found = []
    for row, errs in zip(table.itertuples(), mistaken, strict=True):
        weights = written[row.relation].drop(row.object)
        found.append(str(rng.choice(weights.index, p=weights / weights.sum())) if errs else "")
    return found
