"""Evaluate tuned models and merges of them: the functions that sweeps call.

`start`, `reference` and adapters name folders among `models`. Evaluated are the models of `seed`'s own start.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common import zoo
from common.alignment.evaluation import decodings, evaluate, likeliest_replies
from common.alignment.questions import Questions, questions
from common.errors import UserError
from common.judges.others import Judges
from common.merging.recipe import takes_base
from common.merging.states import merge_state_dicts
from common.models import host_state
from common.preference.adapters import load_adapter, merge, to_nf4
from common.scoring.generation import Decoding


class Attack(BaseModel):
    """A setting of decoding, as `common.scoring.generation.Decoding` has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: PositiveFloat
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class Asked(BaseModel):
    """How much is asked of a model, and by which decodings it is attacked; see `questions` and `decodings`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: PositiveInt
    written: PositiveInt
    unsafe: PositiveInt
    facts_asked: PositiveInt
    instructions: PositiveInt
    attacks: tuple[Attack, ...]
    judges: Judges = Judges()


class Asking(Asked):
    """An exam: how much, of what."""

    split: Literal["validation", "test"]
    facts_per_relation: PositiveInt  # that bases read

    def questions(self, models: Mapping[str, Path], **files: Path) -> Questions:
        """Asked of tables; among `models` are the folders of judges, by the names of the models."""
        knobs = self.model_dump(exclude={"attacks", "judges"})
        return questions(**knobs, others=self.judges.found(models), **files)

    def decodings(self) -> list[Decoding]:
        return decodings([attack.model_dump() for attack in self.attacks])


def evaluate_tuned(
    start: str, adapter: str | None, base_dtype: Literal["float32", "nf4"], reference: str, asking: dict, seed: int, *,
    facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path, judged_responses: Path, **models: Path,
) -> dict[str, float]:  # fmt: skip
    """The measures of `start` with an adapter on it, or of `start` alone: see `common.alignment.evaluation.MEASURES`.

    With `base_dtype` nf4 the adapter's base is packed as it was in training, and so is the reference of KL and ranks.
    """
    setting = Asking.model_validate(asking)
    asked = setting.questions(
        models, facts=facts, unsafe_prompts=unsafe_prompts, benign_prompts=benign_prompts, replies=replies,
        judged_responses=judged_responses,
    )  # fmt: skip
    rival = _rival(models[reference], asked)
    own, tokenizer = _start(models[start], base_dtype)
    tuned = own
    if adapter is not None:
        tuned = load_adapter(_start(models[start], base_dtype)[0], models[adapter])
        tuned = tuned if base_dtype == "nf4" else merge(tuned)
    return evaluate(tuned, tokenizer, asked, start=own, rival=rival, attacks=setting.decodings())


def evaluate_merge(
    start: str, first: str, second: str, third: str | None, fourth: str | None, method: str, settings: dict[str, Any],
    reference: str, asking: dict, seed: int, *, facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path,
    judged_responses: Path, **models: Path,
) -> dict[str, float]:  # fmt: skip
    """The measures of a merge of two to four models, each `start` with its adapter added to the weights.

    `method` and `settings` are those of `common.merging`; SLERP goes from the first to the second. `seed` is that of
    what a method draws at random. Raises `RuntimeError` where the merge is one of the models that it is made of.
    """
    setting = Asking.model_validate(asking)
    asked = setting.questions(
        models, facts=facts, unsafe_prompts=unsafe_prompts, benign_prompts=benign_prompts, replies=replies,
        judged_responses=judged_responses,
    )  # fmt: skip
    rival = _rival(models[reference], asked)
    own, tokenizer = _start(models[start], "float32")
    parents = [name for name in (first, second, third, fourth) if name is not None]
    origin = host_state(own)
    states = [host_state(merge(load_adapter(_start(models[start], "float32")[0], models[name]))) for name in parents]
    merged = merge_tuned(method, origin, states, settings, seed)
    for name, state in zip((start, *parents), (origin, *states), strict=True):
        if all(torch.equal(merged[key], state[key]) for key in merged):
            raise RuntimeError(f"{method} {settings} gives {name} itself: it merged nothing")
    model, _ = _start(models[start], "float32")
    model.load_state_dict(merged)
    return evaluate(model, tokenizer, asked, start=own, rival=rival, attacks=setting.decodings())


def merge_tuned(
    method: str, start: dict[str, Tensor], tuned: Sequence[dict[str, Tensor]], settings: dict[str, Any], seed: int
) -> dict[str, Tensor]:
    """The merge of weights that were tuned from the same start; `UserError` where settings are none of the method's."""
    drawn = {"seed": seed} if method.startswith("dare") else {}
    if method == "slerp":
        return merge_state_dicts(method, tuned[0], tuned[1:], **settings)
    return merge_state_dicts(method, start if takes_base(method) else None, tuned, **drawn, **settings)


def _start(folder: Path, base_dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model, tokenizer = zoo.load(str(folder))
    if base_dtype not in ("float32", "nf4"):
        raise UserError(f"base_dtype is {base_dtype!r}, allowed: float32, nf4")
    return (to_nf4(model) if base_dtype == "nf4" else model), tokenizer


@cache
def _rival(folder: Path, asked: Questions) -> tuple[str, ...]:
    """What the reference wrote, once for all models that a process evaluates.

    Asked for before these are loaded: two models have room on a GPU where three have not.
    """
    return likeliest_replies(*zoo.load(str(folder)), asked)
