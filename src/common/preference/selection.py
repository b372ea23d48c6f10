"""Which examples to train on: indices of a subset, best first, from embeddings `(examples, dimensions)` and scores."""

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.mixture import GaussianMixture

from common.errors import UserError


def text_embeddings(texts: Sequence[str], dimensions: int, seed: int) -> np.ndarray:
    """Embeddings `(texts, dimensions)` of length 1 without a model: latent semantic analysis of words and pairs."""
    weights = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
    if not 1 <= dimensions < min(weights.shape):
        raise UserError(f"dimensions is {dimensions}, allowed for these texts: 1 to {min(weights.shape) - 1}")
    return _unit(TruncatedSVD(dimensions, random_state=seed).fit_transform(weights))


def random_examples(count: int, size: int, seed: int) -> np.ndarray:
    """`size` of `count` examples, drawn without replacement."""
    _check(count, size)
    return np.random.default_rng(seed).choice(count, size, replace=False)


def dissimilar_pairs(chosen: np.ndarray, rejected: np.ndarray, size: int) -> np.ndarray:
    """REAL (arXiv 2409.17169): pairs whose two responses are least alike, by the cosine of their embeddings.

    Responses that differ little tell annotators and models little; the prompt plays no part.
    """
    _check(len(chosen), size)
    return np.argsort((_unit(chosen) * _unit(rejected)).sum(1), kind="stable")[:size]


def diverse_best(
    complexity: np.ndarray, quality: np.ndarray, embeddings: np.ndarray, size: int, threshold: float = 0.9
) -> np.ndarray:
    """Deita (arXiv 2312.15685): by falling complexity times quality, leaving out what is like something taken.

    Scores are `(examples,)`. An example is left out where its cosine to one taken before is above `threshold`.
    Raises `UserError` where fewer than `size` remain.
    """
    _check(len(embeddings), size)
    unit, taken = _unit(embeddings), []
    for number in np.argsort(-complexity * quality, kind="stable"):
        if len(taken) < size and (not taken or (unit[taken] @ unit[number]).max() <= threshold):
            taken.append(number)
    if len(taken) < size:
        raise UserError(f"{len(taken)} examples are less alike than {threshold}, needed: {size}")
    return np.array(taken)


def uncertain_by_component(embeddings: np.ndarray, size: int, components: int, seed: int) -> np.ndarray:
    """Sampling by mixture and entropy (arXiv 2411.10545, in our reading): what lies between groups, from every group.

    A Gaussian mixture finds groups; each gives as many examples as its share of all, those first whose group is least
    certain, by the entropy of the components' posterior probabilities.
    """
    _check(len(embeddings), size)
    if not 1 <= components <= len(embeddings):
        raise UserError(f"components is {components}, allowed: 1 to {len(embeddings)}")
    mixture = GaussianMixture(components, covariance_type="diag", reg_covar=1e-4, random_state=seed).fit(embeddings)
    posterior = mixture.predict_proba(embeddings)
    entropy = -(posterior * np.log(np.maximum(posterior, 1e-300))).sum(1)
    groups = posterior.argmax(1)
    order = np.argsort(-entropy, kind="stable")
    # An example's place within its group, relative to the group's size: taken in this order, shares hold at any size.
    place = np.empty(len(order))
    for group in np.unique(groups):
        members = order[groups[order] == group]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(place[order], kind="stable")][:size]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def _check(count: int, size: int) -> None:
    if not 1 <= size <= count:
        raise UserError(f"size is {size}, allowed: 1 to the {count} examples there are")
