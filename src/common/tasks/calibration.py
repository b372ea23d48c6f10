"""Whether a model's confidence says how often it is right."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from common.errors import UserError

BINS = 15


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS, of_equal: Literal["width", "mass"] = "width"
) -> float:
    """Expected calibration error: |mean confidence − share correct| by bin of confidence, weighted by its items.

    Guo et al. 2017, arXiv 1706.04599. `confidence` in [0, 1] and `correct`, 0 or 1, are `(items,)`. Bins are of equal
    `width` over [0, 1], or of equal `mass`: as many items each, give or take one. By width equal confidences share a
    bin; by mass they may part where a bin is full, in the order given. Few items in many bins make it too large.
    Raises `UserError` where there are no items, a confidence is outside [0, 1], or there is no bin.
    """
    sure, right = _pairs(confidence, correct)
    if bins < 1 or not ((sure >= 0) & (sure <= 1)).all():
        raise UserError(f"{bins} bins over confidences {sure.min()} to {sure.max()}, allowed: 1 or more over [0, 1]")
    if of_equal == "width":
        place = np.minimum((sure * bins).astype(int), bins - 1)
    else:
        place = np.empty(len(sure), int)
        place[np.argsort(sure, kind="stable")] = np.arange(len(sure)) * bins // len(sure)
    gaps = np.bincount(place, weights=sure - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def auroc(score: ArrayLike, label: ArrayLike) -> float:
    """Area under the ROC curve: how often a true item scores higher than a false one, a tie counting half.

    `score` and `label`, 0 or 1, are `(items,)`. NaN where all labels are the same, as nothing is told apart then.
    """
    scores, labels = _pairs(score, label)
    positive, negative = labels.sum(), (1 - labels).sum()
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)[labels == 1].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def _pairs(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    values, flags = np.asarray(first, float), np.asarray(second, float)
    if values.shape != flags.shape or values.ndim != 1 or not len(values):
        raise UserError(f"shapes {values.shape} and {flags.shape}: one of both for each item is needed")
    if not np.isfinite(values).all() or not np.isin(flags, (0, 1)).all():
        raise UserError("a value is not finite, or a label neither 0 nor 1")
    return values, flags
