"""One quantised pre-training run: the function that the study's sweeps call."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from torch.optim import Optimizer
from transformers import AutoTokenizer, PreTrainedModel

from common.batches import evenly_spaced, shuffled_batches
from common.landscape import sharpness
from common.models import Family, new_language_model
from common.quantization.adam import quantize_moments
from common.quantization.effect import assert_took_effect, measure_effect
from common.quantization.examination import Examination, examine
from common.quantization.model import QuantizationReport, quantize
from common.quantization.outliers import inject_outliers
from common.quantization.recipe import COMPONENTS, Recipe
from common.scoring.loss import mean_loss
from common.training import Plan, adamw, language_loss, train


class Shape(BaseModel):
    """Size of a model that is trained from scratch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Family
    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    context: PositiveInt
    tied: bool
    embedding_std: PositiveFloat
    outlier_scale: PositiveFloat = 1.0  # of the first channels after every norm, before training; 1 for none
    outlier_channels: PositiveInt = 1

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads={self.heads}")
        return self


class Schedule(BaseModel):
    """Length and pace of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: PositiveInt
    batch_size: PositiveInt
    warmup: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    log_every: PositiveInt  # steps between two points of the loss curve
    precision: Literal["no", "bf16"]
    curve_windows: PositiveInt  # of one context each, of the first held-out text, at each point of the curve
    validation_windows: PositiveInt  # of one context each, of every text, at the end


def pretrain(
    recipe: str,
    shape: dict,
    schedule: dict,
    learning_rate: float,
    seed: int,
    examination: dict | None = None,
    *,
    tokenizer: Path,
    scratch: Path,
    **streams: Path,
) -> dict[str, object]:
    """Pre-train a language model from scratch under a quantisation recipe, named by its label, and evaluate it.

    `streams` maps `train` to the training text and `validation_NAME` to each held-out text, as token ids. `seed`
    changes the initial weights and the order of the data. The losses are nats per token; a run whose loss leaves the
    range of a model that knows nothing (1.5 × `uniform_loss`, the logarithm of the vocabulary) has diverged and has no
    final loss.
    `error_COMPONENT` is the mean relative error that the component's quantiser made on the first batch after the last
    step: the proof that it took effect, without which the run fails. Of a run that diverged the errors are those at
    its initial weights, with the moments of its first gradient: what it ended with may be no numbers at all.
    With an `examination` the run tells its `sharpness`, and one in full precision the tables of `examine` besides.
    """
    setting, size, pace = Recipe.named(recipe), Shape.model_validate(shape), Schedule.model_validate(schedule)
    looks = None if examination is None else Examination.model_validate(examination)
    model, optimizer, report = _quantized(shape, tokenizer, pace, setting, seed)
    vocab_size = model.config.vocab_size
    held_out = {
        name.removeprefix("validation_"): evenly_spaced(path, size.context, pace.validation_windows)
        for name, path in streams.items()
        if name.startswith("validation_")
    }
    first = next(iter(held_out))
    followed = evenly_spaced(streams[f"validation_{first}"], size.context, pace.curve_windows)
    batch = shuffled_batches(streams["train"], size.context, pace.batch_size, seed)
    plan = Plan(pace.steps, learning_rate, pace.warmup, log_every=pace.log_every, precision=pace.precision)
    trained = train(
        model,
        language_loss,
        batch,
        plan,
        optimizer=optimizer,
        evaluate=lambda model: {f"loss_{first}": mean_loss(model, followed)},
        stop_above=1.5 * math.log(vocab_size),
        setting=setting.label,
        checkpoint=scratch / "checkpoint",
        checkpoint_every=pace.log_every * 5,
    )
    ended = trained.diverged_at is None
    seen = [
        {name: value.to(model.device) for name, value in batch(step).items()}
        for step in range(looks.sharpness_batches if looks else 1)
    ]
    if not ended:
        model, optimizer, report = _quantized(shape, tokenizer, pace, setting, seed)
        first_gradient = replace(plan, steps=1, log_every=1, learning_rate=0.0)
        train(model, language_loss, batch, first_gradient, optimizer=optimizer, setting=setting.label)
    moved = assert_took_effect(measure_effect(model, lambda model: language_loss(model, seen[0]), optimizer), report)
    rise, tables = None, {}
    if looks and ended:
        rise = sharpness(model, language_loss, seen, looks.sharpness_radius)
    if looks and ended and not setting.quantizers():
        tables = examine(model, lambda model: language_loss(model, seen[0]), optimizer, followed, looks)
    curve = {column: [row[column] for row in trained.curve] for column in (trained.curve or [{}])[0]}
    return {
        "setting": setting.label,
        **{f"loss_{name}": mean_loss(model, ids) if ended else None for name, ids in held_out.items()},
        "train_loss": trained.curve[-1]["loss"] if ended else None,
        "sharpness": rise,
        "uniform_loss": math.log(vocab_size),
        "diverged_at": trained.diverged_at,
        "quantized_layers": len(report.layers) if setting.quantizers() else 0,
        **{f"error_{component}": moved.get(component) for component in COMPONENTS},
        **trained.used,
        "curve": curve,
        **{name: table.to_dict("list") for name, table in tables.items()},
    }


def _quantized(
    shape: dict, tokenizer: Path, pace: Schedule, setting: Recipe, seed: int
) -> tuple[PreTrainedModel, Optimizer, QuantizationReport]:
    """A new model and its optimiser under a recipe, and what was quantised."""
    model = new_model(shape, tokenizer, seed)
    report = quantize(model, setting)
    optimizer = adamw(model, weight_decay=pace.weight_decay)
    quantize_moments(optimizer, model, setting, seed=seed)
    return model, optimizer, report


def new_model(shape: dict, tokenizer: Path, seed: int) -> PreTrainedModel:
    """A model of that `Shape` with random weights, for the vocabulary of a tokenizer."""
    size = Shape.model_validate(shape)
    settings = size.model_dump(exclude={"outlier_scale", "outlier_channels"})
    model = new_language_model(vocab_size=len(AutoTokenizer.from_pretrained(tokenizer)), seed=seed, **settings)
    if size.outlier_scale != 1:
        inject_outliers(model, size.outlier_scale, range(size.outlier_channels))
    return model
