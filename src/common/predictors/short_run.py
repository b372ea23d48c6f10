"""The honest rival of every predictor: a training run of the same cost."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from common.predictors.continuations import Loss
from common.training import Batch, Plan, train


def short_run(
    model: nn.Module,
    loss: Loss,
    batch: Callable[[int], Batch],
    evaluate: Callable[[nn.Module], float],
    *,
    steps: int,
    learning_rate: float,
    warmup: int = 0,
) -> float:
    """−`evaluate`(a copy of the model trained on for `steps` steps): the larger, the better the promise.

    Adam, the learning rate going down as a cosine to zero. Successive halving chooses candidates in this way (Jamieson
    and Talwalkar 2016, arXiv 1502.07943). Steps of a predictor that trains K times for T steps are K · T.
    """
    copied = copy.deepcopy(model)
    plan = Plan(steps, learning_rate, warmup, clip=float("inf"), final_share=0.0, log_every=steps)
    optimizer = torch.optim.Adam(copied.parameters(), lr=learning_rate, fused=True)
    train(copied, loss, batch, plan, optimizer=optimizer, setting="a short run")
    with torch.no_grad():
        return -evaluate(copied.eval())
