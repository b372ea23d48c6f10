"""How far a model has gone from its reference: Kullback-Leibler divergence and shifted tokens, on its own replies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.scoring.tokens import encode

MARGINAL = 3  # the highest rank of a token that is marginally shifted


class Tokens(NamedTuple):
    """Of every token that a model wrote, all replies in order."""

    reply: np.ndarray  # number of the reply that it belongs to
    kl: np.ndarray  # nats: of the model's next-token distribution from the reference's
    rank: np.ndarray  # the token's under the reference; 1 is the likeliest


@torch.no_grad()
def written_tokens(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    replies: Sequence[str],
    limit: int,
    batch_size: int = 64,
) -> Tokens:
    """What the model and its reference say of each token of the replies that the model wrote to the prompts.

    Replies are encoded anew, which gives the tokens that were written but for a few samples. The end token counts
    where a reply has fewer than `limit` tokens, the most it could have. Both models are left in evaluation mode.
    Raises `UserError` where there is no reply, `RuntimeError` where logits are not finite.
    """
    if not replies or len(prompts) != len(replies):
        raise UserError(f"{len(prompts)} prompts and {len(replies)} replies: give each prompt one")
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    heads = encode(tokenizer, tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    tails = [
        ids[:limit] if len(ids) >= limit else [*ids, tokenizer.eos_token_id]
        for ids in encode(tokenizer, replies, special=False)
    ]
    order = sorted(range(len(heads)), key=lambda number: len(heads[number]) + len(tails[number]))
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        rows = [heads[number] + tails[number] for number in numbers]
        width = max(map(len, rows))
        # Padding is on the right, where no position that counts can see it.
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
        at = [(n, place - 1) for n, number in enumerate(numbers) for place in range(len(heads[number]), len(rows[n]))]
        where = tuple(torch.tensor(at, device=model.device).T)
        own, other = (_log_probs(one, ids, where) for one in (model, reference))
        targets = ids[where[0], where[1] + 1]
        kl = (own.exp() * (own - other)).double().sum(-1)
        rank = 1 + (other > other.gather(1, targets[:, None])).sum(-1)
        ends = np.cumsum([len(tails[number]) for number in numbers])[:-1]
        parts = zip(np.split(kl.cpu().numpy(), ends), np.split(rank.cpu().numpy(), ends), strict=True)
        found |= dict(zip(numbers, parts, strict=True))
    kls, ranks = zip(*(found[number] for number in range(len(heads))), strict=True)
    owners = np.repeat(np.arange(len(kls)), [len(part) for part in kls])
    return Tokens(owners, np.concatenate(kls), np.concatenate(ranks))


def kl_of_replies(tokens: Tokens) -> tuple[float, float]:
    """KL(model ‖ reference) in nats, of a whole reply and per token, from replies *sampled* from the model untouched.

    Of each position the divergence of the two next-token distributions is computed exactly; their sum over a sampled
    reply, averaged over replies, is unbiased, never negative and of less variance than the usual mean of log-ratios
    (Rao and Blackwell; Amini et al. 2025, arXiv 2504.10637). A reply is what is written within the limit. Per token:
    the sum over all replies by the number of their tokens.
    """
    replies = tokens.reply.max() + 1
    return float(tokens.kl.sum() / replies), float(tokens.kl.mean())


def rank_shift(tokens: Tokens) -> dict[str, float]:
    """Shares of tokens that are unshifted, marginal and shifted, from the model's *likeliest* replies.

    By the token's rank under the reference: 1, 2 to 3, or more (URIAL: Lin et al. 2023, arXiv 2312.01552).
    """
    rank = tokens.rank
    shares = {"unshifted": rank == 1, "marginal": (rank > 1) & (rank <= MARGINAL), "shifted": rank > MARGINAL}
    return {name: float(share.mean()) for name, share in shares.items()}


def _log_probs(model: PreTrainedModel, ids: torch.Tensor, where: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Log-probabilities `(places, vocab)`, at places of `ids (rows, length)`."""
    model.eval()
    logs = model(input_ids=ids, use_cache=False).logits[where].float().log_softmax(-1)
    if not logs.isfinite().all():
        raise RuntimeError(f"logits of {type(model).__name__} are not finite on replies")
    return logs
