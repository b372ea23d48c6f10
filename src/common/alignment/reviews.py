"""Evaluate models tuned on film reviews: the function that a sweep calls."""

from pathlib import Path

import pandas as pd

from common import zoo
from common.alignment.evaluation import evaluate_continuations
from common.pairs.reviews import openings
from common.pairs.sentiment import load_sentiment
from common.preference.adapters import load_adapter, merge


def evaluate_reviews(
    start: str, adapter: str | None, split: str, wanted: str, prompts: int, max_new_tokens: int, seed: int, *,
    movie_reviews: Path, sentiment: Path, **models: Path,
) -> dict[str, float]:  # fmt: skip
    """Reward and KL of `start` with an adapter on it, or of `start` alone: see `evaluate_continuations`.

    The reward is the log-odds, by the classifier in `sentiment`, that a reply has the sentiment `wanted`; `prompts` are
    that many openings of reviews of the split, none of which a model read.
    """
    asked = openings(pd.read_json(movie_reviews, lines=True, dtype=False), split, wanted, prompts)
    classifier = load_sentiment(sentiment)
    own, tokenizer = zoo.load(str(models[start]))
    tuned = own if adapter is None else merge(load_adapter(zoo.load(str(models[start]))[0], models[adapter]))
    return evaluate_continuations(
        tuned, tokenizer, asked, lambda texts: classifier.rewards(texts, wanted), start=own,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
