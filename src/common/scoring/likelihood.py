"""How likely a model finds continuations of prompts."""

from collections.abc import Sequence

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.scoring.passes import Group, log_likelihoods
from common.scoring.tokens import context_length, encode_pairs


def continuation_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[str]],
    batch_size: int = 64,
) -> pd.DataFrame:
    """Log-likelihood of each continuation given its prompt, one row each, in order.

    `continuations[i]` follow `prompts[i]`. Columns: `prompt` and `continuation`, both counted from 0; `log_likelihood`,
    the sum over the continuation's tokens in nats; `tokens`; `characters` and `bytes` (UTF-8) of the continuation as
    given. `common.scoring.tokens.encode_pairs` says how texts become tokens. Neither `batch_size`, the number of
    continuations in a pass, nor the order of prompts moves a score by more than rounding. The model is left in
    evaluation mode.

    Raises `UserError` where there is nothing to score, where a continuation is empty or one token spans it and its
    prompt, and where a text is longer than the model's context; `RuntimeError` where logits are NaN or infinite.
    """
    groups = encode_checked(model, tokenizer, prompts, continuations)
    rows = [
        (number, place, len(ids), len(text), len(text.encode()))
        for number, ((_, several), texts) in enumerate(zip(groups, continuations, strict=True))
        for place, (ids, text) in enumerate(zip(several, texts, strict=True))
    ]
    table = pd.DataFrame(rows, columns=["prompt", "continuation", "tokens", "characters", "bytes"])
    table.insert(2, "log_likelihood", log_likelihoods(model, groups, batch_size).numpy())
    return table


def encode_checked(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[str]],
) -> list[Group]:
    """Ids of prompts and continuations, every one of them within the model's context; errors as above."""
    if not prompts or len(prompts) != len(continuations):
        raise UserError(f"{len(prompts)} prompts and {len(continuations)} lists of continuations: give each prompt one")
    for number, several in enumerate(continuations):
        if isinstance(several, str) or not several:
            raise UserError(f"prompt {number}: its continuations are {several!r}, allowed: a list of at least one text")
    groups = encode_pairs(tokenizer, prompts, continuations)
    longest = context_length(model)
    for number, (prompt, several) in enumerate(groups):
        for place, ids in enumerate(several):
            if len(prompt) + len(ids) - 1 > longest:  # the last token is predicted, not read
                where = f"prompt {number}, continuation {place}"
                raise UserError(f"{where}: {len(prompt)} + {len(ids)} tokens, more than the model's context {longest}")
    return groups
