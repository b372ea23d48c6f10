"""Examples as rows of tensors, and the log-probabilities of their completions.

A model of plain attention takes an example in one row: the prompt once, then its completions, each of which sees the
prompt and itself alone, by a mask of four dimensions and positions that restart after the prompt. Other models take
each completion in a row of its own. Logits are computed only where a token of a completion is predicted: with a large
vocabulary they are most of a small model's work.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.documents import BLOCK, Document, mixed_batches
from common.errors import UserError
from common.preference.examples import Example
from common.scoring.passes import way_of_sharing

Tensors = dict[str, Tensor]


def shares_prompts(model: PreTrainedModel, examples: Sequence[Example]) -> bool:
    """Whether the completions of an example can stand in one row: not where a row is longer than a sliding window."""
    window = getattr(model.config, "sliding_window", None) or math.inf
    return way_of_sharing(model) == "mask" and max(map(_length, examples)) <= window


def collate_examples(examples: Sequence[Example], shared: bool) -> Tensors:
    """Rows of examples that have equally many completions, padded on the right.

    `input_ids`, `position_ids` and `branches (rows, length)`: a position belongs to the prompt (0), to a completion
    (from 1) or is padding (-1). `kept (positions,)` are those, counted through all rows, at which a token of a
    completion is predicted. Of each such token, all completions of the first example first: `predicted_at (tokens,)`,
    its place among the kept positions, `targets (tokens,)`, its id, and `owners (tokens,)`, its completion, counted
    from 0.
    `tokens (examples, completions)` are their lengths.
    """
    rows = [
        group
        for example in examples
        for group in ([example] if shared else [Example(example.prompt, (ids,)) for ids in example.completions])
    ]
    width = max(map(_length, rows))
    shape = (len(rows), width)
    ids, places, branches = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -1)
    kept = np.zeros(shape, bool)
    predicted_at: list[int] = []
    known = 0
    for row, example in enumerate(rows):
        start = end = len(example.prompt)
        ids[row, :start], places[row, :start], branches[row, :start] = example.prompt, range(start), 0
        last, known = known, known + 1  # the prompt's last token predicts the first of every completion
        for number, completion in enumerate(example.completions, start=1):
            more = len(completion) - 1  # nothing follows a completion's last token
            here = slice(end, end + more)
            ids[row, here], branches[row, here] = completion[:-1], number
            places[row, here] = range(start, start + more)
            predicted_at += [last, *range(known, known + more)]
            known, end = known + more, end + more
        kept[row, start - 1 : end] = True
    completions = [ids for row in rows for ids in row.completions]
    lengths = [len(ids) for ids in completions]
    arrays = {
        "input_ids": ids,
        "position_ids": places,
        "branches": branches,
        "kept": np.flatnonzero(kept),
        "predicted_at": np.array(predicted_at),
        "targets": np.concatenate([np.array(ids) for ids in completions]),
        "owners": np.repeat(np.arange(len(completions)), lengths),
        "tokens": np.array(lengths).reshape(len(examples), -1),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def completion_log_probs(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    """Log-probability of each completion, summed over its tokens in float32, `(examples, completions)`."""
    inputs = {"input_ids": batch["input_ids"], "use_cache": False}
    if batch["input_ids"].shape[0] < batch["tokens"].numel():  # several completions in a row
        inputs["position_ids"] = batch["position_ids"]
        inputs["attention_mask"] = _mask(batch["branches"], model)
    # Padding is on the right, where no position that counts can see it: alone a completion needs no mask.
    # The head is given the kept positions alone. In a mask, as transformers takes them, they would first be counted,
    # for which the host waits for a GPU.
    head = model.get_output_embeddings()
    with head.register_forward_pre_hook(lambda _, given: given[0].flatten(0, 1).index_select(0, batch["kept"])):
        logits = model(**inputs).logits
    logs = logits.float().log_softmax(-1)[batch["predicted_at"], batch["targets"]]
    return logs.new_zeros(batch["tokens"].numel()).index_add(0, batch["owners"], logs).view(batch["tokens"].shape)


def example_batches(
    examples: Sequence[Example],
    batch_size: int,
    seed: int,
    *,
    shared: bool,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Callable[[int], Tensors]:
    """Batches by step (see `collate_examples`), each of examples of like length; every pass has an order of its own.

    `arrays (examples, …)` hold more about the examples; a batch has the rows of its own.
    """
    lengths = np.array([_length(example) for example in examples])
    if len(examples) < BLOCK * batch_size:
        # Rows are sorted a block at a time. Where a block has an example several times, its copies would fill a batch:
        # lengths are told apart only so far that each has several batches of examples.
        apart = max(1, len(examples) // (4 * batch_size))
        lengths[np.argsort(lengths, kind="stable")] = 1 + np.arange(len(examples)) * apart // len(examples)
    # Stand-ins, as long as their example and filled with its number: which rows make a batch is decided in one place.
    numbered = [Document(np.broadcast_to(np.int64(number), length)) for number, length in enumerate(lengths)]
    numbers = mixed_batches({"examples": numbered}, {"examples": 1.0}, batch_size, seed, padding=0)

    def batch(step: int) -> Tensors:
        chosen = numbers(step)["input_ids"][:, 0].numpy()
        more = {name: torch.from_numpy(array[chosen]) for name, array in (arrays or {}).items()}
        return collate_examples([examples[number] for number in chosen], shared) | more

    return batch


def leading(examples: Sequence[Example], completions: int) -> list[Example]:
    """The examples with their first so many completions; `UserError` where one has fewer."""
    for number, example in enumerate(examples):
        if len(example.completions) < completions:
            raise UserError(f"example {number} has {len(example.completions)} completions, needed: {completions}")
    return [Example(example.prompt, example.completions[:completions]) for example in examples]


def _length(example: Example) -> int:
    """Tokens of an example that go through the model when its completions stand in one row."""
    return len(example.prompt) + sum(len(ids) - 1 for ids in example.completions)


def _mask(branches: Tensor, model: PreTrainedModel) -> Tensor:
    """Who sees whom, `(rows, 1, length, length)`: a position the prompt, and its own completion so far."""
    seen = ((branches[:, :, None] == branches[:, None, :]) | (branches[:, None, :] == 0)).tril()[:, None]
    if model.config._attn_implementation == "sdpa":
        return seen
    return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)
