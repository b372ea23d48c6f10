"""Likelihoods, choices and perplexities, against one sequence at a time without a cache."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tokenizers.processors import TemplateProcessing

from common.errors import UserError
from common.provenance import import_closure
from common.scoring import passes
from common.scoring.choice import RULES, accuracy, choice_scores, choose
from common.scoring.likelihood import continuation_scores
from common.scoring.perplexity import perplexity, text_log_likelihoods
from common.tokenizer import END
from tiny import CONFIGS, CONTEXT, VOCABULARY, WORDS, ids_of, naive, planted_model, random_model, tiny_tokenizer

WAYS = {"bloom": "alone", "recurrent_gemma, hybrid": "alone", "recurrent_gemma, recurrent": "alone", "mamba2": "state"}


@pytest.fixture(scope="module")
def models():
    return {name: random_model(name) for name in CONFIGS}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def questions(count):
    rng = np.random.default_rng(count)
    prompts = [" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(count)]
    choices = [[" " + " ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(4)] for _ in prompts]
    return prompts, choices


def expected_scores(model, tokenizer, prompts, choices):
    pairs = zip(prompts, choices, strict=True)
    return [
        naive(model, ids_of(tokenizer, prompt) or [0], ids_of(tokenizer, text))
        for prompt, texts in pairs
        for text in texts
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_those_of_one_sequence_at_a_time(models, tokenizer, name):
    prompts, choices = questions(6)
    prompts[0], choices[1] = "", [" a", " the quick dog", " in", " hills"]
    table = continuation_scores(models[name], tokenizer, prompts, choices, batch_size=9)
    assert passes.way_of_sharing(models[name]) == WAYS.get(name, "mask")
    expected = expected_scores(models[name], tokenizer, prompts, choices)
    np.testing.assert_allclose(table["log_likelihood"], expected, rtol=0, atol=1e-5)
    assert table["prompt"].tolist() == [number for number in range(6) for _ in range(4)]
    assert table["continuation"].tolist() == [0, 1, 2, 3] * 6
    texts = [text for several in choices for text in several]
    assert table["tokens"].tolist() == [len(ids_of(tokenizer, text)) for text in texts]
    assert table["characters"].tolist() == table["bytes"].tolist() == [len(text) for text in texts]


@pytest.mark.parametrize("name", ["llama", "gpt2", "recurrent_gemma, hybrid", "mamba2"])
def test_neither_batch_size_nor_order_moves_a_score(models, tokenizer, name):
    prompts, choices = questions(5)
    choices[2] = choices[2][:1]
    expected = expected_scores(models[name], tokenizer, prompts, choices)
    bounds = np.cumsum([0, *map(len, choices)])

    @settings(max_examples=12)
    @given(st.permutations(range(5)), st.integers(1, 20))
    def check(order, batch_size):
        shuffled = [prompts[number] for number in order], [choices[number] for number in order]
        table = continuation_scores(models[name], tokenizer, *shuffled, batch_size=batch_size)
        inorder = [score for number in order for score in expected[bounds[number] : bounds[number + 1]]]
        np.testing.assert_allclose(table["log_likelihood"], inorder, rtol=0, atol=1e-5)

    check()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_mask_keeps_continuations_of_a_prompt_apart(models, tokenizer, name, monkeypatch):
    prompts, choices = questions(6)
    right = continuation_scores(models[name], tokenizer, prompts, choices)["log_likelihood"]

    def causal(branches, model):
        return torch.ones(*branches.shape, branches.shape[1], dtype=torch.bool).tril()[:, None]

    monkeypatch.setattr(passes, "_mask", causal)
    wrong = continuation_scores(models[name], tokenizer, prompts, choices)["log_likelihood"]
    assert (right - wrong).abs().max() > 0.1


def test_the_shared_prompt_goes_through_the_model_once(models, tokenizer, monkeypatch):
    prompts, choices = ["the quick brown fox jumps over a"], [[" dog", " birds sing", " hills", " rain"]]
    length = len(ids_of(tokenizer, prompts[0]))
    others = [len(ids_of(tokenizer, text)) - 1 for text in choices[0]]
    for name, expected in {"llama": [(1, length + sum(others))], "mamba2": [(1, length), (2, max(others))]}.items():
        shapes = []
        forward = models[name].forward
        monkeypatch.setattr(
            models[name],
            "forward",
            lambda input_ids, seen=shapes, plain=forward, **rest: (
                seen.append(tuple(input_ids.shape)) or plain(input_ids=input_ids, **rest)
            ),
        )
        continuation_scores(models[name], tokenizer, prompts, choices)
        assert shapes == expected, name


def test_long_continuations_and_sliding_windows_are_not_packed():
    group = ([1] * 10, [[2] * 60, [3] * 60, [4] * 5])
    assert [row.places for row in passes._rows([group], 8, math.inf)] == [[0], [1, 2]]
    assert [row.places for row in passes._rows([group], 8, 70)] == [[0], [1], [2]]
    assert [row.places for row in passes._rows([group, group], 1, math.inf)] == [[0], [1], [2], [3], [4], [5]]


def test_adapters_are_scored_with_their_model(models, tokenizer):
    prompts, choices = questions(3)
    adapted = get_peft_model(random_model("llama"), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    adapted.eval()
    table = continuation_scores(adapted, tokenizer, prompts, choices)
    expected = expected_scores(adapted, tokenizer, prompts, choices)
    np.testing.assert_allclose(table["log_likelihood"], expected, rtol=0, atol=1e-5)
    plain = expected_scores(models["llama"], tokenizer, prompts, choices)
    assert np.abs(np.subtract(expected, plain)).max() > 0.1


def test_dropout_is_off(models, tokenizer):
    prompts, choices = questions(2)
    model = random_model("gpt2").train()  # its configuration has dropout
    table = continuation_scores(model, tokenizer, prompts, choices)
    expected = expected_scores(models["gpt2"], tokenizer, prompts, choices)
    np.testing.assert_allclose(table["log_likelihood"], expected, rtol=0, atol=1e-5)


def test_white_space_at_a_prompts_end_belongs_to_the_continuation(models, tokenizer):
    moved = continuation_scores(models["llama"], tokenizer, ["the dog ", " "], [["birds", "a"], [" sun"]])
    plain = continuation_scores(models["llama"], tokenizer, ["the dog", ""], [[" birds", " a"], ["  sun"]])
    assert moved["log_likelihood"].tolist() == plain["log_likelihood"].tolist()
    assert moved["characters"].tolist() == [5, 1, 4]


def test_a_begin_token_of_the_tokenizers_own_comes_once(models, tmp_path):
    tokenizer = tiny_tokenizer(tmp_path)
    template = TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    tokenizer.backend_tokenizer.post_processor = template
    assert tokenizer("a")["input_ids"][0] == 0
    prompts = ["the dog", f"{END}the dog", ""]
    scores = continuation_scores(models["llama"], tokenizer, prompts, [[" birds"]] * 3)["log_likelihood"]
    start, birds = ids_of(tokenizer, "the dog"), ids_of(tokenizer, " birds")
    assert scores[0] == scores[1] == pytest.approx(naive(models["llama"], [0, *start], birds), abs=1e-5)
    assert scores[2] == pytest.approx(naive(models["llama"], [0], birds), abs=1e-5)


@pytest.mark.parametrize(
    ("prompts", "continuations", "message"),
    [
        ([], [], "0 prompts"),
        (["a"], [], "1 prompts and 0 lists"),
        (["a"], [" dog"], "' dog', allowed: a list"),
        (["a"], [[]], r"prompt 0: its continuations are \[\]"),
        (["a", "the"], [[" dog"], [" dog", ""]], "prompt 1, continuation 1: the continuation is empty"),
        (["over the hil"], [["ls"]], "prompt 0, continuation 0: a token spans 'er the hil' and 'ls'"),
        (["a" + " green" * 40], [[" hills" * 8, " hills" * 9]], "continuation 1: 41 . 9 tokens, .* context 48"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(models, tokenizer, prompts, continuations, message):
    with pytest.raises(UserError, match=message) as caught:
        continuation_scores(models["llama"], tokenizer, prompts, continuations)
    assert "\n" not in str(caught.value)


def test_a_batch_of_none_is_refused(models, tokenizer):
    with pytest.raises(UserError, match="batch_size is 0"):
        continuation_scores(models["llama"], tokenizer, ["a"], [[" dog"]], batch_size=0)


@pytest.mark.parametrize("name", ["llama", "mamba2", "recurrent_gemma, recurrent"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_stop_the_scoring(tokenizer, name, value):
    model = random_model(name)
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = value
    with pytest.raises(RuntimeError, match="logits are not finite"):
        continuation_scores(model, tokenizer, ["a"], [[" dog", " birds"]])


def test_who_needs_only_a_loss_imports_nothing_of_the_rest():
    closure = import_closure(["from common.scoring.loss import mean_loss"])
    assert {name for name in closure if name.startswith("common.scoring")} == {"common.scoring", "common.scoring.loss"}


@pytest.fixture(scope="module")
def planted(tokenizer):
    """Of " green" and " hills" one is likely anywhere; after " dog" the other's chance has grown the more."""
    token = {word: ids_of(tokenizer, f" {word}")[0] for word in ("dog", "green", "hills", "the", "sun", "a", "in")}
    assert all(len(ids_of(tokenizer, f" {word}")) == 1 for word in token)
    return planted_model(
        {
            0: {token["green"]: 0.5, token["hills"]: 0.01},
            token["dog"]: {token["green"]: 0.4, token["hills"]: 0.3, token["a"]: 0.2, token["in"]: 0.05},
            token["a"]: {token["sun"]: 0.6},
            token["in"]: {token["the"]: 0.99},
        }
    )


def test_each_rule_chooses_by_its_own_formula(planted, tokenizer):
    prompts = ["the dog", "the dog", "the dog"]
    choices = [[" green", " hills"], [" a sun", " hills"], [" a", " in the", " a sun"]]
    scores = choice_scores(planted, tokenizer, prompts, choices, batch_size=2)
    sums = np.log([0.4, 0.3, 0.2 * 0.6, 0.3, 0.2, 0.05 * 0.99, 0.2 * 0.6])
    assert scores["sum"].tolist() == pytest.approx(sums, abs=1e-5)
    assert scores["token_mean"].tolist() == pytest.approx(sums / [1, 1, 2, 1, 1, 2, 2], abs=1e-5)
    assert scores["byte_mean"].tolist() == pytest.approx(sums / [5, 5, 5, 5, 1, 6, 5], abs=1e-5)
    rest = (1 - 0.51) / (VOCABULARY - 2)
    prior = np.log([0.5, 0.01, rest * 0.6, 0.01, rest, rest * 0.99, rest * 0.6])
    assert scores["prior_corrected"].tolist() == pytest.approx(sums - prior, abs=1e-5)
    chosen = choose(scores)
    assert chosen["sum"].tolist() == [0, 1, 0]  # by the sum alone the likely word wins
    assert chosen["prior_corrected"].tolist() == [1, 0, 0]  # and by what the prompt adds the other
    assert chosen["token_mean"].tolist() == [0, 0, 2]
    assert chosen["byte_mean"].tolist() == [0, 1, 2]
    shares = {"sum": 1 / 3, "token_mean": 1 / 3, "byte_mean": 2 / 3, "prior_corrected": 1 / 3}
    assert accuracy(scores, [1, 1, 2]) == pytest.approx(shares)
    assert tuple(shares) == RULES


def test_a_prior_is_what_the_null_prompt_of_the_same_place_gives(planted, tokenizer):
    prompts, choices = ["the dog", "the dog", "the a"], [[" green", " hills"], [" hills", " green"], [" sun", " dog"]]
    scores = choice_scores(planted, tokenizer, prompts, choices, null_prompts=["a dog ", "", "the in"])
    rest = (1 - 0.99) / (VOCABULARY - 1)
    begin = np.log([0.3 / 0.01, 0.4 / 0.5])  # an empty one is the begin token alone
    other = np.log([0.6 / rest, (1 - 0.6) / (VOCABULARY - 1) / rest])
    assert scores["prior_corrected"].tolist() == pytest.approx([0, 0, *begin, *other], abs=1e-5)


def test_null_prompts_are_one_a_prompt(planted, tokenizer):
    with pytest.raises(UserError, match="1 prompts and 2 null prompts: give each prompt one"):
        choice_scores(planted, tokenizer, ["the dog"], [[" green"]], null_prompts=["a", "in"])


def test_answers_that_name_no_choice_are_refused(planted, tokenizer):
    scores = choice_scores(planted, tokenizer, ["a", "the"], [[" dog", " sun"]] * 2)
    with pytest.raises(UserError, match="2 prompts and 1 answers"):
        accuracy(scores, [0])
    with pytest.raises(UserError, match="prompt 1: the answer is 2, allowed: 0 to 1"):
        accuracy(scores, [0, 2])
    with pytest.raises(UserError, match="prompt 1, continuation 0: a choice is white space alone"):
        choice_scores(planted, tokenizer, ["a", "the"], [[" dog"], ["  "]])


@pytest.mark.parametrize("name", ["llama", "recurrent_gemma, hybrid", "mamba2"])
@pytest.mark.parametrize(("context", "stride"), [(10, 10), (10, 4), (7, 1), (48, 48)])
def test_every_token_is_predicted_once_from_its_window(models, tokenizer, name, context, stride):
    texts = ["the quick brown fox", "a dog " * 9, "hills"]
    table = text_log_likelihoods(models[name], tokenizer, texts, context=context, stride=stride, batch_size=3)
    for number, text in enumerate(texts):
        ids = [0, *ids_of(tokenizer, text)]
        total = 0.0
        for place in range(1, len(ids)):
            # The window that predicts a token ends `context` tokens from the start or a number of strides later.
            end = context + stride * max(0, math.ceil((place - context) / stride))
            start = max(0, min(end, len(ids) - 1) - context)
            total += naive(models[name], ids[start:place], [ids[place]])
        assert table["log_likelihood"][number] == pytest.approx(total, abs=2e-5)
        assert table["tokens"][number] == len(ids) - 1
    assert table["words"].tolist() == [4, 18, 1]
    assert table["bytes"].tolist() == [len(text) for text in texts]


def test_a_model_without_opinion_has_the_vocabulary_as_its_perplexity(models, tokenizer):
    table = text_log_likelihoods(planted_model({}), tokenizer, ["the é dog", "sun"], context=5, stride=2)
    found = perplexity(table)
    assert found["token"] == pytest.approx(VOCABULARY, rel=1e-5)
    tokens = int(table["tokens"].sum())
    assert found["word"] == pytest.approx(VOCABULARY ** (tokens / 4), rel=1e-4)
    assert found["byte"] == pytest.approx(VOCABULARY ** (tokens / 13), rel=1e-4)


@pytest.mark.parametrize(
    ("texts", "context", "stride", "message"),
    [
        (["a"], 4, 5, "1 <= stride <= context <= 48"),
        (["a"], CONTEXT + 1, 1, "1 <= stride <= context <= 48"),
        (["a"], 4, 0, "stride 0"),
        ([], 4, 4, "no texts"),
        (["a", " \n"], 4, 4, "text 1 is empty"),
    ],
)
def test_texts_without_a_perplexity_are_refused(models, tokenizer, texts, context, stride, message):
    with pytest.raises(UserError, match=message):
        text_log_likelihoods(models["llama"], tokenizer, texts, context=context, stride=stride)
