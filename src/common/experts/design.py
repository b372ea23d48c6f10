"""What the study's parameters may be: merges, rivals, coefficients and margins, each checked before anything runs."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from common.merging import METHODS
from common.parameters import Distinct
from common.preference.adapters import Lora

Rival = Literal["SFT", "DPO", "ORPO", "SFT, LoRA", "DPO, LoRA", "ORPO, LoRA"]
Coefficients = Distinct[PositiveFloat]
Several = Annotated[int, Field(ge=2)]  # seeds: fewer have no spread


class Checked(BaseModel):
    """A parameter that is refused where it has a part that is none of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Merge(Checked):
    """A method of `common.merging` with the settings among which the pilot chooses."""

    method: str
    settings: Annotated[list[dict[str, Any]], Field(min_length=1)]

    @model_validator(mode="after")
    def _there(self) -> "Merge":
        if self.method not in METHODS:
            raise ValueError(f"there is no merge method {self.method!r}; allowed: {', '.join(METHODS)}")
        return self


class Plane(Checked):
    """The values of MergeAlign's two coefficients that are tried, each with each."""

    a: Coefficients
    b: Coefficients


class Rivalry(Checked):
    """How long and on how much rivals train; `beta` is that of DPO and ORPO, `lora` the adapter where there is one."""

    steps: PositiveInt
    batch_size: PositiveInt
    warmup: NonNegativeInt
    beta: PositiveFloat
    lora: Lora


class Margins(Checked):
    """The smallest differences that matter."""

    safety: PositiveFloat
    gain: PositiveFloat
    balanced: PositiveFloat
    correlation: PositiveFloat


def tunings(rival: str, rates: Sequence[float], rivalry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A rival's fine-tunings (see `common.preference.tuning.Tuning`), one for each learning rate."""
    method, _, adapter = rival.partition(", ")
    knobs = {name: rivalry[name] for name in ("steps", "batch_size", "warmup")} | {"method": method.lower()}
    knobs |= {"beta": rivalry["beta"]} if method != "SFT" else {}
    knobs |= {"lora": rivalry["lora"]} if adapter else {}
    return [knobs | {"learning_rate": rate} for rate in rates]
