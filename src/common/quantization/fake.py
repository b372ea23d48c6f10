"""Fake quantisation: values rounded to the few levels that b bits can name, kept in floating point.

The range is dynamic: measured on the tensor at each call, per granularity (arXiv 2407.11722).
"""

import math

import torch
from torch import Tensor

from common.quantization.recipe import MomentQuantizer, Quantizer

# Least range a scale is computed from (arXiv 2407.11722): a tensor of zeros must not divide by zero.
RANGE_FLOOR = {
    "weights": 1e-5,
    "activations": 1e-5,
    "gradients": 1e-9,
    "first_moment": 1e-8,
    "second_moment": 1e-8,
}

# Octaves between the largest and the least level of the log code: nearly ten decades of the second moment, five
# of the root that Adam divides by.
LOG_RANGE = 32


def _grouped(x: Tensor, quantizer: Quantizer, channel_dim: int) -> tuple[Tensor, tuple[int, ...]]:
    """A view of `x` and its dimensions over which one scale is shared."""
    if quantizer.granularity == "tensor":
        return x, tuple(range(x.ndim))
    if quantizer.granularity == "token":
        return x, (-1,)
    if quantizer.granularity == "channel":
        return x, tuple(d for d in range(x.ndim) if d != channel_dim)
    axis = 0 if channel_dim == 1 else x.ndim - 1
    if x.shape[axis] % quantizer.group_size:
        raise ValueError(f"{x.shape[axis]} values (shape {tuple(x.shape)}) don't split into groups of {quantizer}")
    return x.unflatten(axis, (-1, quantizer.group_size)), (axis + 1,)


@torch.no_grad()
def fake_quantize(x: Tensor, quantizer: Quantizer, *, floor: float, channel_dim: int = 0) -> Tensor:
    """`x` rounded to the levels of `quantizer`: same shape and dtype, detached, not in place.

    With Qp = 2^(b-1)-1 and Qn = -2^(b-1) (arXiv 2407.11722):
      symmetric   s = max|x| / Qp,           x^ = s·round(clamp(x/s, Qn, Qp))
      asymmetric  s = (max-min) / (2·Qp),    z = round(min/s - Qn),  x^ = s·(clamp(round(x/s) - z, Qn, Qp) + z)
    where the range, max|x| or max-min, is at least `floor`. Both are computed as s·round(x/s), for the clamp
    never binds when the range is that of `x`: symmetric codes lie in [-Qp, Qp], so Qn goes unused; asymmetric
    ones in [Qn, Qp-1], as min falls on Qn and max on Qn + 2·Qp, so Qp goes unused. Either way 2^b - 1 levels are
    in use, one less than b bits could name, and 0 stays 0. Ties round to even.

    `channel_dim`: the output dimension of a weight, 0 for (out, in) and 1 for (in, out); groups then run along
    the other one. Activations and gradients, (..., tokens, features), leave it at 0. Half precision is
    quantised in float32. A non-finite value makes every value that shares its scale NaN.
    Raises `ValueError` when groups don't divide the dimension, or for a log code.
    """
    if isinstance(quantizer, MomentQuantizer) and quantizer.code != "linear":
        raise ValueError(f"fake_quantize has linear levels; log_quantize has those of code {quantizer.code!r}")
    view, shared = _grouped(x, quantizer, channel_dim)
    exact = view.dtype if view.dtype.itemsize >= 4 else torch.float32
    positive_levels = 2 ** (quantizer.bits - 1) - 1
    if quantizer.symmetric:
        result = view.abs()  # the memory that the result will be written to
        scale = result.amax(shared, keepdim=True).to(exact).clamp_(min=floor).div_(positive_levels)
    else:
        result = torch.empty_like(view)
        highest, lowest = view.amax(shared, keepdim=True).to(exact), view.amin(shared, keepdim=True).to(exact)
        scale = highest.sub_(lowest).clamp_(min=floor).div_(2 * positive_levels)
    if view.dtype == exact:
        return torch.div(view, scale, out=result).round_().mul_(scale).reshape(x.shape)
    return view.div(scale).round_().mul_(scale).to(x.dtype).reshape(x.shape)


@torch.no_grad()
def log_quantize(
    x: Tensor, quantizer: MomentQuantizer, *, channel_dim: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Second moments `x` >= 0 rounded to levels of equal ratio: same shape and dtype, detached, not in place.

    One code is 0 and stands for exact zeros alone; the other n+1 = 2^b - 1 are max(x)·2^(-LOG_RANGE·k/n), k = 0…n.
    Anything smaller than the least level is raised to it. Not of the paper; why so:

    - Adam's step is m1/(sqrt(m2)+eps). Linear levels send every m2 below max/(2·Qp) to 0 while its m1 lives on:
      the step explodes to m1/eps. Here no positive value becomes 0, and the relative error is the same for small
      and large ones: at 8 bits levels are 9% apart, so one rounding changes the root by at most 2.3% (4.5% when
      stochastic). Where the least level binds, the step gets smaller, which is the safe side.
    - m2 moves by a share 1-beta2 a step, less than half a level: rounding to nearest (`"log"`) undoes every
      decay and every small growth, and m2 follows rare large gradients alone. `"log-stochastic"` rounds up or down
      between the two neighbouring levels so that the expected value is `x`, and the average stays an average.

    `generator`: source of the stochastic rounding, torch's global one by default.
    A negative value, for which the code has no sign, becomes NaN: to raise, the host would wait for a GPU at each call.
    Raises `ValueError` on a linear code, or groups that don't divide the dimension.
    """
    if quantizer.code == "linear":
        raise ValueError("log_quantize has log levels; fake_quantize has those of code 'linear'")
    view, shared = _grouped(x.to(torch.promote_types(x.dtype, torch.float32)), quantizer, channel_dim)
    last = 2**quantizer.bits - 2
    octaves = LOG_RANGE / last
    highest = view.amax(shared, keepdim=True)
    relative = view / highest  # 0/0 where all are zero: replaced at the end
    position = relative.log2().div_(-octaves).clamp_(max=last)
    if quantizer.code == "log":
        position.round_()
    else:
        position.floor_()
        above = torch.exp2(-octaves * position)
        share_down = (above - relative).div_(above.mul_(1 - 2**-octaves))
        draw = torch.rand(view.shape, generator=generator, dtype=view.dtype, device=view.device)
        position.add_(draw < share_down).clamp_(max=last)
    levels = position.mul_(-octaves).exp2_().mul_(highest).masked_fill_(view < 0, math.nan)
    return torch.where(view == 0, view, levels).to(x.dtype).reshape(x.shape)
