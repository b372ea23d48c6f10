"""The knobs of a network that is grown, and of what it is grown into."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from common.models import Family
from common.parameters import Distinct

Kind = Literal["perceptron", "language"]
Several = Annotated[int, Field(ge=2)]  # a curve needs two points
Warmup = Annotated[int, Field(ge=0)]
Way = Literal["net2wider", "copy_noise", "fpi", "aki", "zero", "random"]
Deep = Literal["identity", "stack", "interpolate", "random"]


class Knobs(BaseModel):
    """Values that must all be known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Pace(Knobs):
    """A training run: Adam, a cosine from the rate to a tenth of it."""

    steps: Several
    learning_rate: PositiveFloat
    warmup: Warmup  # steps


class Steps(Knobs):
    """Continuations that look for minima, as `common.predictors.Walk`."""

    count: Annotated[int, Field(ge=3)]
    steps: PositiveInt
    learning_rate: PositiveFloat
    warmup: Warmup


class Course(Knobs):
    """How expansions are judged and trained on."""

    judged: PositiveInt  # examples of the training data on which minima are judged
    walk: Steps
    further: Pace  # of the base and of each expansion


class Perceptron(Knobs):
    """A multilayer perceptron with ReLU, and how it is trained first."""

    hidden: Annotated[list[PositiveInt], Field(min_length=1)]
    batch: PositiveInt  # images
    base: Pace


class Language(Knobs):
    """A causal language model over bytes, and how it is trained first."""

    family: Family
    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    context: PositiveInt  # bytes
    embedding_std: PositiveFloat
    batch: PositiveInt  # windows of one context each
    held_out: PositiveInt  # windows for validation, and as many for testing
    base: Pace


class Grown(Knobs):
    """What a network grows into, and how; `width` where it gets wider, `depth` where it gets deeper."""

    width: Way | None = None
    depth: Deep | None = None
    noise: Annotated[float, Field(gt=0, lt=1)] | None = None  # of noisy copies, in standard deviations of a tensor

    @model_validator(mode="after")
    def _grows(self) -> Self:
        wider, deeper = self.larger()
        for name, grows in (("width", wider), ("depth", deeper)):
            if grows != (getattr(self, name) is not None):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, allowed: a way where a size asks for it, and only there"
                )
        if (self.noise is not None) != (self.width == "copy_noise"):
            raise ValueError(f"noise is {self.noise} with width {self.width}, allowed: with copy_noise, and only there")
        if not (wider or deeper):
            raise ValueError("nothing grows: name a size")
        return self

    def larger(self) -> tuple[bool, bool]:
        """Whether a size of the width is named, and the number of layers."""
        raise NotImplementedError


class Widths(Grown):
    """What a perceptron grows into: sizes of the hidden layers that it has, and how many layers there are to be."""

    widths: list[PositiveInt] | None = None
    layers: PositiveInt | None = None

    def larger(self) -> tuple[bool, bool]:
        return self.widths is not None, self.layers is not None


class Sizes(Grown):
    """What a language model grows into; `to` as `common.expansion.expand` takes it."""

    to: dict[str, PositiveInt]

    def larger(self) -> tuple[bool, bool]:
        return bool(self.to.keys() - {"layers"}), "layers" in self.to


class Walks(Knobs):
    """Numbers of continuations and of their steps at which M is measured beside, on the first so many seeds."""

    counts: Distinct[Annotated[int, Field(ge=3)]]
    steps: Distinct[PositiveInt]
    seeds: PositiveInt


class Slices(Knobs):
    """Candidates on a task whose loss surface is shown, and the points along an edge of the slice."""

    task: Literal["mnist", "digits", "text"]
    candidates: Distinct[str]
    places: Annotated[int, Field(ge=3)]


class Margins(Knobs):
    """The smallest rank correlation, difference of two, share of the best gain, and difference of M that matter."""

    correlation: PositiveFloat
    lead: PositiveFloat
    regret: PositiveFloat
    parts: PositiveFloat
