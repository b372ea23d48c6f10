"""Proof that a recipe took effect: how far each quantiser really moved the numbers it was put in charge of."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import UserError
from common.quantization.adam import recipe_of_moments, unwrapped
from common.quantization.model import QuantizationReport, linear_layers
from common.quantization.probe import recording


def measure_effect(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], optimizer: Optimizer | None = None
) -> dict[tuple[str, str], float]:
    """||Q(x)-x|| / ||x|| of every quantised tensor in one pass forward and backward, by (component, layer).

    Noted where the quantised values are used, so a layer that is bypassed is absent and a quantiser that changes
    nothing reads 0. `loss(model)` is the scalar loss of one batch.
    With `optimizer`, after at least one step of it, the moments as well: a step without gradients runs the hooks
    and nothing else, and storing a quantised moment early is what the next step would begin with anyway.
    Parameters, gradients and random number generators are left as they were; dropout is off.

    Raises `UserError` where the optimiser quantises its moments by another recipe than the model's layers name.
    """
    if optimizer is not None:
        _same_moments(model, optimizer)
    training = model.training
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with recording() as effect:
        try:
            model.eval()
            torch.autograd.grad(loss(model), parameters, allow_unused=True)
        finally:
            model.train(training)
        if optimizer is not None:
            _step_without_gradients(unwrapped(optimizer))
    return effect.relative_errors()


def _same_moments(model: nn.Module, optimizer: Optimizer) -> None:
    asked = recipe_of_moments(optimizer)
    for name, layer in linear_layers(model).items():
        named = getattr(layer, "quantization", None)
        for moment in ("first_moment", "second_moment"):
            ours, theirs = getattr(asked, moment, None), getattr(named and named.recipe, moment, None)
            if ours != theirs:
                raise UserError(
                    f"{moment}: quantize_moments was given {ours or 'none'}, quantize {theirs or 'none'} "
                    f"(layer {name}); give both one recipe"
                )


def _step_without_gradients(optimizer: Optimizer) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        optimizer.step()
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient


def assert_took_effect(effect: Mapping[tuple[str, str], float], report: QuantizationReport) -> dict[str, float]:
    """Mean relative error by component, once every quantiser of the report is seen to have changed every layer.

    Raises `RuntimeError` naming component and layer if one left no trace, changed nothing, or gave NaN or infinity.
    """
    means = {}
    for component, quantizer in report.recipe.quantizers().items():
        errors = []
        for layer in report.layers:
            error = effect.get((component, layer.name))
            where = f"{component} quantiser ({quantizer}) of layer {layer.name or 'the model itself'}"
            if error is None:
                why = " (a frozen weight has no gradient)" if component == "gradients" else ""
                raise RuntimeError(f"{where} did not run{why}")
            if not math.isfinite(error):
                raise RuntimeError(f"{where} met zeros only, NaN or infinity: relative error {error}")
            if error == 0:
                raise RuntimeError(f"{where} changed nothing")
            errors.append(error)
        means[component] = sum(errors) / len(errors)
    return means
