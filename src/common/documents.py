"""Short documents, one a row: batches of rows of like length, mixed from several kinds by shares.

Rows that are packed into windows begin and end in the middle of each other; small models learn facts several times as
fast from whole ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from common.errors import UserError

IGNORED = -100  # label of a position that no loss is taken of
BLOCK = 32  # batches whose rows are drawn together, sorted by length and cut: little is padded, and shares hold


@dataclass(frozen=True)
class Document:
    """Token ids `(length,)`, of which those before `start` are context only: nothing is learnt from predicting them."""

    ids: np.ndarray
    start: int = 1


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str] | Iterable[tuple[str, str]], context: int
) -> list[Document]:
    """Each text, or each pair of prompt and completion, as a document that ends with the end-of-text token.

    Of a pair only the completion is learnt. A text longer than `context` tokens becomes several documents; a pair
    raises `UserError`.
    """
    parts = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    # All at once: a call of the tokenizer for each text takes ten times as long.
    flat = tokenizer([part for pair in parts for part in pair], add_special_tokens=False)["input_ids"] if parts else []
    encoded = iter(flat)
    documents = []
    for pair in parts:
        ids = [next(encoded) for _ in pair]
        whole = np.array([*(i for part in ids for i in part), tokenizer.eos_token_id], np.int64)
        if len(pair) == 1:
            # A piece of one token has nothing to be predicted from: the last begins a token early.
            starts = [min(start, len(whole) - 2) for start in range(0, len(whole), context)]
            documents += [Document(whole[start : start + context]) for start in starts]
        elif len(whole) > context:
            raise UserError(f"{pair[0][:60]!r} and its completion have {len(whole)} tokens, allowed: {context}")
        else:
            documents.append(Document(whole, start=len(ids[0])))
    return documents


def collate(documents: Sequence[Document], padding: int) -> dict[str, torch.Tensor]:
    """`input_ids`, `labels` and `attention_mask` `(rows, length)`, padded on the right to the longest document."""
    length = max(len(document.ids) for document in documents)
    ids = np.full((len(documents), length), padding)
    labels, mask = np.full_like(ids, IGNORED), np.zeros_like(ids)
    for row, document in enumerate(documents):
        end = len(document.ids)
        ids[row, :end], mask[row, :end] = document.ids, 1
        labels[row, document.start : end] = document.ids[document.start :]
    return {
        "input_ids": torch.from_numpy(ids),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(mask),
    }


def mixed_batches(
    kinds: Mapping[str, Sequence[Document]], shares: Mapping[str, float], batch_size: int, seed: int, padding: int
) -> Callable[[int], dict[str, torch.Tensor]]:
    """Batches by step (see `collate`) in which each kind has its share of the rows.

    Shares are relative and hold over a block of steps to less than a row. Each kind is gone through in an order of its
    own, anew after each pass. A batch's rows are of like length, and batches come in random order.
    Raises `UserError` where a kind of positive share has no document, or none has a share.
    """
    chosen = {name: share for name, share in shares.items() if share > 0}
    if empty := [name for name in chosen if not kinds.get(name)]:
        raise UserError(f"no documents of {', '.join(empty)}; there are {', '.join(n for n, k in kinds.items() if k)}")
    if not chosen or min(shares.values()) < 0:
        raise UserError(f"shares are {dict(shares)}, allowed: none below 0 and one above")
    total, rows = sum(chosen.values()), BLOCK * batch_size
    ends = np.cumsum([share / total for share in chosen.values()])
    orders: dict[tuple[int, int], np.ndarray] = {}
    block: dict[int, list[Sequence[Document]]] = {}

    def drawn(kind: int, documents: Sequence[Document], place: int) -> Document:
        epoch, index = divmod(place, len(documents))
        if (kind, epoch) not in orders:
            orders.pop((kind, epoch - 2), None)
            orders[kind, epoch] = np.random.default_rng([seed, kind, epoch]).permutation(len(documents))
        return documents[orders[kind, epoch][index]]

    def make(number: int) -> list[Sequence[Document]]:
        # How many rows kinds up to this one had before this block, and after it: rounded once, so none drifts.
        before, after = (np.concatenate([[0], np.round(ends * n * rows).astype(int)]) for n in (number, number + 1))
        found = [
            drawn(kind, kinds[name], place)
            for kind, name in enumerate(chosen)
            for place in range(before[kind + 1] - before[kind], after[kind + 1] - after[kind])
        ]
        order = np.random.default_rng([seed, len(chosen), number])
        found = [found[i] for i in order.permutation(len(found))]  # documents of one length in no order
        found.sort(key=lambda document: len(document.ids))
        cut = [found[i : i + batch_size] for i in range(0, rows, batch_size)]
        return [cut[i] for i in order.permutation(BLOCK)]

    def batch(step: int) -> dict[str, torch.Tensor]:
        number, place = divmod(step, BLOCK)
        if number not in block:
            block.clear()
            block[number] = make(number)
        return collate(block[number][place], padding)

    return batch


def document_loss(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy in nats of the labels that count, `(rows, length)`, each predicted from what is before it."""
    # Padding is on the right, where no position that counts can see it: a mask would cost time and change nothing.
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    following = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), ignore_index=IGNORED)
