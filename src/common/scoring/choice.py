"""Multiple choice by likelihood: which of its answers a model prefers, by several rules."""

from collections.abc import Sequence

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.scoring.likelihood import encode_checked
from common.scoring.passes import log_likelihoods
from common.scoring.tokens import encode, start_token

RULES = ("sum", "token_mean", "byte_mean", "prior_corrected")


def choice_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    null_prompt: str = "",
    batch_size: int = 64,
) -> pd.DataFrame:
    """Every choice's score by each rule, in nats, one row each, in order: `prompt`, `continuation` and `RULES`.

    With L the log-likelihood of a choice after its prompt: `sum` is L; `token_mean` L per token; `byte_mean` L per byte
    of the choice without the white space around it, lm-eval's `acc_bytes` (and its `acc_norm` where a character is a
    byte); `prior_corrected` L minus that of the same tokens after `null_prompt`, which takes away that some choices are
    likely anywhere: with the begin token alone that is pointwise mutual information, with the prompts' common words
    Holtzman et al. 2021 (arXiv 2104.08315), PMI_DC.

    Errors as of `common.scoring.likelihood.continuation_scores`; a choice of white space alone is refused.
    """
    groups = encode_checked(model, tokenizer, prompts, choices)
    null = encode(tokenizer, [null_prompt.rstrip()])[0] if null_prompt.strip() else [start_token(tokenizer)]
    unique = list(dict.fromkeys(tuple(ids) for _, several in groups for ids in several))
    table = pd.DataFrame(
        [
            (number, place, len(ids), len(text.strip().encode()), tuple(ids))
            for number, ((_, several), texts) in enumerate(zip(groups, choices, strict=True))
            for place, (ids, text) in enumerate(zip(several, texts, strict=True))
        ],
        columns=["prompt", "continuation", "tokens", "bytes", "ids"],
    )
    if not table["bytes"].all():
        row = table[table["bytes"] == 0].iloc[0]
        raise UserError(f"prompt {row['prompt']}, continuation {row['continuation']}: a choice is white space alone")
    prior = dict(zip(unique, log_likelihoods(model, [(null, unique)], batch_size).tolist(), strict=True))
    total = log_likelihoods(model, groups, batch_size).numpy()
    rules = {
        "sum": total,
        "token_mean": total / table["tokens"],
        "byte_mean": total / table["bytes"],
        "prior_corrected": total - table["ids"].map(prior),
    }
    return table[["prompt", "continuation"]].assign(**rules)


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
