"""Multiple choice by likelihood: which of its answers a model prefers, by several rules."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.scoring.likelihood import encode_checked
from common.scoring.passes import Group, log_likelihoods
from common.scoring.tokens import encode, start_token

RULES = ("sum", "token_mean", "byte_mean", "prior_corrected")


def choice_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    null_prompts: Sequence[str] | None = None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Every choice's score by each rule, in nats, one row each, in order: `prompt`, `continuation` and `RULES`.

    With L the log-likelihood of a choice after its prompt: `sum` is L; `token_mean` L per token; `byte_mean` L per byte
    of the choice without the white space around it, lm-eval's `acc_bytes` (and its `acc_norm` where a character is a
    byte); `prior_corrected` L minus that of the same tokens after the null prompt of the same place, which takes away
    that some choices are likely anywhere. That is pointwise mutual information where `null_prompts` are not given, or
    empty, by the begin token alone; with the words of a prompt but for what it asks about it is PMI_DC (Holtzman et al.
    2021, arXiv 2104.08315).

    Errors as of `common.scoring.likelihood.continuation_scores`; a choice of white space alone is refused.
    """
    groups = encode_checked(model, tokenizer, prompts, choices)
    table = pd.DataFrame(
        [
            (number, place, len(ids), len(text.strip().encode()))
            for number, ((_, several), texts) in enumerate(zip(groups, choices, strict=True))
            for place, (ids, text) in enumerate(zip(several, texts, strict=True))
        ],
        columns=["prompt", "continuation", "tokens", "bytes"],
    )
    if not table["bytes"].all():
        row = table[table["bytes"] == 0].iloc[0]
        raise UserError(f"prompt {row['prompt']}, continuation {row['continuation']}: a choice is white space alone")
    total = log_likelihoods(model, groups, batch_size).numpy()
    prior = _priors(model, groups, _null_ids(tokenizer, null_prompts, len(prompts)), batch_size)
    rules = {
        "sum": total,
        "token_mean": total / table["tokens"],
        "byte_mean": total / table["bytes"],
        "prior_corrected": total - prior,
    }
    return table[["prompt", "continuation"]].assign(**rules)


def _null_ids(
    tokenizer: PreTrainedTokenizerBase, null_prompts: Sequence[str] | None, count: int
) -> list[tuple[int, ...]]:
    start = (start_token(tokenizer),)
    if null_prompts is None:
        return [start] * count
    if len(null_prompts) != count:
        raise UserError(f"{count} prompts and {len(null_prompts)} null prompts: give each prompt one")
    unique = list(dict.fromkeys(text.rstrip() for text in null_prompts if text.strip()))
    ids = dict(zip(unique, map(tuple, encode(tokenizer, unique)), strict=True)) if unique else {}
    return [ids.get(text.rstrip(), start) for text in null_prompts]


def _priors(
    model: PreTrainedModel, groups: Sequence[Group], nulls: Sequence[tuple[int, ...]], batch_size: int
) -> np.ndarray:
    """Log-likelihood of every choice after its null prompt, in order; each is computed once for all that share it."""
    after: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
    for null, (_, several) in zip(nulls, groups, strict=True):
        after.setdefault(null, {}).update(dict.fromkeys(map(tuple, several)))
    flat = [(null, ids) for null, several in after.items() for ids in several]
    scores = log_likelihoods(model, [(list(null), list(several)) for null, several in after.items()], batch_size)
    known = dict(zip(flat, scores.tolist(), strict=True))
    return np.array(
        [known[null, tuple(ids)] for null, (_, several) in zip(nulls, groups, strict=True) for ids in several]
    )


def choose(scores: pd.DataFrame) -> pd.DataFrame:
    """The best choice of every prompt by each rule: one row a prompt, a column a rule; of equals the first."""
    best = scores.groupby("prompt")[list(RULES)].idxmax()
    return best.apply(lambda rows: scores["continuation"].loc[rows].to_numpy())


def accuracy(scores: pd.DataFrame, answers: Sequence[int]) -> dict[str, float]:
    """Share of prompts of which each rule chooses the right one, `answers`.

    Raises `UserError` where a prompt has no answer, or an answer names no choice.
    """
    counts = scores.groupby("prompt").size()
    if len(counts) != len(answers):
        raise UserError(f"{len(counts)} prompts and {len(answers)} answers: give each prompt one")
    for number, (answer, count) in enumerate(zip(answers, counts, strict=True)):
        if not 0 <= answer < count:
            raise UserError(f"prompt {number}: the answer is {answer}, allowed: 0 to {count - 1}")
    return choose(scores).eq(list(answers), axis=0).mean().to_dict()
