"""Preference on real text: go on with a film review in the sentiment that is wanted.

As in the sentiment experiment of the DPO paper (Rafailov et al. 2023, arXiv 2305.18290, section 6): pairs are sampled
from the model that training starts from, and a classifier tells which is preferred. Continuations cut from other real
reviews would be as far from that model as any text: it would learn to tell the two apart, hardly to write otherwise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from common import zoo
from common.errors import UserError
from common.pairs.sentiment import load_sentiment
from common.pairs.table import Pair, pair_table, turns, write_pairs
from common.scoring.generation import Decoding, generate

OPENING, CONTINUATION = 6, 20  # words
SENTIMENTS = ("bad", "good")  # by the label of a review
Sentimental = Literal["bad", "good"]


class Sampling(BaseModel):
    """How many pairs, of how many samples the best and the worst, and how these are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wanted: Sentimental
    pairs: PositiveInt
    samples: Annotated[int, Field(ge=2)]
    max_new_tokens: PositiveInt
    temperature: PositiveFloat


def request(sentiment: str, opening: str) -> str:
    """A user's turn that asks for the rest of a review."""
    return f"Go on with a {sentiment} review: {opening}"


def passages(reviews: pd.DataFrame, count: int, seed: int) -> list[tuple[str, str]]:
    """Requests with what really follows: passages of reviews of the split train, each asked for by its own sentiment.

    Passages of one review do not overlap; `seed` draws them. Raises `UserError` where there are fewer than `count`.
    """
    length = OPENING + CONTINUATION
    rows = reviews[(reviews["split"] == "train") & ~_prompting(reviews)]
    found = []
    for text, label in zip(rows["text"], rows["label"], strict=True):
        words = text.split()
        for start in range(0, len(words) - length + 1, length):
            opening, rest = words[start : start + OPENING], words[start + OPENING : start + length]
            found.append((request(SENTIMENTS[label], " ".join(opening)), " ".join(rest)))
    if len(found) < count:
        raise UserError(f"{count} passages wanted, {len(found)} are there")
    return [found[place] for place in np.random.default_rng(seed).permutation(len(found))[:count]]


def openings(reviews: pd.DataFrame, split: str, wanted: Sentimental, count: int) -> list[str]:
    """Requests to go on with the first words of reviews, whatever their own sentiment, in the one that is wanted.

    Of the split train only reviews that `passages` leaves alone are taken. Raises `UserError` where there are fewer
    than `count`.
    """
    rows = reviews[(reviews["split"] == split) & (_prompting(reviews) if split == "train" else True)]
    starts = [" ".join(text.split()[:OPENING]) for text in rows["text"]]
    starts = [text for text in dict.fromkeys(starts) if len(text.split()) == OPENING][:count]
    if len(starts) < count:
        raise UserError(f"{count} openings of the split {split} wanted, {len(starts)} are there")
    return [request(wanted, text) for text in starts]


def sample_pairs(
    start: str, sampling: dict, seed: int, *, movie_reviews: Path, sentiment: Path, keep: Path, **models: Path
) -> dict[str, Any]:
    """Keep pairs of what the model `start` writes: of several samples the one of highest reward, and of lowest.

    `sentiment` is what `fit_sentiment` kept. Openings all of whose samples are alike give no pair. Metrics: `pairs`,
    their mean rewards in nats (`chosen_reward`, `rejected_reward`) and that of all samples (`reward`).
    """
    knobs = Sampling.model_validate(sampling)
    model, tokenizer = zoo.load(str(models[start]))
    classifier = load_sentiment(sentiment)
    asked = openings(pd.read_json(movie_reviews, lines=True, dtype=False), "train", knobs.wanted, knobs.pairs)
    decoding = Decoding(knobs.max_new_tokens, temperature=knobs.temperature, seed=seed)
    written = continuations(model, tokenizer, [prompt for prompt in asked for _ in range(knobs.samples)], decoding)
    rewards = classifier.rewards(written, knobs.wanted).reshape(-1, knobs.samples)
    rows = np.arange(len(asked))
    best, worst = rewards.argmax(1), rewards.argmin(1)
    texts = np.array([text.strip() for text in written], dtype=object).reshape(rewards.shape)
    chosen, rejected = texts[rows, best], texts[rows, worst]
    good = [number for number in rows if chosen[number] and rejected[number] and chosen[number] != rejected[number]]
    pairs = [Pair(turns([asked[n]]), chosen[n], rejected[n], "sentiment", knobs.wanted, "reviews") for n in good]
    write_pairs(pair_table(pairs), keep)
    return {
        "pairs": len(pairs),
        "reward": float(rewards.mean()),
        "chosen_reward": float(rewards[good, best[good]].mean()),
        "rejected_reward": float(rewards[good, worst[good]].mean()),
    }


def continuations(model, tokenizer, prompts: Sequence[str], decoding: Decoding) -> list[str]:
    """What the model replies to each request."""
    dialogues = [list(turns([prompt])) for prompt in prompts]
    asked = tokenizer.apply_chat_template(dialogues, tokenize=False, add_generation_prompt=True)
    return generate(model, tokenizer, asked, decoding, batch_size=64)


def _prompting(reviews: pd.DataFrame) -> pd.Series:
    """One review of four is only asked to be gone on with, and never read."""
    return pd.Series(np.arange(len(reviews)) % 4 == 0, reviews.index)
