"""The study's arms as its parameters list them, and the run that each arm and seed is."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from common.alignment.preparing import Selection
from common.errors import UserError
from common.pairs.table import Choice
from common.preference.tuning import LossType, Method, Tuning

Start = Literal["base", "instruct", "unseen", "reader"]


class Arm(BaseModel):
    """A fine-tuning that is repeated over seeds. What is None is as the recipe of the method has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: Start
    data: str
    aim: Choice
    method: Method
    quantized: bool = False
    n: PositiveInt | None = None  # pairs; None: all
    selection: Selection = "random"
    r: PositiveInt | None = None  # rank of the adapter, whose alpha goes with it
    loss_type: LossType | None = None
    beta: PositiveFloat | None = None
    label_smoothing: PositiveFloat | None = None


def tuning(arm: Arm, recipe: Tuning) -> dict[str, Any]:
    """An arm's `common.preference.tuning.Tuning`: the recipe, with what the arm has otherwise.

    Raises `UserError` where the recipe is of another method or has no adapter, or the loss does not take a parameter.
    """
    if recipe.method != arm.method or recipe.lora is None:
        raise UserError(f"the recipe is {recipe.method} {'with' if recipe.lora else 'without'} an adapter, not {arm}")
    lora = recipe.lora.model_dump() | {"quantized": arm.quantized}
    if arm.r is not None:
        lora |= {"r": arm.r, "lora_alpha": max(1, round(recipe.lora.lora_alpha * arm.r / recipe.lora.r))}
    other = {name: getattr(arm, name) for name in ("loss_type", "beta", "label_smoothing")}
    given = recipe.model_dump(exclude_none=True) | {name: value for name, value in other.items() if value is not None}
    made = Tuning.model_validate(given | {"lora": lora})
    made.check()
    return made.model_dump(mode="json", exclude_none=True)


def start_name(arm: Arm, seed: int) -> str:
    """Name of the kept model that an arm starts from."""
    return f"{arm.start}_{seed}"


def data_name(arm: Arm, seed: int) -> str:
    """Name of the kept pairs: those of reviews are sampled from each model that starts."""
    return f"{arm.data}_{seed}" if arm.start == "reader" else arm.data


def reference_name(arm: Arm, seed: int) -> str | None:
    """Name of the kept reference log-probabilities; None where the arm's loss has no reference."""
    if arm.method in ("sft", "orpo", "simpo"):
        return None
    return f"reference_{start_name(arm, seed)}_{data_name(arm, seed)}{'_nf4' if arm.quantized else ''}"


def reference_cells(arms: Sequence[Arm], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """By the reference's name the cell of `common.alignment.training.refer`, once for all arms that share it."""
    return {
        name: {
            "start": start_name(arm, seed), "data": data_name(arm, seed), "quantized": arm.quantized, "seed": seed,
        }
        for arm in arms for seed in seeds if (name := reference_name(arm, seed)) is not None
    }  # fmt: skip


def tuning_cells(arms: Sequence[Arm], recipe: Mapping[str, Tuning], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Cells of `common.alignment.training.tune`, each arm with each seed; `recipe` has one for each method."""
    if absent := {arm.method for arm in arms} - recipe.keys():
        raise UserError(f"there is no recipe for {', '.join(sorted(absent))}")
    return [
        {
            "start": start_name(arm, seed), "data": data_name(arm, seed), "aim": arm.aim, "n": arm.n,
            "selection": arm.selection, "tuning": tuning(arm, recipe[arm.method]),
            "reference": reference_name(arm, seed), "seed": seed,
        }
        for arm in arms for seed in seeds
    ]  # fmt: skip


def check_balanced(arms: Sequence[Arm], factors: Sequence[str]) -> None:
    """Raise `UserError` where an arm is there twice, or two factors' levels do not all meet equally often.

    Only then is what a factor does, the mean over the arms of a level, not also what another one does.
    """
    if len(set(arms)) < len(arms):
        raise UserError("the same arm is there twice")
    for pair in combinations(factors, 2):
        met = Counter(tuple(getattr(arm, name) for name in pair) for arm in arms)
        levels = [{getattr(arm, name) for arm in arms} for name in pair]
        if len(met) < len(levels[0]) * len(levels[1]) or len(set(met.values())) > 1:
            counts = ", ".join(
                f"{' and '.join(map(str, each))} {times}" for each, times in sorted(met.items(), key=str)
            )
            raise UserError(f"arms are not balanced in {' and '.join(pair)}: {counts}")
