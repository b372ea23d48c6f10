"""What is quantised, to how many bits, and who shares a scale: the settings of one quantised run."""

import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError, field_validator, model_validator

from common.errors import UserError

Bits = Literal[2, 3, 4, 8]
Granularity = Literal["tensor", "channel", "token", "group"]

# A token has no meaning in a weight; a channel's maximum over all tokens would let tokens see each other.
GRANULARITIES: dict[str, tuple[Granularity, ...]] = {
    "weights": ("tensor", "channel", "group"),
    "activations": ("tensor", "token", "group"),
    "gradients": ("tensor", "token", "group"),
    "first_moment": ("tensor", "channel", "group"),
    "second_moment": ("tensor", "channel", "group"),
}
COMPONENTS = tuple(GRANULARITIES)
FULL_PRECISION = "full precision"
# As in the paper; the moments' own names end in a digit already.
SYMBOLS = {"weights": "W", "activations": "A", "gradients": "G", "first_moment": "m1 ", "second_moment": "m2 "}


class _Settings(BaseModel):
    """A frozen record whose validation errors are one `UserError` line: field, what is wrong, what was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise UserError(f"{type(self).__name__}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] != "value_error":  # messages of this module's own checks say what was given
            message += f" (got {problem['input']!r})"
        parts.append(f"{where}: {message}" if where else message)
    return "; ".join(parts)


class Quantizer(_Settings):
    """A uniform quantiser with a dynamic range: the scale comes from the tensor itself at each call.

    `granularity` says which values share one scale: the whole tensor, an output channel (a row of a Linear's
    weight), a token (a row of activations), or `group_size` neighbours along the last (input) dimension.
    """

    bits: Bits
    granularity: Granularity
    symmetric: bool = True
    group_size: PositiveInt | None = None

    @model_validator(mode="after")
    def _group_size_goes_with_groups(self) -> Self:
        if (self.granularity == "group") != (self.group_size is not None):
            raise ValueError(
                f"group_size must be given with granularity 'group' and only then "
                f"(got granularity {self.granularity!r}, group_size {self.group_size})"
            )
        return self

    def __str__(self) -> str:
        shared = f"group of {self.group_size}" if self.group_size else self.granularity
        return f"{self.bits}-bit {shared}" + ("" if self.symmetric else " asymmetric")


class MomentQuantizer(Quantizer):
    """A quantiser of an Adam moment; `code` says how its levels are spaced.

    `"linear"` is the paper's. `"log"` and `"log-stochastic"` are for the second moment, see `fake.log_quantize`:
    linear levels turn its small values into 0, and Adam divides by their root.
    """

    code: Literal["linear", "log", "log-stochastic"] = "linear"

    @model_validator(mode="after")
    def _log_has_no_zero_point(self) -> Self:
        if self.code != "linear" and not self.symmetric:
            raise ValueError(f"code {self.code!r} has no zero point: leave symmetric at True")
        return self

    def __str__(self) -> str:
        return super().__str__() + ("" if self.code == "linear" else f" {self.code}")


class Recipe(_Settings):
    """The quantisers of one run, by component; without any it is the full-precision baseline.

    `gradient_branch`: the product of the backward pass that sees the quantised output gradient: the weight's
    (the paper's default) or the input's. `backward`: `"paper"` multiplies gradients with the unquantised input
    and weight, `"straight-through"` with the quantised ones the forward pass used.
    Source: Chitsaz et al., arXiv 2407.11722. Raises `UserError` in one line on any setting that makes no sense.
    """

    weights: Quantizer | None = None
    activations: Quantizer | None = None
    gradients: Quantizer | None = None
    gradient_branch: Literal["weight", "input"] = "weight"
    backward: Literal["paper", "straight-through"] = "paper"
    first_moment: MomentQuantizer | None = None
    second_moment: MomentQuantizer | None = None

    @field_validator(*COMPONENTS, mode="wrap")
    @classmethod
    def _granularity_fits_component(cls, value: Any, handler: Any, info: Any) -> Quantizer | None:
        try:
            quantizer = handler(value)
        except UserError as error:
            raise ValueError(str(error).split(": ", 1)[1]) from None
        allowed = GRANULARITIES[info.field_name]
        if quantizer is not None and quantizer.granularity not in allowed:
            raise ValueError(f"granularity must be one of {', '.join(allowed)} (got {quantizer.granularity!r})")
        return quantizer

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if self.first_moment is not None and self.first_moment.code != "linear":
            raise ValueError("first_moment: code must be 'linear', as the log codes have no sign")
        if self.gradient_branch != "weight" and self.gradients is None:
            raise ValueError("gradient_branch 'input' needs a gradients quantiser")
        if self.backward != "paper" and self.weights is None and self.activations is None:
            raise ValueError("backward 'straight-through' needs a weights or activations quantiser")
        return self

    def quantizers(self) -> dict[str, Quantizer]:
        """The configured quantisers by component, in the order of `COMPONENTS`."""
        every = {component: getattr(self, component) for component in COMPONENTS}
        return {component: quantizer for component, quantizer in every.items() if quantizer is not None}

    def __str__(self) -> str:
        parts = [f"{component} {quantizer}" for component, quantizer in self.quantizers().items()]
        return ", ".join(parts) or FULL_PRECISION

    @property
    def label(self) -> str:
        """The recipe as figures and scales name it, such as `W8 channel` or `W8 channel + A8 token`; see `named`."""
        parts = []
        for component, quantizer in self.quantizers().items():
            bits, _, rest = str(quantizer).partition("-bit ")
            parts.append(f"{SYMBOLS[component]}{bits} {rest}")
        ways = ["input branch"] * (self.gradient_branch == "input")
        ways += [self.backward] * (self.backward != "paper")
        return ", ".join([" + ".join(parts) or FULL_PRECISION, *ways])

    @classmethod
    def named(cls, label: str) -> Self:
        """The recipe whose `label` this is: `named(recipe.label) == recipe`. Raises `UserError` on any other text."""
        return cls(**_settings_of(label))

    @model_validator(mode="before")
    @classmethod
    def _label_stands_for_settings(cls, value: Any) -> Any:
        try:
            return _settings_of(value) if isinstance(value, str) else value
        except UserError as error:  # so that pydantic says where the text stood
            raise ValueError(str(error)) from None


def as_recipe(recipe: Recipe | str) -> Recipe:
    """A recipe as it is, or the one that a label names."""
    return recipe if isinstance(recipe, Recipe) else Recipe.named(recipe)


def _settings_of(label: str) -> dict[str, Any]:
    if not isinstance(label, str):
        raise UserError(f"Recipe: a label is text such as 'W8 channel + A8 token', not {label!r}")
    parts, *ways = label.split(", ")
    settings: dict[str, Any] = {}
    for part in [] if parts == FULL_PRECISION else parts.split(" + "):
        found = _PART.fullmatch(part)
        component = _COMPONENT.get(found["symbol"].strip()) if found else None
        if component is None or component in settings:
            raise UserError(
                f"Recipe: {part!r} in {label!r} is not allowed; say {FULL_PRECISION!r}, or once for each component "
                "such as 'W8 channel', 'A4 tensor', 'G8 token', 'm1 4 group of 32', 'm2 8 channel log', joined by ' + '"
            )
        settings[component] = {"bits": int(found["bits"]), "granularity": found["granularity"]}
        if found["size"]:
            settings[component]["group_size"] = int(found["size"])
        if found["asymmetric"]:
            settings[component]["symmetric"] = False
        if found["code"]:
            settings[component]["code"] = found["code"]
    for way in ways:
        key = {"input branch": "gradient_branch", "straight-through": "backward"}.get(way)
        if key is None or key in settings:
            raise UserError(
                f"Recipe: {way!r} in {label!r} is not allowed; after a comma: input branch, straight-through"
            )
        settings[key] = way.removesuffix(" branch")
    return settings


_COMPONENT = {symbol.strip(): component for component, symbol in SYMBOLS.items()}
_PART = re.compile(
    r"(?P<symbol>[WAG]|m[12] )(?P<bits>\d) (?P<granularity>tensor|channel|token|group)( of (?P<size>\d+))?"
    r"(?P<asymmetric> asymmetric)?( (?P<code>log|log-stochastic))?"
)
