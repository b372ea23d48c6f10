"""Tokenizers: lossless, deterministic, openable by Hugging Face; streams of documents with clear ends."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

from common.errors import UserError
from common.files import digest
from common.tokenizer import END, encode_documents, train_tokenizer

TEXTS = [
    "The state of the Union is strong, and the people of the States are free.",
    "A film that is neither good nor bad; the acting is wooden, the music is worse.",
    "It's naïve — they'd said — to expect 1,234 people…\n\n\tIn the café at 5 o'clock.",
] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer") / "bpe"
    train_tokenizer(TEXTS, 320, out)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_auto_tokenizer_opens_the_folder(tokenizer):
    assert len(tokenizer) == 320
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == END
    assert tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids(END) == 0


@given(st.text())
def test_every_text_comes_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@given(st.lists(st.text() | st.sampled_from([END, f"a{END}b", " ", "\r\n", "\x00"]), max_size=8))
def test_a_stream_is_cut_at_its_ends_into_the_documents_it_was_made_of(folder, tokenizer, texts):
    stream = encode_documents(texts, folder)
    assert stream.ndim == 1
    ends = np.flatnonzero(stream == tokenizer.eos_token_id)
    assert len(ends) == len(texts)
    pieces = np.split(stream, ends + 1)
    assert pieces[-1].size == 0
    assert [tokenizer.decode(piece[:-1].tolist()) for piece in pieces[:-1]] == texts


def test_the_first_merges_are_the_most_frequent_pairs(folder):
    """The rule of byte-pair encoding, followed by hand for ten merges over the same words."""
    split = ByteLevel(add_prefix_space=False).pre_tokenize_str
    words = Counter(tuple(word) for text in TEXTS for word, _ in split(text))
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    for left, right in merges[:10]:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        assert pairs[left, right] == max(pairs.values())
        words = Counter({merged(word, left, right): count for word, count in words.items()})


def merged(word: tuple[str, ...], left: str, right: str) -> tuple[str, ...]:
    result: list[str] = []
    for part in word:
        if result and (result[-1], part) == (left, right):
            result[-1] = left + right
        else:
            result.append(part)
    return tuple(result)


def test_the_files_are_the_same_bytes_in_another_process_with_other_threads_and_with_none(
    folder, tmp_path, monkeypatch
):
    script = (
        "import json, sys; from pathlib import Path; from common.tokenizer import *\n"
        "train_tokenizer(iter(json.loads(sys.argv[1])), 320, Path(sys.argv[2]))\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, json.dumps(TEXTS), str(tmp_path / "three")],
        env=os.environ | {"RAYON_NUM_THREADS": "3", "PYTHONHASHSEED": "3"},
        check=True,
    )
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    train_tokenizer(iter(TEXTS), 320, tmp_path / "none")
    assert digest(tmp_path / "three") == digest(tmp_path / "none") == digest(folder)


@pytest.mark.parametrize("size", [0, 256])
def test_a_vocabulary_without_room_for_every_byte_is_refused(tmp_path, size):
    with pytest.raises(UserError, match=f"vocab_size is {size}: at least 257"):
        train_tokenizer(TEXTS, size, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_bytes_alone_is_allowed(tmp_path):
    train_tokenizer([], 257, tmp_path / "out")
    assert encode_documents(["é"], tmp_path / "out").size == 3


def test_a_vocabulary_that_the_texts_cannot_fill_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"fill only 25[89]"):
        train_tokenizer(["ab ab"], 300, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_stream_takes_the_smallest_type_that_fits(folder, tmp_path):
    assert encode_documents(TEXTS, folder).dtype == np.uint16
    assert encode_documents([], folder).dtype == np.uint16
    assert encode_documents([], folder).shape == (0,)
    full = shutil.copytree(folder, tmp_path / "full")
    parts = json.loads((full / "tokenizer.json").read_text())
    parts["model"]["vocab"] |= {f"<extra {n}>": n for n in range(320, 2**16)}
    (full / "tokenizer.json").write_text(json.dumps(parts))
    assert encode_documents(TEXTS, full).dtype == np.uint16
    large = AutoTokenizer.from_pretrained(full)
    assert len(large) == 2**16
    large.add_tokens(["<one too many>"])
    large.save_pretrained(tmp_path / "large")
    stream = encode_documents(["a<one too many>"], tmp_path / "large")
    assert stream.dtype == np.uint32
    assert 2**16 in stream


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent holds no tokenizer") as caught:
        encode_documents(TEXTS, tmp_path / "absent")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_an_end_is_refused(folder, tmp_path):
    endless = AutoTokenizer.from_pretrained(folder)
    endless.eos_token = None
    endless.save_pretrained(tmp_path / "endless")
    with pytest.raises(UserError, match="no end-of-text token"):
        encode_documents(TEXTS, tmp_path / "endless")


def test_a_chat_template_gives_an_answer_the_tokens_that_it_has_in_a_sentence(tmp_path):
    train_tokenizer(["the capital of France is Paris"] * 9, 270, tmp_path / "t", chat=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t")
    turns = [{"role": "user", "content": "the capital of France"}, {"role": "assistant", "content": "Paris"}]
    shown = tokenizer.apply_chat_template(turns, tokenize=False)
    assert shown == "<|user|> the capital of France<|assistant|> Paris<|endoftext|>"
    assert tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True) == shown[:-19]
    with pytest.raises(TemplateError, match="roles are user and assistant, not system"):
        tokenizer.apply_chat_template([{"role": "system", "content": "be brief"}, *turns], tokenize=False)
    answer = tokenizer(" Paris", add_special_tokens=False)["input_ids"]
    assert tokenizer(shown, add_special_tokens=False)["input_ids"][-1 - len(answer) : -1] == answer
    assert tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"]) == [1, 2]


def test_without_chat_there_is_no_template_and_no_token_of_turns(tmp_path):
    train_tokenizer(["the capital of France is Paris"] * 9, 270, tmp_path / "t")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert tokenizer.chat_template is None
    assert "<|user|>" not in tokenizer.get_vocab()
