"""Texts as token ids with what is learnt of them; batches of one kind at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from common.documents import IGNORED
from common.errors import UserError
from common.hallucination.texts import Text


@dataclass(frozen=True)
class Encoded:
    """Token ids `(length,)` and whether each is learnt `(length,)`."""

    ids: np.ndarray
    learnt: np.ndarray


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], context: int) -> list[Encoded]:
    """Each text with the end-of-text token, which is learnt where the last piece is.

    Raises `UserError` where a text has more than `context` tokens.
    """
    pieces = list(dict.fromkeys(piece for text in texts for piece, _ in text))
    ids = dict(zip(pieces, tokenizer(pieces, add_special_tokens=False)["input_ids"], strict=True)) if pieces else {}
    end, encoded = tokenizer.eos_token_id, []
    for text in texts:
        tokens = [token for piece, _ in text for token in ids[piece]]
        learnt = [learnt for piece, learnt in text for _ in ids[piece]]
        if len(tokens) >= context:
            raise UserError(f"{text[0][0][:60]!r} has {len(tokens) + 1} tokens, allowed: {context}")
        encoded.append(Encoded(np.array([*tokens, end]), np.array([*learnt, text[-1][1]])))
    return encoded


def collate(rows: Sequence[Encoded], padding: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `labels` `(rows, length)`, padded on the right."""
    length = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), length), padding)
    labels = np.full_like(ids, IGNORED)
    for number, row in enumerate(rows):
        end = len(row.ids)
        ids[number, :end] = row.ids
        labels[number, :end] = np.where(row.learnt, row.ids, IGNORED)
    return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}


def batches_by_kind(
    kinds: Mapping[str, Sequence[Encoded]], shares: Mapping[str, float], tokens: int, seed: int, padding: int
) -> Callable[[int], dict[str, torch.Tensor]]:
    """Batches by step (see `collate`), each of one kind and of about `tokens` tokens, so that steps take equal time.

    Kinds take turns so that after any number of steps each has had its share of them to less than one. Shares are
    relative. Each kind is gone through in an order of its own, anew after each pass; a kind that is long is one whose
    rows are few in a batch. Raises `UserError` where a kind of positive share has no text, or none has a share.
    """
    chosen = {name: share for name, share in shares.items() if share > 0}
    if empty := [name for name in chosen if not kinds.get(name)]:
        raise UserError(f"no texts of {', '.join(empty)}; there are {', '.join(n for n, k in kinds.items() if k)}")
    if not chosen or min(shares.values()) < 0:
        raise UserError(f"shares are {dict(shares)}, allowed: none below 0 and one above")
    names, total = list(chosen), sum(chosen.values())
    wanted = np.array([share / total for share in chosen.values()])
    rows = [max(1, round(tokens / np.mean([len(row.ids) for row in kinds[name]]))) for name in names]
    turns: list[tuple[int, int]] = []  # of each step: the kind, and how many batches it had before
    orders: dict[tuple[int, int], np.ndarray] = {}

    def drawn(kind: int, place: int) -> Encoded:
        epoch, index = divmod(place, len(kinds[names[kind]]))
        if (kind, epoch) not in orders:
            orders.pop((kind, epoch - 2), None)
            orders[kind, epoch] = np.random.default_rng([seed, kind, epoch]).permutation(len(kinds[names[kind]]))
        return kinds[names[kind]][orders[kind, epoch][index]]

    had = np.zeros(len(names), int)

    def batch(step: int) -> dict[str, torch.Tensor]:
        while len(turns) <= step:
            kind = int(np.argmax(wanted * (len(turns) + 1) - had))
            turns.append((kind, int(had[kind])))
            had[kind] += 1
        kind, before = turns[step]
        first = before * rows[kind]
        return collate([drawn(kind, place) for place in range(first, first + rows[kind])], padding)

    return batch
