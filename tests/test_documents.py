"""Short documents in rows: whole, mixed by their shares, padded without an effect, in batches of like length."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from common.documents import BLOCK, IGNORED, Document, collate, document_loss, encode, mixed_batches
from common.errors import UserError
from common.tokenizer import END, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["the state of the union", "a question and an answer"] * 5, 270, folder, chat=True)
    return AutoTokenizer.from_pretrained(folder)


def numbered(count, length, first=0):
    """Documents of one length whose first id tells which they are."""
    return [Document(np.full(length, first + n)) for n in range(count)]


def rows(batch):
    return batch["input_ids"][:, 0].tolist()


def test_a_text_ends_with_the_end_of_text_and_is_cut_where_it_is_too_long(tokenizer):
    text = "the state of the union"
    (whole,) = encode(tokenizer, [text], context=64)
    assert tokenizer.decode(whole.ids) == text + END
    for context in range(2, len(whole.ids) + 1):
        parts = [part.ids.tolist() for part in encode(tokenizer, [text], context)]
        assert max(map(len, parts)) == context
        assert min(map(len, parts)) >= 2
        twice = sum(map(len, parts)) - len(whole.ids)  # tokens, at most one
        assert twice in (0, 1)
        parts[-1] = parts[-1][twice:]
        assert list(chain(*parts)) == whole.ids.tolist()


def test_of_a_pair_the_completion_alone_is_learnt(tokenizer):
    (pair,) = encode(tokenizer, [("a question", " and an answer")], context=64)
    labels = collate([pair], 0)["labels"][0]
    assert tokenizer.decode(pair.ids) == "a question and an answer" + END
    assert tokenizer.decode(labels[labels != IGNORED]) == " and an answer" + END


def test_a_pair_that_is_too_long_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"'a question' and its completion have .* tokens, allowed: 4"):
        encode(tokenizer, [("a question", " and an answer")], context=4)


@given(st.integers(0, 5), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 7))
@settings(max_examples=40)
def test_shares_hold_to_a_row_in_every_block(seed, weights, batch_size):
    kinds = {str(n): numbered(5 + n, 3, first=100 * n) for n in range(len(weights))}
    shares = {str(n): weight / 7 for n, weight in enumerate(weights)}
    batch = mixed_batches(kinds, shares, batch_size, seed, padding=0)
    seen = [row for step in range(2 * BLOCK) for row in rows(batch(step))]
    for n, weight in enumerate(weights):
        expected = weight / sum(weights) * len(seen)
        assert abs(sum(row // 100 == n for row in seen) - expected) <= 1


def test_every_document_of_a_kind_comes_once_a_pass():
    batch = mixed_batches({"a": numbered(BLOCK, 3)}, {"a": 1.0}, 2, seed=1, padding=0)
    seen = [row for step in range(BLOCK) for row in rows(batch(step))]
    assert sorted(seen) == sorted(2 * list(range(BLOCK)))
    assert seen != sorted(seen)


def test_a_batch_depends_on_seed_and_step_alone():
    kinds = {"a": numbered(50, 3), "b": numbered(9, 4, first=100)}
    shares = {"a": 0.7, "b": 0.3}
    forwards, backwards = (mixed_batches(kinds, shares, 4, seed=3, padding=0) for _ in range(2))
    steps = [0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 2]
    one = {step: rows(forwards(step)) for step in steps}
    assert {step: rows(backwards(step)) for step in reversed(steps)} == one
    other = mixed_batches(kinds, shares, 4, seed=4, padding=0)
    assert [rows(other(step)) for step in steps] != list(one.values())


def test_rows_of_a_batch_are_of_like_length():
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 60, 500)
    batch = mixed_batches({"a": [Document(np.ones(n, np.int64)) for n in lengths]}, {"a": 1.0}, 8, 0, padding=0)
    padded = [1 - batch(step)["attention_mask"].float().mean().item() for step in range(BLOCK)]
    assert np.mean(padded) < 0.05  # in random rows it is two fifths


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({"a": 1.0, "b": 1.0}, "no documents of b; there are a"),
        ({"a": 0.0}, "allowed"),
        ({"a": 1.0, "c": -1}, "allowed"),
    ],
)
def test_shares_that_make_no_sense_are_refused(shares, says):
    with pytest.raises(UserError, match=says):
        mixed_batches({"a": numbered(3, 3), "b": []}, shares, 2, 0, padding=0)


def test_the_loss_is_that_of_transformers_and_padding_changes_nothing():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    documents = [Document(np.arange(3, 12), start=4), Document(np.arange(20, 23)), Document(np.arange(30, 45))]
    batch = collate(documents, padding=0)
    expected = model(**batch).loss
    assert document_loss(model, batch).item() == pytest.approx(expected.item(), abs=1e-6)
    alone = [document_loss(model, collate([document], padding=0)).item() for document in documents]
    counts = [len(document.ids) - document.start for document in documents]
    assert expected.item() == pytest.approx(np.average(alone, weights=counts), abs=1e-6)
