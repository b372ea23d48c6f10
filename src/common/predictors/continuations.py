"""Short training runs from one point, and what they tell of the minima around it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.connectivity import canonical, connected, evenly, flatten, heights, losses_of, matrix_of, pairs
from common.predictors.manifold import simplex_size, volume_per_function
from common.training import Batch, Plan, train

Loss = Callable[[nn.Module, Batch], Tensor]
POINTS = 5
"""Places on the line between two minima at which the loss is taken, both ends included."""


@dataclass(frozen=True)
class Walk:
    """How minima are looked for: `count` continuations of `steps` Adam steps, the learning rate going down as a cosine.

    A rate well above the one for training on makes the continuations part within few steps.
    """

    count: int = 4
    steps: int = 60
    learning_rate: float = 3e-2
    warmup: int = 0  # steps; without it a fresh Adam throws a wide language model far from where it stood
    tolerance: float = 0.02  # of a barrier, in the unit of the loss


@dataclass(frozen=True)
class Manifold:
    """The minima around a network: two sizes of their manifold, and what they come from.

    `m` and `m_c` as in `common.predictors.manifold`, of all continuations; `loss`, the mean training loss on the
    lines between them, and `level`, its part −ln L̄ of M; `barrier`, the largest between two of them; `connected`, the
    share of them that lies within the tolerance of each other.
    """

    m: float
    m_c: float
    loss: float
    level: float
    barrier: float
    connected: float


def continuations(
    model: nn.Module, loss: Loss, batches: Callable[[int], Callable[[int], Batch]], walk: Walk
) -> list[nn.Module]:
    """`walk.count` copies of the model, trained on from it; `batches(k)` gives the k-th one's batch of each step."""
    ends = []
    for number in range(walk.count):
        end = copy.deepcopy(model)
        plan = Plan(
            walk.steps, walk.learning_rate, walk.warmup, clip=float("inf"), final_share=0.0, log_every=walk.steps
        )
        optimizer = torch.optim.Adam(end.parameters(), lr=walk.learning_rate, fused=True)
        train(end, loss, batches(number), plan, optimizer=optimizer, setting=f"continuation {number}")
        ends.append(end.eval())
    return ends


def measure(
    model: nn.Module,
    loss: Loss,
    batches: Callable[[int], Callable[[int], Batch]],
    judged: Batch,
    outputs: Callable[[nn.Module], Tensor],
    walk: Walk,
) -> Manifold:
    """The manifold of minima around `model`, found by continuations of its canonical form; see `sized`.

    From the canonical form (`common.connectivity.canonical`), so that rescalings which leave the model's function as it
    is do not change the result.
    """
    start = canonical(model)
    return sized(start, continuations(start, loss, batches, walk), loss, judged, outputs, walk.tolerance)


def sized(
    start: nn.Module,
    ends: Sequence[nn.Module],
    loss: Loss,
    judged: Batch,
    outputs: Callable[[nn.Module], Tensor],
    tolerance: float,
) -> Manifold:
    """The manifold whose minima are `ends`, found from `start`.

    `judged` is a batch of training data on which losses and barriers are taken; `outputs(model)` gives logits `(probes,
    classes)` on probes of the training data.
    """
    here, minima = flatten(start), torch.stack([flatten(end) for end in ends])
    losses = losses_of(start, loss, judged)
    with torch.no_grad():
        functions = torch.stack([outputs(end) for end in ends])
    first, second = pairs(len(ends))
    lines = evenly(losses, minima[first], minima[second], POINTS)
    matrix = matrix_of(heights(lines), len(ends))
    return Manifold(
        m=volume_per_function(here, minima, functions, lines),
        m_c=simplex_size(here, minima),
        loss=lines.mean().item(),
        level=-lines.mean().log().item(),
        barrier=matrix.max().item(),
        connected=len(connected(matrix, tolerance)) / len(ends),
    )
