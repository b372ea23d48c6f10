"""Generated texts, against a loop over one prompt at a time without a cache."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from common.errors import UserError
from common.scoring.generation import Decoding, generate
from tiny import CONFIGS, ids_of, planted_model, random_model, tiny_tokenizer, token_logs

PROMPTS = ("the quick brown fox", "", "a", "seven small birds sing of rain", "hills and green hills", "the sun", "in a")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def written_out(model, tokenizer, prompt, count):
    ids = ids_of(tokenizer, prompt) or [0]
    start = len(ids)
    for _ in range(count):
        token = int(token_logs(model, ids)[-1].argmax())
        if token == tokenizer.eos_token_id:
            break
        ids = [*ids, token]
    return tokenizer.decode(ids[start:])


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_texts_are_those_of_one_prompt_at_a_time_in_any_batch(tokenizer, name):
    model = random_model(name)
    expected = [written_out(model, tokenizer, prompt, 6) for prompt in PROMPTS]
    for batch_size in (1, 3, 8):
        assert generate(model, tokenizer, PROMPTS, Decoding(max_new_tokens=6), batch_size) == expected
    assert len(set(expected)) > 3


@pytest.mark.parametrize("name", ["llama", "recurrent_gemma, hybrid", "mamba2"])
def test_a_sample_depends_on_its_seed_and_place_and_not_on_the_batch(tokenizer, name):
    model = random_model(name)
    prompts = [*PROMPTS, PROMPTS[0]]
    decoding = Decoding(max_new_tokens=6, temperature=1.0, top_p=0.95, seed=1)
    first = generate(model, tokenizer, prompts, decoding, batch_size=8)
    assert generate(model, tokenizer, prompts, decoding, batch_size=2) == first
    assert generate(model, tokenizer, prompts[:3], decoding, batch_size=1) == first[:3]
    assert first[0] != first[-1]  # one prompt twice gives two samples
    other = Decoding(max_new_tokens=6, temperature=1.0, top_p=0.95, seed=2)
    assert generate(model, tokenizer, prompts, other, batch_size=8) != first


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.2]),
        (0.5, 1.0, [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38]),
        (1.0, 0.7, [0.5 / 0.8, 0.3 / 0.8, 0.0]),
        (0.5, 0.6, [1.0, 0.0, 0.0]),
    ],
)
def test_samples_have_the_frequencies_of_the_models_probabilities(tokenizer, temperature, top_p, expected):
    words = ["dog", "sun", "hills"]
    tokens = [ids_of(tokenizer, f" {word}")[0] for word in words]
    model = planted_model({0: dict(zip(tokens, (0.5, 0.3, 0.2), strict=True))})
    decoding = Decoding(max_new_tokens=1, temperature=temperature, top_p=top_p)
    texts = generate(model, tokenizer, [""] * 600, decoding, batch_size=200)
    counts = np.array([texts.count(f" {word}") for word in words])
    assert counts.sum() == 600
    possible = np.array(expected) > 0
    assert counts[~possible].sum() == 0
    if possible.sum() > 1:
        assert chisquare(counts[possible], 600 * np.array(expected)[possible]).pvalue > 0.01


def test_a_text_ends_with_the_end_token(tokenizer):
    dog, sun = (ids_of(tokenizer, f" {word}")[0] for word in ("dog", "sun"))
    model = planted_model({dog: {sun: 0.9}, sun: {0: 0.9}, 0: {dog: 0.9}})
    assert generate(model, tokenizer, ["a dog", "a sun", ""], Decoding(max_new_tokens=5)) == [" sun", "", " dog sun"]
    model.generation_config.eos_token_id = [sun]
    assert generate(model, tokenizer, ["a dog", "a sun"], Decoding(max_new_tokens=5)) == ["", " dog"]
    model.generation_config.eos_token_id = [10**6, sun]  # the first is no token
    assert generate(model, tokenizer, ["a dog", "a sun"], Decoding(max_new_tokens=5)) == ["", " dog"]


def test_dropout_is_off(tokenizer):
    expected = generate(random_model("gpt2"), tokenizer, PROMPTS, Decoding(max_new_tokens=6))
    assert generate(random_model("gpt2").train(), tokenizer, PROMPTS, Decoding(max_new_tokens=6)) == expected


def test_settings_that_a_model_brings_along_do_nothing_and_stay(tokenizer):
    model = random_model("gpt2")
    expected = generate(model, tokenizer, PROMPTS, Decoding(max_new_tokens=6))
    model.generation_config.update(repetition_penalty=9.0, no_repeat_ngram_size=1, do_sample=True, max_length=3)
    assert generate(model, tokenizer, PROMPTS, Decoding(max_new_tokens=6)) == expected
    assert model.generation_config.repetition_penalty == 9.0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_stop_the_generation(tokenizer, temperature):
    model = random_model("gpt2")
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = math.nan
    with pytest.raises(RuntimeError, match="logits after 1 tokens are not finite"):
        generate(model, tokenizer, ["a"], Decoding(max_new_tokens=2, temperature=temperature))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0"),
        ({"top_p": 0.9}, "top_p is 0.9 at temperature 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_decoding_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Decoding(**{"max_new_tokens": 1, **settings})


def test_prompts_without_room_are_refused(tokenizer):
    model = random_model("gpt2")
    with pytest.raises(UserError, match=r"prompt 1: 40 \+ 9 tokens, more than the model's context 48"):
        generate(model, tokenizer, ["a", " green" * 40], Decoding(max_new_tokens=9))
    with pytest.raises(UserError, match="0 prompts"):
        generate(model, tokenizer, [], Decoding(max_new_tokens=9))
