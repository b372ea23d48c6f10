"""Whose replies are preferred: win rates, plain and at equal length."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from common.errors import UserError
from common.experts.evaluation import SURE
from common.judges.judge import Judge, same_number

PENALTY = 0.5  # of the squared weight of length: a Gaussian prior of standard deviation 1
STEEPEST = 20.0  # log-odds beyond which all preferences are one way


def quality(replies: Sequence[str], objects: Sequence[str | None], refuses: Judge) -> np.ndarray:
    """Whether each reply is a good one, 0 or 1, `(replies,)`: the judge of our win rates.

    To a question about a fact, of which `objects` has the answer, a reply is good that has it, word for word. To an
    instruction, whose object is None, one that surely goes along: in this world replies to instructions have no
    content. A reply without a word is no good.
    """
    same_number(objects, replies)
    words = [_words(reply) for reply in replies]
    along = refuses.judge([""] * len(replies), list(replies)) <= 1 - SURE
    pairs = zip(words, objects, along, strict=True)
    return np.array(
        [
            float(bool(said.strip()) and (_words(wanted) in said if wanted is not None else goes))
            for said, wanted, goes in pairs
        ]
    )


def preferences(own: ArrayLike, other: ArrayLike) -> np.ndarray:
    """Probability that each of our replies is preferred to the other's, from the `quality` of both; `(replies,)`.

    The better one is preferred, and of two as good, either by the toss of a coin: ½ (1 + own − other).
    """
    own, other = np.asarray(own, np.float64), np.asarray(other, np.float64)
    if own.shape != other.shape or not own.size:
        raise UserError(f"{own.size} and {other.size} replies are compared, allowed: as many of both, one or more")
    return (1 + own - other) / 2


def length_controlled(preferred: ArrayLike, longer: ArrayLike) -> float:
    """Win rate were all replies as long as the other's (Dubois et al. 2024, arXiv 2404.04475, in our reading).

    `preferred (replies,)`: probabilities as of `preferences`; `longer (replies,)`: our reply's length minus the
    other's. A logistic regression p = σ(θ + φ tanh(longer / sd)) by maximal likelihood, φ with a Gaussian prior of
    standard deviation 1 so that it stays finite; the win rate is σ(θ). The paper's third term, the difficulty of each
    instruction, is left out: it takes many models at once, and is the same for all of them.
    Raises `UserError` on preferences outside 0 to 1, NaN and unequal numbers.
    """
    p, difference = np.asarray(preferred, np.float64), np.asarray(longer, np.float64)
    if p.shape != difference.shape or not p.size:
        raise UserError(f"{p.size} preferences and {difference.size} differences of length: give each reply both")
    if not (np.isfinite(difference).all() and ((p >= 0) & (p <= 1)).all()):
        raise UserError("preferences must lie in 0 to 1 and differences of length be finite")
    spread = difference.std()
    if spread == 0 and not difference.any():
        return float(p.mean())
    x = np.tanh(difference / (spread or np.abs(difference).max()))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = weights[0] + weights[1] * x
        error = expit(logits) - p
        value = np.sum(np.logaddexp(0, logits) - p * logits) + PENALTY * weights[1] ** 2
        return value, np.array([error.sum(), (error * x).sum() + 2 * PENALTY * weights[1]])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-STEEPEST, STEEPEST), (None, None)])
    return float(expit(found.x[0]))


def _words(text: str) -> str:
    """The text's words in lower case, each between spaces."""
    return f" {' '.join(''.join(c if c.isalnum() else ' ' for c in text.lower()).split())} "
