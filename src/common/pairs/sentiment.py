"""The reward of film reviews: a classifier of their sentiment, fitted on labelled ones and kept without a pickle."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from common.errors import UserError

RARE = 5  # reviews with a word, below which it counts for nothing
PASSAGE = 26  # words: about as long as what models write
INVERSE_PENALTY = 4.0  # of the weights' square
WORDS, WEIGHTS = "words.json", "sentiment.safetensors"


@dataclass(frozen=True)
class Sentiment:
    """TF-IDF of words, weighed by a logistic regression."""

    features: TfidfVectorizer
    weights: np.ndarray  # (words,)
    intercept: float

    def log_odds(self, texts: Sequence[str]) -> np.ndarray:
        """Log-odds in nats that each text is a good review rather than a bad one; `(texts,)`."""
        return self.features.transform(texts) @ self.weights + self.intercept

    def rewards(self, texts: Sequence[str], wanted: str) -> np.ndarray:
        """Log-odds in nats that each text has the sentiment that is wanted, `good` or `bad`; `(texts,)`."""
        if wanted not in ("good", "bad"):
            raise UserError(f"the sentiment wanted is {wanted!r}, allowed: good, bad")
        return self.log_odds(texts) * (1 if wanted == "good" else -1)


def fit_sentiment(*, movie_reviews: Path, keep: Path) -> dict[str, float]:
    """Fit the classifier on whole reviews of the split train, and on as many short passages of them, and keep it.

    Metrics: its accuracy on reviews of the splits validation and test, and on passages of the latter, as long as what
    models write; how many words it knows and reviews it was fitted on.
    """
    table = pd.read_json(movie_reviews, lines=True, dtype=False)
    by_split = dict(iter(table.groupby("split")))
    if absent := {"train", "validation", "test"} - by_split.keys():
        raise UserError(f"{movie_reviews.name} has no reviews of the split {', '.join(sorted(absent))}")
    train = by_split["train"]
    # A passage says less than a review: fitted on both, log-odds mean the same for either.
    texts = [*train["text"], *map(_passage, train["text"])]
    features = _features(None)
    matrix = features.fit_transform(texts)
    fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(matrix, np.tile(train["label"], 2))
    vocabulary = features.get_feature_names_out().tolist()
    (keep / WORDS).write_text(json.dumps(vocabulary), encoding="utf-8", newline="\n")
    numbers = {"idf": features.idf_, "weights": fitted.coef_[0], "intercept": fitted.intercept_}
    save_file({name: np.asarray(value, np.float64) for name, value in numbers.items()}, keep / WEIGHTS)
    kept = load_sentiment(keep)
    test = by_split["test"]
    return {
        "validation_accuracy": _accuracy(kept, by_split["validation"]["text"], by_split["validation"]["label"]),
        "test_accuracy": _accuracy(kept, test["text"], test["label"]),
        "passage_accuracy": _accuracy(kept, test["text"].map(_passage), test["label"]),
        "words": len(vocabulary),
        "fitted_reviews": len(train),
    }


def load_sentiment(folder: Path) -> Sentiment:
    """What `fit_sentiment` kept; `UserError` where there is none."""
    if absent := [name for name in (WORDS, WEIGHTS) if not (folder / name).is_file()]:
        raise UserError(f"{folder} holds no {absent[0]}")
    numbers = load_file(folder / WEIGHTS)
    features = _features(json.loads((folder / WORDS).read_text(encoding="utf-8")))
    features.idf_ = numbers["idf"]
    return Sentiment(features, numbers["weights"], float(numbers["intercept"][0]))


def _features(vocabulary: list[str] | None) -> TfidfVectorizer:
    rare = {} if vocabulary else {"min_df": RARE}
    return TfidfVectorizer(vocabulary=vocabulary, sublinear_tf=True, **rare)


def _passage(text: str) -> str:
    """A passage from the middle of a review."""
    words = text.split()
    start = max(0, (len(words) - PASSAGE) // 2)
    return " ".join(words[start : start + PASSAGE])


def _accuracy(sentiment: Sentiment, texts: Sequence[str], labels: Sequence[int]) -> float:
    return float(((sentiment.log_odds(texts) > 0) == np.asarray(labels)).mean())
