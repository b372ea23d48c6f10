"""Training batches and held-out windows from a stream of token ids."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from common.errors import UserError


def windows(stream: Path, context: int) -> np.ndarray:
    """The stream cut into `(windows, context)` token ids, mapped from disk; a rest at its end is left out."""
    ids = np.load(stream, mmap_mode="r", allow_pickle=False)
    count = len(ids) // context
    if count == 0:
        raise UserError(f"{stream.name} has {len(ids)} tokens, fewer than one context of {context}")
    return ids[: count * context].reshape(count, context)


def shuffled_batches(
    stream: Path, context: int, batch_size: int, seed: int
) -> Callable[[int], dict[str, torch.Tensor]]:
    """Batches `input_ids (batch_size, context)` by step; each epoch passes over all windows in a new order."""
    rows = windows(stream, context)
    per_epoch = len(rows) // batch_size
    if per_epoch == 0:
        raise UserError(f"{stream.name} has {len(rows)} windows of {context}, fewer than one batch of {batch_size}")

    order: dict[int, np.ndarray] = {}

    def batch(step: int) -> dict[str, torch.Tensor]:
        epoch, place = divmod(step, per_epoch)
        if epoch not in order:
            order.clear()
            order[epoch] = np.random.default_rng([seed, epoch]).permutation(len(rows))
        chosen = order[epoch][place * batch_size : (place + 1) * batch_size]
        return {"input_ids": torch.from_numpy(rows[chosen].astype(np.int64))}

    return batch


def evenly_spaced(stream: Path, context: int, count: int) -> torch.Tensor:
    """`count` windows `(count, context)` spread over the whole stream: the same for every run."""
    rows = windows(stream, context)
    if len(rows) < count:
        raise UserError(f"{stream.name} has {len(rows)} windows of {context}, fewer than the {count} asked for")
    chosen = np.linspace(0, len(rows) - 1, count).round().astype(np.int64)
    return torch.from_numpy(rows[chosen].astype(np.int64))
