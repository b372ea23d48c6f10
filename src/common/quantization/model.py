"""Quantise a model's linear layers in place."""

from dataclasses import dataclass

import pandas as pd
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from common.quantization.linear import LayerSettings, QuantizedConv1D, QuantizedLinear
from common.quantization.recipe import Recipe, as_recipe


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer that `quantize` changed; its weight is (outputs, inputs), whichever way round it is stored."""

    name: str
    kind: str
    outputs: int
    inputs: int


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantize` did: every layer it changed, and the share of the model's parameters their weights are."""

    recipe: Recipe
    layers: tuple[QuantizedLayer, ...]
    weight_share: float

    def table(self) -> pd.DataFrame:
        """One row a layer: name, kind, outputs, inputs, and a column with the quantiser of each component."""
        quantizers = {c: str(getattr(self.recipe, c) or "-") for c in ("weights", "activations", "gradients")}
        return pd.DataFrame([vars(layer) | quantizers for layer in self.layers])


def linear_layers(model: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    """Every linear layer of `model` by name, lm_head included; a layer used under two names counts once."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, Conv1D))}


def quantize(model: nn.Module, recipe: Recipe | str) -> QuantizationReport:
    """Make every Linear and Conv1D of `model`, lm_head included, compute by `recipe`, or by its label, in place.

    Parameters stay the very same objects under the same names: state_dict, save_pretrained, tied embeddings and
    optimisers made before or after are unaffected. An empty recipe takes the same code path in full precision, and
    its model can be given another recipe later.
    Embeddings, norms and products inside attention are never quantised, nor are weights that belong to no linear
    layer, such as the stacked experts of a mixture; `weight_share` of the report shows what that leaves. Of a peft
    model the adapters' matrices are linear layers as well.
    The recipe's moments need `quantize_moments` as well.
    Source: Chitsaz et al., arXiv 2407.11722.

    Raises `UserError`, with the model untouched, if it has no linear layer, is quantised already, has a kind of
    linear layer whose computation is its own, or group sizes don't divide a layer's width.
    """
    recipe = as_recipe(recipe)
    layers = linear_layers(model)
    if not layers:
        raise UserError(f"{type(model).__name__} has no linear layer to quantise (Linear or Conv1D)")
    for name, layer in layers.items():
        if isinstance(layer, (QuantizedLinear, QuantizedConv1D)) and layer.quantization.recipe.quantizers():
            raise UserError(f"{type(model).__name__} is quantised already ({name or 'itself'}): start from a fresh one")
        if type(layer) not in (nn.Linear, Conv1D, QuantizedLinear, QuantizedConv1D):
            raise UserError(
                f"{name} is a {type(layer).__name__}, whose forward pass is its own: "
                "only Linear and Conv1D can be quantised"
            )
        check_groups(name, *widths(layer), recipe)
    for name, layer in layers.items():
        is_linear = isinstance(layer, nn.Linear)
        layer.quantization = LayerSettings(name, recipe, channel_dim=0 if is_linear else 1)
        layer.__class__ = QuantizedLinear if is_linear else QuantizedConv1D
    weights = {id(layer.weight): layer.weight.numel() for layer in layers.values()}
    total = sum(parameter.numel() for parameter in model.parameters())
    return QuantizationReport(
        recipe=recipe,
        layers=tuple(
            QuantizedLayer(name, "Linear" if isinstance(layer, nn.Linear) else "Conv1D", *widths(layer))
            for name, layer in layers.items()
        ),
        weight_share=sum(weights.values()) / total,
    )


def widths(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """(outputs, inputs) of a layer, whichever way round its weight is stored."""
    return tuple(layer.weight.shape) if isinstance(layer, nn.Linear) else tuple(layer.weight.shape[::-1])


def check_groups(name: str, outputs: int, inputs: int, recipe: Recipe) -> None:
    """Raise `UserError` where groups of `recipe` don't divide the width of the layer `name`."""
    for component, quantizer in recipe.quantizers().items():
        width, side = (outputs, "outputs") if component == "gradients" else (inputs, "inputs")
        if quantizer.group_size is not None and width % quantizer.group_size:
            raise UserError(
                f"{component}: groups of {quantizer.group_size} don't divide the {width} {side} of {name}; "
                "choose a divisor or another granularity"
            )
