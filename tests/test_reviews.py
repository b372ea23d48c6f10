"""Film reviews: the reward and how it is kept, what is read, what is asked, and pairs of what a model writes."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from common.alignment.reviews import evaluate_reviews
from common.errors import UserError
from common.models import new_language_model
from common.pairs import reviews
from common.pairs.reviews import CONTINUATION, OPENING, openings, passages, sample_pairs
from common.pairs.sentiment import PASSAGE, fit_sentiment, load_sentiment
from common.pairs.table import load_pairs
from common.preference.adapters import Lora, adapter_layers, attach
from common.scoring.generation import Decoding
from common.tokenizer import train_tokenizer
from common.zoo import AutoTokenizer, load
from pair_files import lines

PLAIN = [f"w{number}" for number in range(30)]
TELLING = (["dull", "bad", "boring"], ["fine", "great", "lovely"])  # by label
SAMPLING = {"wanted": "good", "pairs": 12, "samples": 3, "max_new_tokens": 10, "temperature": 1.0}


def written(rng, label, length):
    """Words of which one of ten tells the label, one of fifty the other."""
    telling = TELLING[label if rng.random() > 0.1 else 1 - label]
    return " ".join(rng.choice(telling if rng.random() < 0.12 else PLAIN) for _ in range(length))


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    splits = ["train"] * 8 + ["validation", "test"]
    return pd.DataFrame(
        [{"id": f"imdb-{n}", "text": written(rng, n % 2, 20 + n % 70), "label": n % 2, "split": splits[n // 2 % 10]}
         for n in range(400)]
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(table, tmp_path_factory):
    return lines(tmp_path_factory.mktemp("reviews") / "movie_reviews.jsonl", table.to_dict("records"))


@pytest.fixture(scope="module")
def fitted(file, tmp_path_factory):
    keep = tmp_path_factory.mktemp("sentiment")
    return fit_sentiment(movie_reviews=file, keep=keep), keep


def test_the_reward_is_what_scikit_learn_gives_and_is_kept_without_a_pickle(table, fitted):
    metrics, keep = fitted
    train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    middle = [words[max(0, (len(words) - PASSAGE) // 2) :][:PASSAGE] for words in train["text"].str.split()]
    features = TfidfVectorizer(min_df=5, sublinear_tf=True)
    matrix = features.fit_transform([*train["text"], *map(" ".join, middle)])
    peer = LogisticRegression(C=4.0, max_iter=1000).fit(matrix, [*train["label"]] * 2)
    expected = peer.decision_function(features.transform(test["text"]))
    sentiment = load_sentiment(keep)
    np.testing.assert_allclose(sentiment.log_odds(test["text"]), expected, atol=1e-6)
    assert metrics["test_accuracy"] == pytest.approx(((expected > 0) == test["label"]).mean())
    assert metrics["words"] == len(features.vocabulary_)
    assert metrics["fitted_reviews"] == len(train)
    assert {path.suffix for path in keep.iterdir()} == {".json", ".safetensors"}
    np.testing.assert_allclose(sentiment.rewards(test["text"], "bad"), -expected, atol=1e-6)
    assert sentiment.log_odds(["great lovely"])[0] > 1 > -1 > sentiment.log_odds(["boring bad"])[0]


def test_a_reward_that_is_not_there_and_a_sentiment_that_is_none_are_refused(fitted, table, tmp_path):
    with pytest.raises(UserError, match=r"holds no words\.json"):
        load_sentiment(tmp_path)
    with pytest.raises(UserError, match="the sentiment wanted is 'great', allowed: good, bad"):
        load_sentiment(fitted[1]).rewards(["fine"], "great")
    part = lines(tmp_path / "movie_reviews.jsonl", table[table["split"] != "test"].to_dict("records"))
    with pytest.raises(UserError, match=r"movie_reviews\.jsonl has no reviews of the split test"):
        fit_sentiment(movie_reviews=part, keep=tmp_path)


def test_passages_are_real_and_of_other_reviews_than_openings(table):
    found = passages(table, 80, seed=0)
    asked = openings(table, "train", "good", 40)
    assert all(prompt.startswith("Go on with a good review: ") for prompt in asked)
    opened = {prompt.partition(": ")[2] for prompt in asked}
    sources = {(row.split, row.label): [] for row in table.itertuples()}
    for row in table.itertuples():
        sources[row.split, row.label].append(f" {row.text} ")
    for prompt, rest in found:
        head, _, opening = prompt.partition(": ")
        assert (len(opening.split()), len(rest.split())) == (OPENING, CONTINUATION)
        label = int("good" in head)
        whole = [text for text in sources["train", label] if f" {opening} {rest} " in text]
        assert whole
        assert not any(text.strip().startswith(start) for start in opened for text in whole)
    assert {prompt.partition(" review")[0] for prompt, _ in found} == {"Go on with a good", "Go on with a bad"}
    assert passages(table, 80, seed=1) != found
    assert len(set(found)) == 80
    with pytest.raises(UserError, match=r"9999 passages wanted, \d+ are there"):
        passages(table, 9999, seed=0)


def test_openings_are_of_their_split_and_each_once(table):
    for split in ("validation", "test"):
        asked = openings(table, split, "bad", 20)
        texts = table.loc[table["split"] == split, "text"]
        assert len(set(asked)) == 20
        assert all(texts.str.startswith(prompt.partition(": ")[2]).any() for prompt in asked)
    with pytest.raises(UserError, match="500 openings of the split test wanted, 40 are there"):
        openings(table, "test", "bad", 500)


@pytest.fixture(scope="module")
def start(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    train_tokenizer([*table["text"], *openings(table, "train", "good", 40)], 320, folder, chat=True)
    new_language_model(
        "llama", vocab_size=len(AutoTokenizer.from_pretrained(folder)), hidden=16, layers=1, heads=2, context=96,
        tied=False, embedding_std=0.3, seed=0,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_of_what_a_model_writes_the_best_is_preferred_to_the_worst(table, file, fitted, start, tmp_path, monkeypatch):
    drawn = np.random.default_rng(1)
    said = [" ".join(drawn.choice([*TELLING[0], *TELLING[1]], 3)) for _ in range(36)]
    said[:3] = ["dull", "dull ", " dull"]  # nothing to prefer
    said[3:6] = ["lovely", "", "fine"]  # the worst, or neither, may be empty
    asked = []
    monkeypatch.setattr(
        reviews, "continuations", lambda model, tokenizer, prompts, decoding: asked.extend(prompts) or said
    )
    sentiment = load_sentiment(fitted[1])
    for wanted, sign in (("good", 1), ("bad", -1)):
        asked.clear()
        metrics = sample_pairs("model", SAMPLING | {"wanted": wanted}, 0, movie_reviews=file, sentiment=fitted[1],
                               keep=tmp_path, model=start)  # fmt: skip
        pairs = load_pairs(tmp_path)
        by_prompt = {prompt: [] for prompt in asked}
        for prompt, text in zip(asked, said, strict=True):
            by_prompt[prompt].append(text.strip())
        assert list(by_prompt) == openings(table, "train", wanted, 12)
        assert 10 <= len(pairs) == metrics["pairs"] <= 11
        for pair in pairs.itertuples():
            odds = {text: sign * sentiment.log_odds([text])[0] for text in by_prompt[pair.prompt[0]["content"]]}
            assert odds[pair.chosen] == pytest.approx(max(odds.values()))
            assert odds[pair.rejected] == pytest.approx(min(odds.values()))
        assert set(pairs["aim"]) == {"sentiment"}
        assert set(pairs["category"]) == {wanted}
        assert metrics["chosen_reward"] > metrics["reward"] > metrics["rejected_reward"]


def test_what_a_model_writes_depends_on_the_seed_alone(file, fitted, start, tmp_path):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        keep = tmp_path / str(number)
        keep.mkdir()
        metrics = sample_pairs("model", SAMPLING, seed, movie_reviews=file, sentiment=fitted[1], keep=keep, model=start)
        found.append((metrics, (keep / "pairs.jsonl").read_bytes()))
    assert found[0] == found[1] != found[2]


def asked_of(name, file, fitted, start, wanted="good", **models):
    return evaluate_reviews(
        "model", name, "test", wanted, 12, 10, 0, movie_reviews=file, sentiment=fitted[1], model=start, **models
    )


def test_the_reward_of_a_tuned_model_is_that_of_what_it_writes_itself(table, file, fitted, start, tmp_path):
    moved = attach(load(str(start))[0], Lora(r=2, lora_alpha=4), 0)
    with torch.no_grad():
        for weight in adapter_layers(moved).values():
            weight.normal_(std=3.0, generator=torch.Generator().manual_seed(1))
    moved.save_pretrained(tmp_path)
    untuned, tuned = (asked_of(name, file, fitted, start, tuned=tmp_path) for name in (None, "tuned"))
    assert untuned["kl_reply"] == untuned["kl_token"] == 0
    assert tuned["kl_reply"] > tuned["kl_token"] > 1e-3  # as much as so flat a head allows
    sentiment, prompts = load_sentiment(fitted[1]), openings(table, "test", "good", 12)
    for found, model in ((untuned, load(str(start))[0]), (tuned, moved.eval())):
        said = reviews.continuations(model, load(str(start))[1], prompts, Decoding(10, temperature=1.0))
        assert found["reward"] == pytest.approx(sentiment.log_odds(said).mean(), abs=1e-6)
        assert found["length"] == pytest.approx(np.mean([len(text.split()) for text in said]))
    opposite = asked_of(None, file, fitted, start, wanted="bad")
    said = reviews.continuations(*load(str(start)), openings(table, "test", "bad", 12), Decoding(10, temperature=1.0))
    assert opposite["reward"] == pytest.approx(-sentiment.log_odds(said).mean(), abs=1e-6)
