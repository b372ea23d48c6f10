"""Perplexity of texts, in windows that roll over them."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.scoring.passes import Group, log_likelihoods
from common.scoring.tokens import context_length, encode, start_token


def text_log_likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    context: int,
    stride: int,
    batch_size: int = 16,
) -> pd.DataFrame:
    """Log-likelihood of each text, one row each: `log_likelihood` (nats), `tokens`, `words`, `bytes` (UTF-8).

    A text stands after the tokenizer's begin (or end) token, and every token of it is predicted once. The first window
    predicts `context` tokens; each next one `stride` more, with as much before them as `context` tokens of input allow:
    at `stride = context` one token, at `stride = 1` all. Words are what white space parts, as lm-eval counts them.

    Raises `UserError` on an empty text, a `stride` above `context`, or a `context` that the model doesn't have.
    """
    longest = context_length(model)
    if not 1 <= stride <= context <= longest:
        raise UserError(f"stride {stride} and context {context}: allowed is 1 <= stride <= context <= {longest}")
    if not texts:
        raise UserError("no texts to score")
    start = start_token(tokenizer)
    rows = [[start, *ids] for ids in encode(tokenizer, texts, special=False)]
    for number, (text, ids) in enumerate(zip(texts, rows, strict=True)):
        if not text.strip() or len(ids) == 1:
            raise UserError(f"text {number} is empty")
    windows = [_windows(ids, context, stride) for ids in rows]
    scores = log_likelihoods(model, [window for several in windows for window in several], batch_size).numpy()
    owners = np.repeat(np.arange(len(texts)), [len(several) for several in windows])
    return pd.DataFrame(
        {
            "log_likelihood": np.bincount(owners, weights=scores),
            "tokens": [len(ids) - 1 for ids in rows],
            "words": [len(text.split()) for text in texts],
            "bytes": [len(text.encode()) for text in texts],
        }
    )


def perplexity(table: pd.DataFrame) -> dict[str, float]:
    """Perplexity of all texts of a table together, per `token`, `word` and `byte`.

    exp(-L/n) of the summed log-likelihood L and the count n over all texts, so long texts weigh more. Per word and per
    byte it compares models of different tokenizers.
    """
    total = math.fsum(table["log_likelihood"])
    return {unit: math.exp(-total / int(table[f"{unit}s"].sum())) for unit in ("token", "word", "byte")}


def _windows(ids: Sequence[int], context: int, stride: int) -> list[Group]:
    """What is given and what is predicted, for each window over `ids`, whose first is only given."""
    windows, done, size = [], 1, context
    while done < len(ids):
        end = min(done + size, len(ids))
        windows.append((ids[max(0, end - 1 - context) : done], [ids[done:end]]))
        done, size = end, stride
    return windows
