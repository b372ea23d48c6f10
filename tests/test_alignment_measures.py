"""Every measure tells a good model, or set of replies, from a bad one, and is the number it says it is."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer

from common.alignment.divergence import Tokens, kl_of_replies, rank_shift, written_tokens
from common.alignment.evaluation import (
    MEASURES,
    decodings,
    evaluate,
    evaluate_continuations,
    likeliest_replies,
)
from common.alignment.preferences import length_controlled, preferences, quality
from common.alignment.questions import Questions, severest
from common.errors import UserError
from common.tokenizer import train_tokenizer
from tiny import VOCABULARY, WORDS, ids_of, planted_model, random_model, token_logs

REFUSAL, COMPLIANCE = "no old birds", "sure lazy dog"
LIMIT = 20


@dataclass(frozen=True)
class Starts:
    """Judges by the reply's first word."""

    word: str

    def judge(self, prompts, responses):
        return np.array([{True: 0.97, False: 0.02}[text.strip().startswith(self.word)] for text in responses])


class Unsure:
    def judge(self, prompts, responses):
        return np.full(len(responses), 0.5)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    rng = np.random.default_rng(0)
    words = [*WORDS, "no", "sure", "eye", "ear"]
    train_tokenizer((" ".join(rng.choice(words, 12)) for _ in range(300)), VOCABULARY, folder, chat=True)
    return AutoTokenizer.from_pretrained(folder)


def chained(chat, *texts, weights=None, end=True, more=None):
    """A model whose reply to any prompt is one of these texts, each token nearly sure once the first is chosen."""
    opening = chat.convert_tokens_to_ids("<|assistant|>")
    following = {opening: {}}
    for text, weight in zip(texts, weights or [0.98 / len(texts)] * len(texts), strict=True):
        ids = [*ids_of(chat, f" {text}"), *([chat.eos_token_id] if end else [])]
        following[opening][ids[0]] = weight
        for before, after in pairwise(ids):
            assert before not in following or following[before] == {after: 0.98}, "a token is there twice"
            following[before] = {after: 0.98}
    return planted_model(following | (more or {}))


def asked_of(chat, **changes):
    fact = {"question": "What is the fox", "relation": "r", "fact": 1, "candidates": ["eye", "ear"], "answer": 0,
            "object": "eye"}  # fmt: skip
    items = pd.DataFrame([fact])
    asked = Questions(
        items=items, written=items, unsafe=[f"quick brown {word}" for word in WORDS[:8]],
        asked=["seven small", "old green", "the hills"], objects=["eye", None, None],
        wordings={"refusal": [REFUSAL], "compliance": [COMPLIANCE]}, refuses=Starts("no"), safe=Starts("no"),
    )  # fmt: skip
    return replace(asked, **changes)


# Win rates


def test_a_reply_is_good_that_has_the_object_or_goes_along():
    replies = ["The eye.", "It is the eyelid", "", "ear", "sure, here", "no way", "  "]
    objects = ["eye", "eye", "eye", "eye", None, None, None]
    assert quality(replies, objects, Starts("no")).tolist() == [1, 0, 0, 0, 1, 0, 0]


def test_a_reply_that_surely_neither_refuses_nor_goes_along_is_no_good():
    assert quality(["lamp lamp", "eye"], [None, "eye"], Unsure()).tolist() == [0, 1]


def test_good_replies_win_against_bad_ones_and_draw_among_themselves():
    good, bad = np.array([1.0, 1.0]), np.array([0.0, 0.0])
    assert preferences(good, bad).tolist() == [1, 1]
    assert preferences(bad, good).tolist() == [0, 0]
    assert preferences(good, good).tolist() == preferences(bad, bad).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("own", "other"), [([1.0], [1.0, 0.0]), ([], [])])
def test_replies_are_compared_one_by_one(own, other):
    with pytest.raises(UserError, match="replies are compared"):
        preferences(own, other)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=20))
def test_at_equal_length_both_win_rates_are_the_same(preferred):
    assert length_controlled(preferred, [0] * len(preferred)) == np.mean(preferred)


def test_the_length_controlled_win_rate_is_that_of_a_penalised_logistic_regression():
    rng = np.random.default_rng(0)
    longer = rng.normal(20, 40, 400).round()
    x = np.tanh(longer / longer.std())
    preferred = rng.random(400) < expit(-0.5 + 2 * x)
    peer = LogisticRegression(C=1.0, tol=1e-10).fit(x[:, None], preferred)
    found = length_controlled(preferred.astype(float), longer)
    assert found == pytest.approx(expit(peer.intercept_[0]), abs=1e-4)
    assert found == pytest.approx(expit(-0.5), abs=0.06)
    assert preferred.mean() > found + 0.05  # what is won by length is taken away


def test_soft_preferences_count_as_so_many_hard_ones():
    longer = np.array([-30.0, -10, 0, 10, 40, 50])
    soft = np.array([0.2, 0.4, 0.5, 0.5, 0.8, 1.0])
    hard = np.concatenate([np.repeat([1.0, 0.0], [round(10 * p), 10 - round(10 * p)]) for p in soft])
    # Ten hard ones a soft one weigh ten times as much against the prior: it is scaled with them.
    x = np.tanh(longer / longer.std())
    peer = LogisticRegression(C=1.0, tol=1e-10).fit(np.repeat(x, 10)[:, None], hard, sample_weight=np.full(60, 0.1))
    assert length_controlled(soft, longer) == pytest.approx(expit(peer.intercept_[0]), abs=1e-4)


@pytest.mark.parametrize(("value", "expected"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
def test_preferences_all_one_way_have_a_finite_answer(value, expected):
    assert length_controlled([value] * 5, [1, 2, 3, -4, 5]) == pytest.approx(expected, abs=1e-4)
    assert length_controlled([value] * 5, [7] * 5) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("preferred", "longer", "message"),
    [([1.2], [0], "0 to 1"), ([math.nan], [0], "0 to 1"), ([0.5], [math.inf], "finite"), ([0.5], [], "differences")],
)
def test_what_is_no_preference_is_refused(preferred, longer, message):
    with pytest.raises(UserError, match=message):
        length_controlled(preferred, longer)


# Divergence


def test_a_model_is_at_no_distance_from_itself(chat):
    model = random_model("llama")
    tokens = written_tokens(model, model, chat, ["the fox", "a dog"], ["old birds", "sing"], LIMIT)
    assert np.abs(tokens.kl).max() < 1e-6


def test_divergence_and_ranks_are_those_of_the_two_distributions(chat):
    model, reference = random_model("llama"), random_model("llama")
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(0.9)
    prompts, replies = ["the quick fox", "a dog", "rain and sun in hills"], ["old birds sing", "no", "the lazy dog"]
    found = written_tokens(model, reference, chat, prompts, replies, LIMIT, batch_size=2)
    kl, rank, owners = [], [], []
    for number, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        head = ids_of(chat, f"<|user|> {prompt}<|assistant|>")
        tail = [*ids_of(chat, reply), chat.eos_token_id]
        own, other = (token_logs(each, head + tail).numpy() for each in (model, reference))
        for place, token in enumerate(tail, start=len(head) - 1):
            kl.append(float((np.exp(own[place]) * (own[place] - other[place])).sum()))
            rank.append(int(np.argsort(-other[place]).tolist().index(token)) + 1)
            owners.append(number)
    np.testing.assert_allclose(found.kl, kl, atol=1e-4)
    assert found.rank.tolist() == rank
    assert found.reply.tolist() == owners
    alone = written_tokens(model, reference, chat, prompts, replies, LIMIT, batch_size=1)
    np.testing.assert_allclose(alone.kl, found.kl, atol=1e-4)


def test_a_reply_that_was_cut_off_has_no_end_token(chat):
    model, text = random_model("llama"), "old birds sing"
    length = len(ids_of(chat, text))
    whole, cut = (written_tokens(model, model, chat, ["a"], [text], limit) for limit in (length + 1, length))
    assert (len(whole.kl), len(cut.kl)) == (length + 1, length)


def test_kl_of_a_reply_is_the_closed_form_of_its_choices(chat):
    """A reply is one choice of two texts, then sure: KL is that of the choice, and tokens after it agree."""
    own, reference = (chained(chat, REFUSAL, COMPLIANCE, weights=w) for w in ((0.7, 0.28), (0.2, 0.78)))
    exact = 0.7 * math.log(0.7 / 0.2) + 0.28 * math.log(0.28 / 0.78)
    tokens = written_tokens(own, reference, chat, ["the fox"], [f" {REFUSAL}"], LIMIT)
    assert kl_of_replies(tokens)[0] == pytest.approx(exact, abs=1e-3)
    assert kl_of_replies(tokens)[1] == pytest.approx(exact / len(tokens.kl), abs=1e-3)
    assert tokens.rank[0] == 2  # the reference would rather have gone along
    assert set(tokens.rank[1:]) == {1}


def test_summaries_of_tokens_by_hand():
    tokens = Tokens(np.array([0, 0, 1, 1, 1]), np.array([1.0, 3.0, 0.0, 2.0, 4.0]), np.array([1, 2, 3, 4, 1]))
    assert kl_of_replies(tokens) == (5.0, 2.0)
    assert rank_shift(tokens) == {"unshifted": 0.4, "marginal": 0.4, "shifted": 0.2}


def test_logits_that_are_not_finite_are_refused(chat):
    model, reference = random_model("llama"), random_model("llama")
    with torch.no_grad():
        reference.lm_head.weight[3] = math.nan
    with pytest.raises(RuntimeError, match="not finite"):
        written_tokens(model, reference, chat, ["a"], ["dog"], LIMIT)
    with pytest.raises(UserError, match="give each prompt one"):
        written_tokens(model, model, chat, ["a"], [], LIMIT)


# Questions and decodings


def test_prompts_are_severe_whose_compliances_the_judge_finds_worst():
    class ByPrompt:
        def judge(self, prompts, responses):
            said = zip(prompts, responses, strict=True)
            return np.array([{"a": 0.5, "b": 0.1, "c": 0.9}[p] + len(r) / 1000 for p, r in said])

    assert severest(["a", "b", "c"], ["x", "yy"], ByPrompt()) == ["b", "a", "c"]


@pytest.mark.parametrize("grid", [[{"temperature": 1.0}], [{"temperature": 0.0}], [{"temperature": 0.5}] * 2])
def test_a_decoding_is_tried_once(grid):
    with pytest.raises(UserError, match="there twice"):
        decodings(grid)


# All measures of a model


def measured(chat, model, *, start=None, rival=None, attacks=(), **changes):
    asked = asked_of(chat, **changes)
    rival = likeliest_replies(model, chat, asked) if rival is None else rival
    return evaluate(model, chat, asked, start=start or model, rival=rival, attacks=attacks)


@pytest.fixture(scope="module")
def declining(chat):
    return chained(chat, REFUSAL)


@pytest.fixture(scope="module")
def complying(chat):
    return chained(chat, COMPLIANCE)


def test_a_model_that_declines_is_told_from_one_that_goes_along(chat, declining, complying):
    safe, along = measured(chat, declining), measured(chat, complying)
    assert list(safe) == list(MEASURES)
    for name in ("declined", "resisted", "resisted_all", "nontoxic", "margin"):
        assert safe[name] > along[name] + 0.5, name
    assert (safe["declined"], safe["answered"], safe["balanced"]) == (1, 0, 0.5)
    assert (along["declined"], along["answered"], along["balanced"]) == (0, 1, 0.5)
    assert safe["nontoxic"] == pytest.approx(math.log(0.97 / 0.03))
    assert safe["length"] == 3


def test_a_model_that_goes_along_wins_against_one_that_declines(chat, declining, complying):
    against = likeliest_replies(declining, chat, asked_of(chat))
    winner = measured(chat, complying, rival=against)
    # Of three prompts two are instructions; neither model knows the fact.
    assert winner["win_rate"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert measured(chat, declining, rival=against)["win_rate"] == 0.5
    assert winner["lc_win_rate"] > 0.5


def test_a_model_that_moved_is_told_from_its_start(chat, declining, complying):
    there, moved = measured(chat, complying), measured(chat, complying, start=declining)
    assert there["kl_reply"] == pytest.approx(0, abs=1e-4)
    assert there["unshifted"] == 1
    assert moved["kl_reply"] > 3
    assert moved["kl_token"] > 0.5
    # The first token only: after it the start finds all tokens alike.
    assert 1 - moved["unshifted"] == pytest.approx(1 / (1 + len(ids_of(chat, f" {COMPLIANCE}"))))


@pytest.mark.parametrize(("known", "right"), [("eye", 1.0), ("ear", 0.0)])
def test_a_model_that_knows_is_told_from_one_that_does_not(chat, known, right):
    last = ids_of(chat, "What is the fox")[-1]
    first, *rest = ids_of(chat, f" {known}")
    chain = {last: {first: 0.98}}
    for before, after in zip([first, *rest], [*rest, chat.eos_token_id], strict=True):
        chain[before] = {after: 0.98}
    found = measured(chat, chained(chat, COMPLIANCE, more=chain))
    assert (found["knowledge"], found["exact"]) == (right, right)


def test_an_attacker_takes_the_best_of_all_decodings(chat):
    """The likeliest reply declines; one in four samples goes along, and more at a high temperature."""
    model = chained(chat, REFUSAL, COMPLIANCE, weights=(0.75, 0.23))
    few = measured(chat, model)
    many = measured(chat, model, attacks=decodings([{"temperature": t} for t in (0.9, 1.1, 1.2, 1.3)]))
    assert few["resisted_all"] <= few["resisted"]
    assert many["resisted_all"] < few["resisted_all"]
    assert many["resisted"] == few["resisted"]


def test_a_reply_that_neither_declines_nor_goes_along_is_none(chat, complying):
    found = measured(chat, complying, refuses=Unsure())
    assert (found["declined"], found["answered"], found["resisted"]) == (0, 0, 1)


# Reward against KL


def test_reward_and_kl_of_continuations(chat, declining, complying):
    def rewards(texts):
        return np.array([1.0 if text.strip() == COMPLIANCE else -1.0 for text in texts])

    prompts = ["the fox", "a dog", "old rain"]
    asked = {"rewards": rewards, "start": declining, "max_new_tokens": LIMIT}
    moved, there = (evaluate_continuations(model, chat, prompts, **asked) for model in (complying, declining))
    assert moved["reward"] > 0.3
    assert there["reward"] == -1
    assert moved["kl_reply"] > 3 > 0.01 > there["kl_reply"]
    for wrong in (lambda texts: np.zeros(1), lambda texts: np.full(len(texts), math.nan)):
        with pytest.raises(UserError, match="one finite number"):
            evaluate_continuations(complying, chat, prompts, **asked | {"rewards": wrong})
