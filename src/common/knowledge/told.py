"""What the words of a subject tell of its object to one who has read of other subjects."""

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

SMOOTHING = 0.01  # of counts: little, as most pieces of words stand in few subjects


def told_accuracy(items: pd.DataFrame, facts: pd.DataFrame, read: pd.DataFrame) -> float:
    """Accuracy of guessing by pieces of words: naive Bayes on runs of one to four letters, fitted to `read` facts.

    `items` are those of `common.knowledge.choices.choices` on facts of one relation that are not among `read`; a
    candidate that no read fact has is never guessed. A model that beats this knows something of the very fact: many
    diagnoses and companies can be placed by their names. Raises `ValueError` where items and `read` overlap.
    """
    return float(_right(items, facts, read).mean())


def told_elsewhere(items: pd.DataFrame, facts: pd.DataFrame, read: pd.DataFrame, folds: int = 5) -> float:
    """The same for `items` on `read` facts, each guessed from the facts of the other folds (every so many facts).

    Where few facts were never read this tells better what words are worth in a relation.
    """
    names = read.loc[read["id"].isin(items["fact"]), "id"]
    right = []
    for fold in range(min(folds, len(names))):
        held = set(names.iloc[fold::folds])
        asked = items[items["fact"].isin(held)]
        right.append(_right(asked, facts, read[~read["id"].isin(held)]))
    return float(np.concatenate(right).mean())


def _right(items: pd.DataFrame, facts: pd.DataFrame, read: pd.DataFrame) -> np.ndarray:
    if set(items["fact"]) & set(read["id"]):
        raise ValueError("some of the items are about facts that were read")
    own = read[read["relation"] == items["relation"].iloc[0]]
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    guesser = make_pipeline(pieces, MultinomialNB(alpha=SMOOTHING)).fit(own["subject"], own["object"])
    subjects = items["fact"].map(facts.set_index("id")["subject"])
    likely = pd.DataFrame(guesser.predict_log_proba(subjects), columns=guesser.classes_, index=items.index)
    chosen = [
        int(np.argmax([row.get(candidate, -np.inf) for candidate in shown]))
        for (_, row), shown in zip(likely.iterrows(), items["candidates"], strict=True)
    ]
    return np.array(chosen) == items["answer"].to_numpy()
