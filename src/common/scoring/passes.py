"""Log-likelihoods of token sequences that share a prefix, the prefix computed once.

Attention takes all continuations of a prompt in one row: each token sees the prompt and its own continuation alone, by
a mask of four dimensions, and positions restart after the prompt. Mamba-2 takes the prompt's state and goes on from it
with every continuation. Other models take one sequence a row, padded on the right, which a causal model cannot see.
Of the recurrent models of transformers 5.23 only Mamba-2 goes on from a state by several tokens: Mamba-1 gives wrong
logits there, as does FalconMamba, and RecurrentGemma forgets the last inputs of its convolution.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.errors import UserError

SPARE = 64
"""Tokens by which a row's continuations may exceed its prompt: the cost of attention grows with the square of both."""

Group = tuple[Sequence[int], Sequence[Sequence[int]]]
"""Ids of a prompt, and those of each of its continuations."""


@dataclass
class Row:
    """A prompt and those of its continuations that are computed together, with their places in the result."""

    prompt: Sequence[int]
    continuations: list[Sequence[int]]
    places: list[int]

    @property
    def length(self) -> int:
        """Tokens that go through the model: nothing follows a continuation's last."""
        return len(self.prompt) + sum(len(ids) - 1 for ids in self.continuations)


@torch.no_grad()
def log_likelihoods(model: PreTrainedModel, groups: Sequence[Group], batch_size: int) -> Tensor:
    """Summed log-likelihood of each continuation after its prompt, in nats; float64 `(continuations,)` on the CPU.

    No prompt or continuation is empty; the result has all continuations in order. At most `batch_size` of them go
    through the model at once: this moves results by rounding only.
    Raises `UserError` on a `batch_size` below 1, and `RuntimeError` where a result is NaN or infinite, as any logit
    that is NaN or +inf makes it.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}, allowed: 1 or more")
    model.eval()
    way = way_of_sharing(model)
    window = getattr(model.config, "sliding_window", None) or math.inf
    rows = list(_rows(groups, 1 if way == "alone" else batch_size, window))

    def kind(row: Row) -> tuple[int, bool]:
        # Nothing can be padded before a state is taken, and a mask of ours would undo a sliding window.
        return len(row.prompt) if way == "state" else 0, row.length > window

    # Equal lengths together; the longest first, so that memory runs out at once or never.
    rows.sort(key=lambda row: (*kind(row), row.length), reverse=True)
    total = torch.zeros(sum(len(row.places) for row in rows), dtype=torch.float64)
    for _, alike in groupby(rows, kind):
        for batch in _batches(alike, batch_size):
            logits, positions = _from_state(model, batch) if way == "state" else _packed(model, batch)
            total[[place for row in batch for place in row.places]] = _summed(logits, positions, batch)
    if not total.isfinite().all():
        place = int((~total.isfinite()).nonzero()[0])
        raise RuntimeError(
            f"the log-likelihood of sequence {place} is {total[place].item()}: the logits are not finite"
        )
    return total


def way_of_sharing(model: PreTrainedModel) -> Literal["mask", "state", "alone"]:
    """How the model shares a prompt among its continuations, if it can."""
    config = model.config
    if config.model_type == "mamba2":
        return "state"
    attention = model._supports_attention_backend and not model._is_stateful
    layers = set(getattr(config, "layer_types", None) or ())
    masks = config._attn_implementation in ("sdpa", "eager")  # those that take a mask of four dimensions
    return "mask" if attention and masks and layers <= {"full_attention", "sliding_attention"} else "alone"


def _rows(groups: Sequence[Group], most: int, window: float) -> Iterator[Row]:
    """Rows of at most `most` continuations; one of several is no longer than a sliding window."""
    places = count()
    for prompt, continuations in groups:
        limit = min(window, 2 * len(prompt) + SPARE)
        row = Row(prompt, [], [])
        for ids in continuations:
            if row.places and (len(row.places) == most or row.length + len(ids) - 1 > limit):
                yield row
                row = Row(prompt, [], [])
            row.continuations.append(ids)
            row.places.append(next(places))
        yield row


def _batches(rows: Iterable[Row], batch_size: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        if batch and sum(len(other.places) for other in batch) + len(row.places) > batch_size:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _summed(logits: Tensor, positions: Sequence[int], batch: Sequence[Row]) -> Tensor:
    """Sums over each continuation's tokens; float64 `(continuations,)` on the CPU."""
    continuations = [ids for row in batch for ids in row.continuations]
    targets = torch.tensor([token for ids in continuations for token in ids], device=logits.device)
    logs = logits.float().log_softmax(-1)[torch.tensor(positions, device=logits.device), targets].cpu().double()
    owners = torch.arange(len(continuations)).repeat_interleave(torch.tensor([len(ids) for ids in continuations]))
    return torch.zeros(len(continuations), dtype=torch.float64).index_add_(0, owners, logs)


def _packed(model: PreTrainedModel, batch: Sequence[Row]) -> tuple[Tensor, list[int]]:
    """Logits `(positions, vocab)`, and the one of them that predicts each token of the continuations in order."""
    width = max(row.length for row in batch)
    ids, places, branches, kept, positions = [], [], [], [], []
    known = 0  # logits of the rows before
    for row in batch:
        start, padding = len(row.prompt), width - row.length
        tokens, place, branch = list(row.prompt), list(range(start)), [0] * start
        last, known = known, known + 1
        for number, continuation in enumerate(row.continuations, start=1):
            more = len(continuation) - 1
            tokens += continuation[:-1]
            place += range(start, start + more)
            branch += [number] * more
            positions += [last, *range(known, known + more)]
            known += more
        ids.append(tokens + [0] * padding)
        places.append(place + [0] * padding)
        branches.append(branch + [-1] * padding)
        kept.append([False] * (start - 1) + [True] * (row.length - start + 1) + [False] * padding)
    inputs = {"input_ids": ids, "logits_to_keep": kept}
    if any(len(row.places) > 1 for row in batch):
        inputs["position_ids"] = places
    tensors = {name: torch.tensor(value, device=model.device) for name, value in inputs.items()}
    if "position_ids" in tensors:
        tensors["attention_mask"] = _mask(torch.tensor(branches, device=model.device), model)
    return model(**tensors, use_cache=False).logits, positions


def _mask(branches: Tensor, model: PreTrainedModel) -> Tensor:
    """Who sees whom, `(batch, 1, length, length)`: a token the prompt, which is branch 0, and its own branch so far."""
    seen = (branches[:, :, None] == branches[:, None, :]) | (branches[:, None, :] == 0)
    seen = seen.tril()[:, None]
    if model.config._attn_implementation == "sdpa":
        return seen
    return torch.zeros_like(seen, dtype=model.dtype).masked_fill_(~seen, torch.finfo(model.dtype).min)


def _from_state(model: PreTrainedModel, batch: Sequence[Row]) -> tuple[Tensor, list[int]]:
    """As `_packed`, with the logits after the prompts first."""
    prompts = torch.tensor([list(row.prompt) for row in batch], device=model.device)
    output = model(input_ids=prompts, use_cache=True, logits_to_keep=1)
    logits, known = output.logits[:, -1], len(batch)
    positions, owners, read = [], [], []
    for number, row in enumerate(batch):
        for continuation in row.continuations:
            more = len(continuation) - 1
            positions += [number, *range(known, known + more)]
            known += more
            if more:
                owners.append(number)
                read.append(list(continuation[:-1]))
    if not read:
        return logits, positions
    width = max(map(len, read))
    ids = torch.tensor([tokens + [0] * (width - len(tokens)) for tokens in read], device=model.device)
    kept = torch.tensor([[place < len(tokens) for place in range(width)] for tokens in read], device=model.device)
    cache = output.cache_params
    cache.reorder_cache(torch.tensor(owners, device=model.device))
    rest = model(input_ids=ids, cache_params=cache, use_cache=True, logits_to_keep=kept)
    return torch.cat([logits, rest.logits]), positions
