"""The default judge: words and characters of prompt and response, weighed by a calibrated logistic regression."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_union

from common.errors import UserError
from common.judges.judge import same_number

FOLDS = 5

INVERSE_PENALTY = 10.0
"""Of the weights' square. Validation objectives tell 1, 3, 10 and 30 apart by no more than chance."""


@dataclass(frozen=True)
class TextJudge:
    """A judge that was fitted on labelled texts (`fit_text_judge`); see `common.judges.judge.Judge`."""

    features: ColumnTransformer
    classifier: CalibratedClassifierCV

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        same_number(prompts, responses)
        if not len(prompts):
            return np.empty(0)
        texts = pandas.DataFrame({"prompt": list(prompts), "response": list(responses)})
        return self.classifier.predict_proba(self.features.transform(texts))[:, 1]


def fit_text_judge(rows: pandas.DataFrame, seed: int, reads: Sequence[str] = ("prompt", "response")) -> TextJudge:
    """Fit a judge on `rows` with columns `prompt`, `response`, `label` (true is what it gives the probability of) and
    `group`.

    Features are TF-IDF of one and two words and of two to five characters within words, of each text that it `reads`:
    a judge of refusals must not read the prompt, or it learns which prompts are refused.
    Probabilities are calibrated by a sigmoid (Platt 1999) on five folds that keep groups together; `seed` deals the
    folds. Refit it instead of storing it: that takes seconds.

    Raises `UserError` when a label has fewer than five groups.
    """
    groups = {label: rows.group[rows.label == label].nunique() for label in (True, False)}
    if min(groups.values()) < FOLDS:
        found = f"{groups[True]} of true and {groups[False]} of false label"
        raise UserError(f"a judge needs rows of {FOLDS} groups of each label, got {found}")
    features = ColumnTransformer([(name, _ngrams(), name) for name in reads])
    matrix = features.fit_transform(rows[["prompt", "response"]])
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(matrix, rows.label, rows.group)
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)
    classifier = CalibratedClassifierCV(regression, method="sigmoid", cv=list(folds), ensemble=False)
    return TextJudge(features, classifier.fit(matrix, rows.label.astype(bool)))


def _ngrams():
    shared = {"sublinear_tf": True, "min_df": 2}
    words = TfidfVectorizer(ngram_range=(1, 2), **shared)
    return make_union(words, TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **shared))
