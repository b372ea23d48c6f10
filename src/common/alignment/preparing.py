"""Pairs of a data set as examples: those of an aim that fit into a model's context, and so many of these."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from common.pairs.table import Choice, load_pairs, of_aim
from common.preference.examples import Example, encode_examples
from common.preference.selection import (
    dissimilar_pairs,
    diverse_best,
    random_examples,
    text_embeddings,
    uncertain_by_component,
)

Selection = Literal["random", "dissimilar", "diverse", "entropy"]
DIMENSIONS, COMPONENTS = 32, 8  # of texts' embeddings, and of the mixture that finds groups of them
ALIKE = 0.98  # cosine of two pairs' texts above which the second adds nothing
NO_LIMIT = 10**9


@dataclass(frozen=True)
class Prepared:
    """Pairs that fit, with their examples; `places` are their rows in the data set's table."""

    table: pd.DataFrame
    examples: list[Example]
    places: np.ndarray
    too_long: int

    def take(self, chosen: np.ndarray) -> "Prepared":
        """These of the pairs, in the order given."""
        return replace(
            self,
            table=self.table.iloc[chosen].reset_index(drop=True),
            examples=[self.examples[place] for place in chosen],
            places=self.places[chosen],
        )


def prepared(folder: Path, aim: Choice | None, tokenizer: PreTrainedTokenizerBase, context: int) -> Prepared:
    """The pairs of an aim, or all, of a kept data set; those of more than `context` tokens are left out and counted.

    Raises `UserError` where none fits, and what `encode_examples` raises.
    """
    table = load_pairs(folder)
    table = table.reset_index() if aim is None else of_aim(table, aim)
    completions = list(zip(table["chosen"], table["rejected"], strict=True))
    examples = encode_examples(tokenizer, table["prompt"].tolist(), completions, NO_LIMIT)
    fits = np.array([len(each.prompt) + max(map(len, each.completions)) <= context for each in examples])
    if not fits.any():
        raise UserError(f"each of the {len(fits)} pairs is longer than the context of {context} tokens")
    whole = Prepared(table, examples, table["index"].to_numpy(), int((~fits).sum()))
    return whole.take(np.flatnonzero(fits))


def selected(pairs: Prepared, size: int | None, selection: Selection, seed: int) -> Prepared:
    """`size` of the pairs by a rule (see `common.preference.selection`), or all of them where it is None.

    - `random`: drawn by `seed`;
    - `dissimilar`: REAL, by embeddings of the two responses;
    - `diverse`: as Deita takes them, whose two scores stand-ins replace: complexity is the number of different words
      in the prompt, quality how unlike the two responses are;
    - `entropy`: pairs that lie between groups of pairs; `seed` is that of the mixture.

    Raises `UserError` where a rule is named and nothing is to be selected, and where there are too few pairs.
    """
    if size is None:
        if selection != "random":
            raise UserError(f"selection is {selection} of all pairs, which selects nothing: give a size")
        return pairs
    if selection == "random":
        return pairs.take(random_examples(len(pairs.examples), size, seed))
    return pairs.take(_by_texts(pairs.table, size, selection, seed))


def _by_texts(table: pd.DataFrame, size: int, selection: Selection, seed: int) -> np.ndarray:
    asked = [" ".join(turn["content"] for turn in turns) for turns in table["prompt"]]
    replies = text_embeddings([*table["chosen"], *table["rejected"]], DIMENSIONS, seed=0)
    chosen, rejected = np.split(replies, 2)
    if selection == "dissimilar":
        return dissimilar_pairs(chosen, rejected, size)
    whole = [" ".join(texts) for texts in zip(asked, table["chosen"], table["rejected"], strict=True)]
    about = text_embeddings(whole, DIMENSIONS, seed=0)
    if selection == "diverse":
        words = np.array([len(set(text.split())) for text in asked], float)
        return diverse_best(words, 1 - (chosen * rejected).sum(1), about, size, ALIKE)
    return uncertain_by_component(about, size, COMPONENTS, seed)
