"""Texts that a model writes after prompts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from common.errors import UserError
from common.scoring.passes import way_of_sharing
from common.scoring.tokens import context_length, encode, start_token


@dataclass(frozen=True)
class Decoding:
    """How tokens are picked: the likeliest at `temperature` 0, else a sample from the nucleus of mass `top_p`.

    Nucleus sampling: Holtzman et al. 2020, arXiv 1904.09751. A text ends with the model's end token, or after
    `max_new_tokens`.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}, allowed: 1 or more")
        if not 0 <= self.temperature < math.inf:
            raise UserError(f"temperature is {self.temperature}, allowed: 0 (the likeliest token) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}, allowed: above 0, up to 1")
        if self.temperature == 0 and self.top_p != 1:
            raise UserError(f"top_p is {self.top_p} at temperature 0, where it does nothing: allowed is 1")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}, allowed: 0 or more")


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    decoding: Decoding,
    batch_size: int = 32,
) -> list[str]:
    """What the model writes after each prompt, in order, without special tokens.

    The batch size moves logits by rounding only; a sample is drawn by random numbers of its own, from the seed and the
    prompt's place in the list, so it moves samples no more than that. Nothing but `decoding` decides: settings that a
    model brings along (`generation_config.json`) don't, save its end tokens. The model is left in evaluation mode.

    Raises `UserError` where there is no prompt and where prompt and new tokens exceed the model's context,
    `RuntimeError` where logits are NaN or infinite.
    """
    if batch_size < 1 or not prompts:
        raise UserError(f"{len(prompts)} prompts in batches of {batch_size}, allowed: 1 or more of both")
    rows = [ids or [start_token(tokenizer)] for ids in encode(tokenizer, prompts)]
    longest = context_length(model)
    for number, ids in enumerate(rows):
        if len(ids) + decoding.max_new_tokens > longest:
            wanted = f"{len(ids)} + {decoding.max_new_tokens} tokens"
            raise UserError(f"prompt {number}: {wanted}, more than the model's context {longest}")
    model.eval()
    texts: dict[int, str] = {}
    for numbers in _batches(rows, batch_size, equal=way_of_sharing(model) != "mask"):
        written = _written(model, [rows[number] for number in numbers], numbers, decoding, _ends(model, tokenizer))
        texts |= zip(numbers, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True)
    return [texts[number] for number in range(len(prompts))]


def _batches(rows: Sequence[Sequence[int]], batch_size: int, equal: bool) -> Iterator[list[int]]:
    """Numbers of prompts of similar length; of equal length where a model has no mask that hides padding from it."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for _, bucket in groupby(order, key=lambda number: len(rows[number]) if equal else 0):
        numbers = list(bucket)
        yield from (numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size))


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


@torch.no_grad()
def _written(
    model: PreTrainedModel, rows: list[list[int]], numbers: list[int], decoding: Decoding, ends: list[int]
) -> list[list[int]]:
    width = max(map(len, rows))
    padding = [width - len(ids) for ids in rows]
    ids = torch.tensor([[0] * pad + row for pad, row in zip(padding, rows, strict=True)], device=model.device)
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding], device=model.device)
    own = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,  # `_Picked` leaves one token to take
        eos_token_id=ends or None,
        pad_token_id=0,  # behind a text's end, where nothing reads it; of an end token a model may have no embedding
        use_cache=_has_cache(model),
    )
    if model.config.model_type == "recurrent_gemma":
        # Its layers keep the states of the batch before, which a prompt of one token would go on from.
        model(input_ids=ids[:, :1], use_cache=False)
    # `generate` would fill what is not set here from the model's own settings.
    before, model.generation_config = model.generation_config, own
    try:
        picked = LogitsProcessorList([_Picked(decoding, numbers)])
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=own, logits_processor=picked)
    finally:
        model.generation_config = before
    new = output[:, width:].tolist()
    return [row[: next((place for place, token in enumerate(row) if token in ends), len(row))] for row in new]


def _has_cache(model: PreTrainedModel) -> bool:
    """RecurrentGemma finds its place in a text by its attention layers' cache: without such layers it has none."""
    config = model.config
    return config.model_type != "recurrent_gemma" or "sliding_attention" in config.layer_types


class _Picked(LogitsProcessor):
    """Leaves a single token to greedy search: the likeliest, or one sampled by the prompt's own random numbers."""

    def __init__(self, decoding: Decoding, numbers: Sequence[int]) -> None:
        self.temperature = decoding.temperature
        self.warpers = [TopPLogitsWarper(decoding.top_p)] if decoding.top_p < 1 else []
        if decoding.temperature:
            self.warpers.insert(0, TemperatureLogitsWarper(decoding.temperature))
        self.randoms = [np.random.default_rng([decoding.seed, number]) for number in numbers]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float()
        if not scores.logsumexp(-1).isfinite().all():
            raise RuntimeError(f"logits after {input_ids.shape[1]} tokens are not finite")
        if not self.temperature:
            return scores
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        # The inverse of the cumulative distribution at one uniform number for each prompt.
        cumulative = scores.double().softmax(-1).cumsum(-1)
        uniform = torch.tensor([[random.random()] for random in self.randoms], device=scores.device)
        token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        return torch.full_like(scores, -math.inf).scatter_(1, token, 0.0)
