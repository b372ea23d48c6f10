"""Texts as the ids that a model is asked about."""

import math
from collections.abc import Iterable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool = True) -> list[list[int]]:
    """Ids of each text, with the special tokens that the tokenizer adds of its own unless not `special`.

    A begin token that a text spells out already, as chat templates do, is not added a second time.
    """
    if not texts:
        return []
    rows = tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]
    begin = tokenizer.bos_token_id
    if begin is None:
        return rows
    twice = [begin, begin]
    return [
        ids[1:] if ids[:2] == twice and not text.startswith(2 * tokenizer.bos_token) else ids
        for text, ids in zip(texts, rows, strict=True)
    ]


def start_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands for an empty prompt: the begin token, else the end token. Raises `UserError` without either."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise UserError("an empty prompt needs a begin or end token, and the tokenizer has neither")


def context_length(model: PreTrainedModel) -> float:
    """Most tokens that the model takes; infinite for recurrent models, whose configuration names none."""
    return getattr(model.config, "max_position_embeddings", None) or math.inf


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
) -> list[tuple[list[int], list[list[int]]]]:
    """Ids of each prompt, and of what follows them in each `prompt + continuation`.

    As in lm-eval the whole is encoded at once, and white space at a prompt's end goes to the continuation, where most
    tokenizers want it. An empty prompt becomes the begin token (or the end token).
    Raises `UserError` on an empty continuation, and where one token spans the end of the prompt and the continuation:
    then the prompt is no prefix of the whole, and there is nothing to condition on.
    """
    stripped = [prompt.rstrip() for prompt in prompts]
    tails = [
        [prompt[len(text) :] + continuation for continuation in several]
        for prompt, text, several in zip(prompts, stripped, continuations, strict=True)
    ]
    both = list(zip(stripped, tails, strict=True))
    heads = _ids(tokenizer, (text for text in stripped if text))
    wholes = _ids(tokenizer, (text + tail for text, several in both if text for tail in several))
    alone = _ids(tokenizer, (tail for text, several in both if not text for tail in several), special=False)
    pairs = []
    for number, (text, several) in enumerate(both):
        prompt = heads[text] if text else [start_token(tokenizer)]
        rests = []
        for place, tail in enumerate(several):
            where = f"prompt {number}, continuation {place}"
            ids = wholes[text + tail] if text else prompt + alone[tail]
            if ids[: len(prompt)] != prompt or not prompt:
                raise UserError(f"{where}: a token spans {text[-10:]!r} and {tail[:10]!r}; part them by a space")
            if not continuations[number][place] or len(ids) == len(prompt):
                raise UserError(f"{where}: the continuation is empty")
            rests.append(ids[len(prompt) :])
        pairs.append((prompt, rests))
    return pairs


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], special: bool = True) -> dict[str, list[int]]:
    unique = list(dict.fromkeys(texts))
    return dict(zip(unique, encode(tokenizer, unique, special), strict=True))
