"""Quantised optimiser state: Adam's moments as they would be after a stay in few bits."""

from typing import Any

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from common.quantization.fake import RANGE_FLOOR, fake_quantize, log_quantize
from common.quantization.model import linear_layers
from common.quantization.probe import note
from common.quantization.recipe import MomentQuantizer, Recipe, as_recipe

_STATE = {"first_moment": "exp_avg", "second_moment": "exp_avg_sq"}


def quantize_moments(optimizer: Optimizer, model: nn.Module, recipe: Recipe | str, *, seed: int = 0) -> RemovableHandle:
    """Fake-quantise the stored moments of the linear layers' weights at the start of each optimiser step.

    Embeddings, norms and biases keep theirs; a weight tied to an embedding is a linear layer's and is quantised.
    `recipe` may be given by its label; without moments in it the hook does nothing, whatever the optimiser. One wrapped
    by accelerate is unwrapped.
    `seed` feeds stochastic rounding, drawn anew from (seed, layer, step), so a resumed run repeats what an
    uninterrupted one does; steps are counted on from those that the state has at first and after `load_state_dict`.
    Returns the hook's handle.
    Source: Chitsaz et al., arXiv 2407.11722; the log codes are explained at `fake.log_quantize`.

    Raises `UserError` if `seed` is negative, the optimiser keeps no Adam moments, runs in the amsgrad variant (whose
    steps use a maximum that would not be quantised), lacks a trainable linear weight of `model`, or quantises its
    moments already; and at the second step if its state turns out to be other than Adam's.
    """
    recipe, optimizer = as_recipe(recipe), unwrapped(optimizer)
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed is {seed!r}, allowed: whole numbers from 0")
    quantized = {component: key for component, key in _STATE.items() if getattr(recipe, component) is not None}
    layers = layers_with_moments(optimizer, model) if quantized else {}
    if quantized and recipe_of_moments(optimizer):
        raise UserError(f"{type(optimizer).__name__} quantises its moments already: remove that hook by its handle")

    # Of each layer's weight. To read them in its state at each step, the host would wait for a GPU.
    steps: dict[str, int] = {}

    def count(*_: Any) -> None:
        for name in steps:
            steps[name] += layers[name].weight.grad is not None  # without a gradient none is taken

    def hook(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for index, (name, layer) in enumerate(layers.items()):
            state = optimizer.state.get(layer.weight)
            for component, key in quantized.items() if state else ():
                if key not in state:
                    raise UserError(f"{type(optimizer).__name__} keeps no {key}: use Adam or AdamW")
                if name not in steps:
                    steps[name] = int(state["step"])
                seeds = (seed, index, steps[name])
                used = quantized_moment(component, getattr(recipe, component), state, layer, seeds)
                note(component, name, state[key], used)
                state[key].copy_(used)

    if quantized:
        hook.quantized = recipe
        optimizer.register_step_post_hook(count)
        optimizer.register_load_state_dict_post_hook(lambda _: steps.clear())
    return optimizer.register_step_pre_hook(hook)


def recipe_of_moments(optimizer: Optimizer) -> Recipe | None:
    """The recipe by which an optimiser quantises its moments, None where it does not."""
    hooks = unwrapped(optimizer)._optimizer_step_pre_hooks.values()
    return next((hook.quantized for hook in hooks if hasattr(hook, "quantized")), None)


def layers_with_moments(optimizer: Optimizer, model: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    """The trainable linear layers of `model`, by name, whose weights' moments an unwrapped `optimizer` keeps.

    Raises `UserError` as `quantize_moments` does.
    """
    kind = type(optimizer).__name__
    if "betas" not in optimizer.defaults:
        raise UserError(f"{kind} keeps no Adam moments: use Adam or AdamW")
    if any(group.get("amsgrad") for group in optimizer.param_groups):
        raise UserError(f"{kind} with amsgrad steps by a maximum that is not quantised: set amsgrad=False")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    layers = {name: layer for name, layer in linear_layers(model).items() if layer.weight.requires_grad}
    missing = [name for name, layer in layers.items() if id(layer.weight) not in held]
    if missing or not layers:
        raise UserError(
            f"{kind} does not hold the linear weights of the model: {', '.join(missing) or 'none is trainable'}"
        )
    return layers


def unwrapped(optimizer: Optimizer) -> Optimizer:
    """The optimiser that takes the steps, without accelerate's wrapper, which runs no hooks of its own."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer


def quantized_moment(
    component: str,
    quantizer: MomentQuantizer,
    state: dict[str, Any],
    layer: nn.Linear | Conv1D,
    seeds: tuple[int, int, int],
) -> Tensor:
    """The moment `component` of `state`, of the shape of `layer`'s weight, as `quantizer` would store it.

    `seeds`, of the run, of the layer and of the step, feed stochastic rounding.
    """
    moment = state[_STATE[component]]
    channel_dim = 0 if isinstance(layer, nn.Linear) else 1
    if quantizer.code == "linear":
        return fake_quantize(moment, quantizer, floor=RANGE_FLOOR[component], channel_dim=channel_dim)
    generator = None
    if quantizer.code == "log-stochastic":
        entropy = np.random.SeedSequence(seeds)
        generator = torch.Generator(moment.device).manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
    return log_quantize(moment, quantizer, channel_dim=channel_dim, generator=generator)
