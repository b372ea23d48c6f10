"""What would become of Adam's steps if its second moments were stored in few bits."""

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import UserError
from common.quantization.adam import layers_with_moments, quantized_moment, unwrapped
from common.quantization.layers import check_settings
from common.quantization.recipe import Recipe


def moment_fate(optimizer: Optimizer, model: nn.Module, settings: Sequence[Recipe], *, seed: int = 0) -> pd.DataFrame:
    """Adam's update with the second moments of linear weights as they are and as each setting would store them.

    The update is m1_hat / (sqrt(m2_hat) + eps), in units of the learning rate, with both moments corrected for their
    bias as by torch.optim.AdamW and without weight decay (Kingma and Ba, arXiv 1412.6980). It is the one that the
    stored values would give if the step followed at once. A quantised run rounds m2 and then mixes the next gradient
    into it before it steps: where that gradient is small the step is much like the one here, where it is large m2
    recovers.

    `optimizer`, bare or wrapped by accelerate, has taken steps in full precision; each of `settings` quantises the
    second moment and nothing else. Stochastic codes draw from (`seed`, layer, step) as in `quantize_moments`. One row
    a trainable linear layer and setting: layer, setting, zero_share (of the positive entries of m2 that become 0),
    and root mean square and largest magnitude of the update: update_rms and update_largest with the quantised m2,
    exact_rms and exact_largest with the exact one. Nothing is changed, nor any global random number generator used.

    Raises `UserError` if the settings are others or the optimiser is not Adam or AdamW, has amsgrad, or lacks a linear
    weight, and `RuntimeError` naming the layer if it has no moments yet, none above 0, or gives NaN or infinity.
    """
    optimizer = unwrapped(optimizer)
    if not isinstance(optimizer, torch.optim.Adam):
        raise UserError(f"{type(optimizer).__name__} does not step as Adam does: use Adam or AdamW")
    layers = layers_with_moments(optimizer, model)
    check_settings(model, settings, ("second_moment",))
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    rows = []
    for index, (name, layer) in enumerate(layers.items()):
        state, group = optimizer.state.get(layer.weight), groups[id(layer.weight)]
        if not state:
            raise RuntimeError(f"layer {name} has no moments: its weight has not been stepped")
        stored = state["exp_avg_sq"]
        positive = stored > 0
        if not positive.any():
            raise RuntimeError(f"second moment of layer {name} has no positive entry")
        exact = _sizes("exact", name, state, stored, group)
        seeds = (seed, index, int(state["step"]))
        for recipe in settings:
            used = quantized_moment("second_moment", recipe.second_moment, state, layer, seeds)
            zero_share = (used[positive] == 0).double().mean().item()
            update = _sizes("update", f"{name} under {recipe.label}", state, used, group)
            rows.append({"layer": name, "setting": recipe.label, "zero_share": zero_share, **update, **exact})
    return pd.DataFrame(rows)


def _sizes(prefix: str, where: str, state: dict[str, Tensor], second_moment: Tensor, group: dict) -> dict[str, float]:
    """Root mean square and largest magnitude of the update by the `state`'s first moment and a second moment."""
    step, (beta1, beta2) = float(state["step"]), group["betas"]
    first, second = (moment.to("cpu", torch.float64) for moment in (state["exp_avg"], second_moment))
    update = first / (1 - beta1**step) / ((second / (1 - beta2**step)).sqrt() + group["eps"])
    sizes = {f"{prefix}_rms": update.square().mean().sqrt().item(), f"{prefix}_largest": update.abs().max().item()}
    if not all(math.isfinite(size) for size in sizes.values()):
        raise RuntimeError(f"the step of layer {where} is not finite: {sizes}")
    return sizes
