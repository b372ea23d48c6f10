"""Selections of training examples pick what their papers pick."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.preference.selection import (
    dissimilar_pairs,
    diverse_best,
    random_examples,
    text_embeddings,
    uncertain_by_component,
)


def drawn(count=40, dimensions=5, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dimensions))


@given(count=st.integers(2, 60), seed=st.integers(0, 99), data=st.data())
def test_every_selection_has_the_size_asked_for_and_nothing_twice(count, seed, data):
    size = data.draw(st.integers(1, count))
    vectors = drawn(count, seed=seed)
    found = [
        random_examples(count, size, seed),
        dissimilar_pairs(vectors, vectors[::-1], size),
        diverse_best(vectors[:, 0] ** 2, vectors[:, 1] ** 2, vectors, size, threshold=1.1),
        uncertain_by_component(vectors, size, min(3, count), seed),
    ]
    for each in found:
        assert len(set(each.tolist())) == size
        assert set(each.tolist()) <= set(range(count))


def test_a_seed_fixes_a_random_selection():
    assert random_examples(50, 20, 1).tolist() == random_examples(50, 20, 1).tolist()
    assert random_examples(50, 20, 1).tolist() != random_examples(50, 20, 2).tolist()


def test_pairs_whose_responses_differ_most_come_first():
    angles = np.array([0.1, 2.0, 3.0, 0.5])
    chosen = np.array([[2.0, 0.0]] * 4)
    rejected = 5 * np.stack([np.cos(angles), np.sin(angles)], 1)
    assert dissimilar_pairs(chosen, rejected, 3).tolist() == [2, 1, 3]


def test_the_best_are_taken_unless_they_are_like_one_taken():
    embeddings = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    complexity, quality = np.array([3.0, 5.0, 2.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.5])
    assert diverse_best(complexity, quality, embeddings, 3).tolist() == [1, 2, 3]  # 0 is like 1
    assert diverse_best(complexity, quality, embeddings, 2, threshold=1.0).tolist() == [1, 0]
    with pytest.raises(UserError, match=r"3 examples are less alike than 0\.9, needed: 4"):
        diverse_best(complexity, quality, embeddings, 4)


def test_groups_keep_their_share_and_their_borders_come_first():
    rng = np.random.default_rng(0)
    left, right = rng.normal([-3, 0], 1, (300, 2)), rng.normal([3, 0], 1, (100, 2))
    vectors = np.concatenate([left, right])
    found = uncertain_by_component(vectors, 40, 2, seed=0)
    assert abs((found < 300).sum() - 30) <= 2
    inner = vectors[found]
    assert np.abs(inner[:, 0]).mean() < np.abs(vectors[:, 0]).mean() - 1


def test_texts_of_like_words_are_near_each_other():
    texts = ["how to bake bread", "how to bake good bread", "the war of the states", "the war between the states"]
    vectors = text_embeddings(texts, 3, seed=0)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    likeness = vectors @ vectors.T
    assert min(likeness[0, 1], likeness[2, 3]) > max(likeness[0, 2], likeness[0, 3], likeness[1, 2]) + 0.3
    with pytest.raises(UserError, match="dimensions is 9, allowed for these texts: 1 to 3"):
        text_embeddings(texts, 9, seed=0)


@pytest.mark.parametrize("size", [0, 41])
def test_more_than_there_are_or_none_is_refused(size):
    with pytest.raises(UserError, match=f"size is {size}, allowed: 1 to the 40"):
        random_examples(40, size, 0)
    with pytest.raises(UserError, match="allowed: 1 to the 40"):
        dissimilar_pairs(drawn(), drawn(), size)


def test_a_mixture_has_no_more_components_than_examples():
    with pytest.raises(UserError, match="components is 41"):
        uncertain_by_component(drawn(), 5, 41, 0)
