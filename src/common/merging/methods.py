"""Merging methods: from tensors of several models, all of one shape, to one tensor of that shape.

Each accumulates in float32 (float64 where a tensor is) and rounds once, to the type of `out`, which takes the result
and is by default a new tensor. What is infinite or not a number in any tensor makes the result so too. Names and
meaning of the parameters are mergekit's; `weight` and `density` are one number for all models or a sequence with one
for each. Each method raises `ValueError` on shapes that differ and on parameters that make no sense.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from common.merging.blocks import blocks, blockwise, promoted

PerModel = float | Sequence[float]

NEARLY_PARALLEL = 0.9995
"""Above this cosine the arc is as good as straight, and dividing by its sine would lose digits."""


def linear(tensors: Sequence[Tensor], weight: PerModel, normalize: bool = True, out: Tensor | None = None) -> Tensor:
    """Weighted mean (Wortsman et al., arXiv 2203.05482); without `normalize` the weighted sum."""
    weights = _each("weight", weight, tensors)
    if normalize:
        weights = _shares(weights)

    def kernel(*floats: Tensor) -> Tensor:
        total = floats[0].mul_(weights[0])
        for value, share in zip(floats[1:], weights[1:], strict=True):
            total.add_(value, alpha=share)
        return total

    return blockwise(kernel, tensors, out)


def task_arithmetic(
    base: Tensor,
    tensors: Sequence[Tensor],
    weight: PerModel,
    normalize: bool = False,
    lambda_: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """base + lambda · Σ weight · (tensor − base) (Ilharco et al., arXiv 2212.04089)."""
    weights = _each("weight", weight, tensors)
    return _add_task_vectors(base, tensors, weights, normalize=normalize, lambda_=lambda_, out=out)


def mergealign(
    base: Tensor, domain: Tensor, aligned: Tensor, a: float, b: float | None = None, out: Tensor | None = None
) -> Tensor:
    """base + a · (domain − base) + b · (aligned − base), b = 1 − a where not given (MergeAlign, arXiv 2411.06824)."""
    return task_arithmetic(base, [domain, aligned], [a, 1 - a if b is None else b], out=out)


def slerp(base: Tensor, other: Tensor, t: float, out: Tensor | None = None) -> Tensor:
    """The point `t` of the way along the arc from base to other (Shoemake 1985), tensors taken as flat vectors.

    Along the straight line where the two are nearly parallel or opposite. As in mergekit a tensor of zeros is
    perpendicular to any other.
    """
    _number("t", t)
    squares = torch.zeros(3, dtype=torch.float64)
    for _, (x, y) in blocks([base, other]):
        squares += torch.stack([x.dot(x), y.dot(y), x.dot(y)]).double().cpu()
    cosine = (squares[2] / (squares[0] * squares[1]).sqrt()).item() if squares[:2].all() else 0.0
    if abs(cosine) > NEARLY_PARALLEL:
        first, second = 1 - t, t
    else:
        angle = math.acos(cosine) if math.isfinite(cosine) else math.nan
        first, second = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    return blockwise(lambda x, y: x.mul_(first).add_(y, alpha=second), [base, other], out)


def ties(
    base: Tensor,
    tensors: Sequence[Tensor],
    weight: PerModel,
    density: PerModel = 1.0,
    normalize: bool = True,
    rescale: bool = False,
    lambda_: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """TIES: trim task vectors, elect a sign for each element, add those that agree (Yadav et al., arXiv 2306.01708).

    Of each tensor − base the share `density` that is largest in magnitude stays; values as large as the smallest of
    these stay with it. The sign is that of the weighted sum. `normalize` divides by the weights of those that agree.
    `rescale` makes up for what was trimmed: the sum of magnitudes is as before.
    """
    weights, densities = _each("weight", weight, tensors), _densities(density, tensors)
    cuts = [_cut(base, tensor, share, rescale) for tensor, share in zip(tensors, densities, strict=True)]

    def trimmed(delta: Tensor, model: int, scratch: Tensor) -> None:
        threshold, factor = cuts[model]
        delta.mul_(torch.abs(delta, out=scratch).ge_(threshold))
        if factor != 1:
            delta.mul_(factor)

    settings = {"normalize": normalize, "lambda_": lambda_, "out": out}
    return _add_task_vectors(base, tensors, weights, sparsify=trimmed, elect=True, **settings)


def dare_linear(
    base: Tensor,
    tensors: Sequence[Tensor],
    weight: PerModel,
    density: PerModel = 1.0,
    normalize: bool = False,
    rescale: bool = True,
    lambda_: float = 1.0,
    seed: int = 0,
    out: Tensor | None = None,
) -> Tensor:
    """Task arithmetic on randomly dropped task vectors (DARE: Yu et al., arXiv 2311.03099).

    Each element of tensor − base stays with probability `density`; `rescale` divides it by that, so that the mean over
    seeds is what nothing dropped would give.
    """
    weights, dropped = _each("weight", weight, tensors), _dropout(_densities(density, tensors), rescale, seed)
    settings = {"normalize": normalize, "lambda_": lambda_, "out": out}
    return _add_task_vectors(base, tensors, weights, sparsify=dropped, **settings)


def dare_ties(
    base: Tensor,
    tensors: Sequence[Tensor],
    weight: PerModel,
    density: PerModel = 1.0,
    normalize: bool = False,
    rescale: bool = True,
    lambda_: float = 1.0,
    seed: int = 0,
    out: Tensor | None = None,
) -> Tensor:
    """TIES with elements dropped at random as by DARE (arXiv 2311.03099) in place of the smallest ones."""
    weights, dropped = _each("weight", weight, tensors), _dropout(_densities(density, tensors), rescale, seed)
    settings = {"normalize": normalize, "lambda_": lambda_, "out": out}
    return _add_task_vectors(base, tensors, weights, sparsify=dropped, elect=True, **settings)


def _add_task_vectors(
    base: Tensor,
    tensors: Sequence[Tensor],
    weights: list[float],
    *,
    sparsify: Callable[[Tensor, int, Tensor], None] | None = None,
    elect: bool = False,
    normalize: bool,
    lambda_: float,
    out: Tensor | None,
) -> Tensor:
    """base + lambda · the sum of weighted task vectors, each after `sparsify(vector, number of its model, scratch)`."""
    _number("lambda", lambda_)
    factors = _shares(weights) if normalize and not elect else weights

    def kernel(start: Tensor, *buffers: Tensor) -> Tensor:
        *deltas, total, agreed, divisor, scratch = buffers
        total.zero_()
        for model, (delta, factor) in enumerate(zip(deltas, factors, strict=True)):
            delta.sub_(start)
            if sparsify:
                sparsify(delta, model, scratch)
            total.add_(delta.mul_(factor))
        if not elect:
            return start.add_(total, alpha=lambda_)
        sign = total.ge_(0).mul_(2).sub_(1)
        agreed.zero_()
        divisor.zero_()
        for delta, factor in zip(deltas, factors, strict=True):
            agrees = torch.mul(delta, sign, out=scratch).gt_(0)
            agreed.addcmul_(delta, agrees)
            divisor.add_(agrees, alpha=factor)
        if normalize:
            # Where nothing agrees, or weights cancel, the sum is divided by 1.
            agreed.div_(divisor.add_(torch.eq(divisor, 0, out=scratch)))
        return start.add_(agreed, alpha=lambda_)

    return blockwise(kernel, [base, *tensors], out, spare=4)


def _cut(base: Tensor, tensor: Tensor, density: float, rescale: bool) -> tuple[float, float]:
    """The least magnitude of tensor − base that stays, and the factor that restores the sum of magnitudes."""
    size = tensor.numel()
    if density == 1 or not size:
        return 0.0, 1.0
    magnitudes = torch.empty(size, dtype=torch.promote_types(promoted([base, tensor]), torch.float32))
    for place, (start, end) in blocks([base, tensor]):
        magnitudes[place] = end.sub_(start).abs_()
    values = magnitudes.numpy()
    first = size - max(1, int(density * size))
    values.partition(first)
    if not rescale:
        return values[first].item(), 1.0
    kept = magnitudes[magnitudes >= values[first].item()].sum(dtype=torch.float64)
    return values[first].item(), (magnitudes.sum(dtype=torch.float64) / kept).item() if kept else 1.0


def _dropout(densities: list[float], rescale: bool, seed: int) -> Callable[[Tensor, int, Tensor], None]:
    """Drops elements of blocks of task vectors, which have to come in order; each model has its own random numbers."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed is {seed!r}, allowed: whole numbers from 0")
    streams = [np.random.SFC64([seed, model]) for model in range(len(densities))]

    def dropped(delta: Tensor, model: int, scratch: Tensor) -> None:
        density = densities[model]
        if density == 1:
            return
        drawn = streams[model].random_raw((len(delta) + 1) // 2).view(np.int32)[: len(delta)]
        below = min(round(density * 2**32), 2**32 - 1) - 2**31
        delta.mul_(torch.lt(torch.from_numpy(drawn).to(delta.device), below, out=scratch))
        if rescale:
            delta.div_(density)

    return dropped


def _each(name: str, value: PerModel, tensors: Sequence[Tensor]) -> list[float]:
    values = list(value) if isinstance(value, Sequence) else [value] * len(tensors)
    if not tensors or len(values) != len(tensors):
        raise ValueError(f"{name} has {len(values)} values for {len(tensors)} models")
    for number in values:
        _number(name, number)
    return values


def _densities(value: PerModel, tensors: Sequence[Tensor]) -> list[float]:
    values = _each("density", value, tensors)
    for density in values:
        if not 0 < density <= 1:
            raise ValueError(f"density is {density}, allowed: above 0, at most 1")
    return values


def _shares(weights: list[float]) -> list[float]:
    total = math.fsum(weights)
    if abs(total) < 1e-8:
        raise ValueError(f"weights add up to {total}: they cannot be normalised")
    return [weight / total for weight in weights]


def _number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, allowed: finite numbers")
