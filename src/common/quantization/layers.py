"""What quantisers would do to the tensors of a model trained in full precision, layer by layer.

Each measure makes one pass forward and backward of its own, with dropout off, and leaves the model, its gradients and
modes, and the random number generators as they were. All raise `UserError`, before that pass, if a linear layer of the
model is quantised already or computes in a way of its own, and `RuntimeError` naming the layer if one did not run
exactly once, has no gradient, or met NaN, infinity or nothing but zeros.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from common.quantization.fake import RANGE_FLOOR, fake_quantize
from common.quantization.linear import QuantizedConv1D, QuantizedLinear
from common.quantization.model import check_groups, linear_layers, widths
from common.quantization.recipe import Recipe

Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class _Trace:
    """What a layer multiplied in one pass: `activations` (..., in) and `weights`, as it stores them, in the precision
    of its product, and `gradients` (..., out) of the loss by its output."""

    weights: Tensor
    activations: Tensor
    gradients: Tensor
    channel_dim: int

    def quantized(self, component: str, recipe: Recipe) -> Tensor:
        """The tensor of `component` as `recipe` would have it, as it is if the recipe leaves it alone."""
        exact, quantizer = getattr(self, component), getattr(recipe, component)
        if quantizer is None:
            return exact
        channel_dim = self.channel_dim if component == "weights" else 0
        return fake_quantize(exact, quantizer, floor=RANGE_FLOOR[component], channel_dim=channel_dim)


def gradient_errors(model: nn.Module, loss: Loss, settings: Sequence[Recipe]) -> pd.DataFrame:
    """How far quantised output gradients turn and stretch the weight gradients: Q(G)^T·X against G^T·X.

    `loss(model)` is the scalar loss of one batch; each of `settings` quantises gradients and nothing else. One row a
    layer and setting: layer, setting, zero_share (of the non-zero entries of G that Q makes 0), cosine (0 where all of
    Q(G)^T·X is 0) and l2 = ||a-b|| / ||a||, b being the quantised one.
    The weight gradients are those of a run quantised so, for its backward pass hands the exact G down to the layer
    below. Source: Chitsaz et al., arXiv 2407.11722. Raises as the module says, and `UserError` on other settings.
    """
    for recipe in settings:
        if recipe.gradient_branch != "weight":
            raise UserError(
                f"setting {recipe.label}: its gradient_branch is 'input', which leaves weight gradients alone"
            )
    check_settings(model, settings, ("gradients",))

    def weight_gradient(gradients: Tensor, trace: _Trace) -> Tensor:
        return gradients.float().flatten(0, -2).T @ trace.activations.float().flatten(0, -2)

    rows = []
    for name, trace in _traces(model, loss).items():
        exact = weight_gradient(trace.gradients, trace)
        for recipe in settings:
            used = trace.quantized("gradients", recipe)
            errors = _errors(exact, weight_gradient(used, trace), f"weight gradient of layer {name}")
            rows.append(
                {"layer": name, "setting": recipe.label, "zero_share": _zero_share(trace.gradients, used), **errors}
            )
    return pd.DataFrame(rows)


def output_errors(model: nn.Module, loss: Loss, settings: Sequence[Recipe]) -> pd.DataFrame:
    """How far quantised operands turn and stretch a layer's output: Q(X)·Q(W)^T against X·W^T, without the bias.

    X is the layer's input in the full-precision model, so errors of earlier layers do not add up. `loss(model)` is the
    scalar loss of one batch; each of `settings` quantises weights, activations or both, and nothing else. One row a
    layer and setting: layer, setting, zero_share (of the non-zero entries of X that Q makes 0 where activations are
    quantised, else of W), cosine (0 where all of the quantised output is 0) and l2 = ||a-b|| / ||a||, b being the
    quantised one.
    Source: Chitsaz et al., arXiv 2407.11722. Raises as the module says, and `UserError` on other settings.
    """
    check_settings(model, settings, ("weights", "activations"))

    def output(activations: Tensor, weights: Tensor, trace: _Trace) -> Tensor:
        weights = weights if trace.channel_dim == 0 else weights.T
        return functional.linear(activations.float(), weights.float())

    rows = []
    for name, trace in _traces(model, loss).items():
        exact = output(trace.activations, trace.weights, trace)
        for recipe in settings:
            activations, weights = trace.quantized("activations", recipe), trace.quantized("weights", recipe)
            errors = _errors(exact, output(activations, weights, trace), f"output of layer {name}")
            if recipe.activations is None:
                zeros = _zero_share(trace.weights, weights)
            else:
                zeros = _zero_share(trace.activations, activations)
            rows.append({"layer": name, "setting": recipe.label, "zero_share": zeros, **errors})
    return pd.DataFrame(rows)


def magnitudes(model: nn.Module, loss: Loss, edges: Sequence[float]) -> pd.DataFrame:
    """Histograms of log10(|x| / max|x|) of weights, activations (inputs) and output gradients of the linear layers.

    The maximum is each tensor's own; every layer has the same weight, whatever its size. `edges` ascend, in decades,
    to 0 or above; what lies below the lowest one, exact zeros too, counts in the lowest bin. One row a component and
    bin: component, low, high (a value on an edge belongs to the bin above) and share, which add up to 1 a component.
    `loss(model)` is the scalar loss of one batch. Raises as the module says, and `UserError` on other edges.
    """
    bounds = np.asarray(edges, dtype=np.float64)
    if len(bounds) < 2 or not np.isfinite(bounds).all() or (np.diff(bounds) <= 0).any() or bounds[-1] < 0:
        raise UserError(f"edges {list(edges)}, allowed: two or more ascending numbers, the last 0 or above")
    traces = _traces(model, loss)

    def shares(x: Tensor) -> np.ndarray:
        x = x.to("cpu", torch.float64).abs()
        decades = (x / x.max()).log10().clamp_(min=bounds[0])
        return np.histogram(decades.numpy(), bounds)[0] / x.numel()

    rows = []
    for component in ("weights", "activations", "gradients"):
        pooled = np.mean([shares(getattr(trace, component)) for trace in traces.values()], axis=0)
        for low, high, share in zip(bounds[:-1], bounds[1:], pooled, strict=True):
            rows.append({"component": component, "low": float(low), "high": float(high), "share": float(share)})
    return pd.DataFrame(rows)


def activation_surface(model: nn.Module, loss: Loss, layer: str) -> pd.DataFrame:
    """|X| of the batch's first sequence at the input of the linear layer named `layer`: token, channel, magnitude.

    `loss(model)` is the scalar loss of one batch. Raises as the module says, `UserError` on another name, and
    `ValueError` if the input is not (batch, tokens, channels).
    """
    allowed = linear_layers(model)
    if layer not in allowed:
        raise UserError(f"no linear layer is named {layer!r}, allowed: {', '.join(allowed)}")
    inputs = _traces(model, loss)[layer].activations
    if inputs.ndim != 3:
        raise ValueError(f"input of layer {layer} has shape {tuple(inputs.shape)}, allowed: (batch, tokens, channels)")
    surface = inputs[0].abs().to("cpu", torch.float64).numpy()
    token, channel = np.indices(surface.shape)
    return pd.DataFrame({"token": token.ravel(), "channel": channel.ravel(), "magnitude": surface.ravel()})


def check_settings(model: nn.Module, settings: Sequence[Recipe], components: Collection[str]) -> None:
    """Raise `UserError` unless each recipe quantises some of `components` alone, fits all layers, has its own label.

    A label that also named what is not measured, or named two settings, would credit a result to the wrong one.
    """
    labels = [recipe.label for recipe in settings]
    if not labels or len(set(labels)) < len(labels):
        raise UserError(f"settings are {labels}, allowed: one or more recipes, each with a label of its own")
    for recipe in settings:
        if not recipe.quantizers() or not recipe.quantizers().keys() <= set(components):
            raise UserError(f"setting {recipe.label}, allowed: recipes that quantise {' or '.join(components)} alone")
        for name, layer in linear_layers(model).items():
            check_groups(name, *widths(layer), recipe)


def _full_precision_layers(model: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    layers = linear_layers(model)
    if not layers:
        raise UserError(f"{type(model).__name__} has no linear layer to measure (Linear or Conv1D)")
    for name, layer in layers.items():
        if type(layer) not in (nn.Linear, Conv1D, QuantizedLinear, QuantizedConv1D):
            raise UserError(f"{name} is a {type(layer).__name__}, allowed: Linear or Conv1D")
        if isinstance(layer, (QuantizedLinear, QuantizedConv1D)):  # an empty recipe's layers are in full precision
            active = layer.quantization.recipe.quantizers().keys() & {"weights", "activations", "gradients"}
            if active:
                raise UserError(f"{name} quantises {', '.join(sorted(active))}, allowed: a model in full precision")
    return layers


def _traces(model: nn.Module, loss: Loss) -> dict[str, _Trace]:
    layers = _full_precision_layers(model)
    calls = {name: [] for name in layers}

    def note(name: str, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.requires_grad:
            raise RuntimeError(f"layer {name} has no gradient: neither its weight nor its input requires one")
        # The edge stays that of the layer's own output even if a later layer works in place.
        edge = torch.autograd.graph.get_gradient_edge(output)
        calls[name].append((args[0].detach().to(output.dtype), layer.weight.detach().to(output.dtype), edge))

    modes = {module: module.training for module in model.modules()}
    handles = [layer.register_forward_hook(partial(note, name)) for name, layer in layers.items()]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            model.eval()
            value = loss(model)
            for name, made in calls.items():
                if len(made) != 1:
                    raise RuntimeError(f"layer {name} ran {len(made)} times in the pass, allowed: once")
            edges = [made[0][2] for made in calls.values()]
            gradients = dict(zip(layers, torch.autograd.grad(value, edges, allow_unused=True), strict=True))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    for name, gradient in gradients.items():
        if gradient is None:
            raise RuntimeError(f"layer {name} has no gradient: nothing flows back to its output")
    traces = {
        name: _Trace(weight, inputs, gradients[name], channel_dim=0 if isinstance(layers[name], nn.Linear) else 1)
        for name, ((inputs, weight, _),) in calls.items()
    }
    # Faults spread: from a weight to the inputs of later layers, and from those to all gradients.
    for component in ("weights", "activations", "gradients"):
        for name, trace in traces.items():
            tensor = getattr(trace, component)
            if not tensor.isfinite().all() or not tensor.any():
                raise RuntimeError(f"{component} of layer {name} hold NaN or infinity, or zeros only")
    return traces


def _errors(exact: Tensor, used: Tensor, what: str) -> dict[str, float]:
    exact, used = (tensor.to("cpu", torch.float64).flatten() for tensor in (exact, used))
    sizes = exact.norm() * used.norm()
    cosine = exact @ used / sizes if used.any() else torch.tensor(0.0)
    errors = {"cosine": cosine.clamp(-1, 1).item(), "l2": ((exact - used).norm() / exact.norm()).item()}
    if not np.isfinite(list(errors.values())).all():
        raise RuntimeError(f"{what} holds NaN or infinity, or zeros only: {errors}")
    return errors


def _zero_share(exact: Tensor, used: Tensor) -> float:
    return (used[exact != 0] == 0).double().mean().item()
