"""Loss of a language model on windows of text."""

import torch

from common.training import language_loss


@torch.no_grad()
def mean_loss(model: torch.nn.Module, ids: torch.Tensor, batch_size: int = 16) -> float:
    """Mean next-token cross-entropy, nats per predicted token, of windows `ids (windows, length)`.

    Its exponential is the perplexity. The batch size changes speed and memory, not the value; small batches keep the
    logits of a small model in the processor's cache.
    """
    model.eval()
    device = next(model.parameters()).device
    parts = ids.split(batch_size)
    total = sum(language_loss(model, {"input_ids": part.to(device)}).item() * len(part) for part in parts)
    return total / len(ids)
