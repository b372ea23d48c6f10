"""What recipes would do to a model that was trained without them: where each of them would hurt, and how much."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from common.parameters import Distinct
from common.quantization.fate import moment_fate
from common.quantization.layers import activation_surface, gradient_errors, magnitudes, output_errors
from common.quantization.model import linear_layers, quantize
from common.quantization.outliers import inject_outliers
from common.quantization.recipe import Recipe
from common.scoring.loss import mean_loss

EXAMINED = ("weights", "activations", "gradients", "second_moment")


class Examination(BaseModel):
    """What is looked at after a run; `recipes` are put on a model that was trained in full precision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipes: Distinct[Recipe]  # each quantises one of EXAMINED
    outlier_scales: Distinct[PositiveFloat]
    outlier_channels: PositiveInt  # how many channels are made outliers
    outlier_windows: PositiveInt  # contexts of held-out text, at most as many as a curve's points rest on
    surface_tokens: PositiveInt
    sharpness_radius: PositiveFloat
    sharpness_batches: PositiveInt  # of the training text, of the size trained with

    @model_validator(mode="after")
    def _every_component_is_looked_at_alone(self) -> Self:
        for recipe in self.recipes:
            if len(recipe.quantizers()) != 1 or not recipe.quantizers().keys() <= set(EXAMINED):
                raise ValueError(f"recipes: {recipe.label!r} must quantise one of {', '.join(EXAMINED)}, and only one")
        if missing := [component for component in EXAMINED if not self.those_of(component)]:
            raise ValueError(f"recipes: none quantises {', '.join(missing)}")
        return self

    def those_of(self, component: str) -> list[Recipe]:
        """The recipes that quantise a component."""
        return [recipe for recipe in self.recipes if component in recipe.quantizers()]


def examine(
    model: PreTrainedModel, loss: Callable[[nn.Module], Tensor], optimizer: Optimizer, ids: Tensor, plan: Examination
) -> dict[str, pd.DataFrame]:
    """Tables of an unquantised, trained `model`, which is left as it was: see `layers`, `fate` and `outlier_losses`.

    `loss(model)` is the loss of one training batch, `ids (windows, length)` held-out text for the losses with outliers.
    """
    forward = plan.those_of("weights") + plan.those_of("activations")
    surface = activation_surface(model, loss, list(linear_layers(model))[-1])
    return {
        "gradient_errors": gradient_errors(model, loss, plan.those_of("gradients")),
        "output_errors": output_errors(model, loss, forward),
        "magnitudes": magnitudes(model, loss, list(range(-8, 1))),
        "surface": surface[surface["token"] < plan.surface_tokens],
        "second_moment": moment_fate(optimizer, model, plan.those_of("second_moment")),
        "outliers": outlier_losses(
            model, ids[: plan.outlier_windows], forward, plan.outlier_scales, range(plan.outlier_channels)
        ),
    }


def outlier_losses(
    model: PreTrainedModel, ids: Tensor, settings: Sequence[Recipe], scales: Sequence[float], channels: Sequence[int]
) -> pd.DataFrame:
    """Loss on `ids (windows, length)` with outliers injected and then a recipe put on: setting, scale, loss.

    The injection changes no function (see `inject_outliers`), so at full precision the loss is the same at every scale
    and what a recipe's loss rises by is due to the outliers. `model` is left as it was.
    """
    rows = []
    for scale in scales:
        with_outliers = deepcopy(model)
        inject_outliers(with_outliers, scale, channels)
        for setting in settings:
            rounded = deepcopy(with_outliers)
            quantize(rounded, setting)
            rows.append({"setting": setting.label, "scale": float(scale), "loss": mean_loss(rounded, ids)})
    return pd.DataFrame(rows)
