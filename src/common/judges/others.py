"""Models that others trained, as judges in the places of ours: how studies name them, and how they are opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from common.judges.hub import check_classifier, check_guard, load_classifier, load_guard
from common.judges.judge import Judge


class Classifier(BaseModel):
    """A classifier as a judge: see `common.judges.hub.ClassifierJudge`.

    `model` names it as `common.bases.given.Given` does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    label: Annotated[str, Field(min_length=1)]
    means: Literal["safe", "unsafe"]  # of a label of refusals: safe


class Guard(BaseModel):
    """A guard model as a judge of safety: see `common.judges.hub.GuardJudge`. `model` as a `Classifier`'s."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    opening: str  # what it writes before its verdict


Others = tuple[tuple[str, Classifier | Guard, Path], ...]
"""Whose place each takes, safe or refuses, and the folder that it is in."""


class Judges(BaseModel):
    """Models in the places of our judges of safety and of refusals (`common.judges.default`); None: ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    safe: Classifier | Guard | None = None
    refuses: Classifier | None = None

    def named(self) -> dict[str, Classifier | Guard]:
        """Those there are, by the judge whose place each takes."""
        return {name: each for name, each in self if each is not None}

    def found(self, folders: Mapping[str, Path]) -> Others:
        """Those there are, with their folders, which stand among `folders` by the names of the models."""
        return tuple((name, each, folders[each.model]) for name, each in self.named().items())


@dataclass(frozen=True)
class OfReplies:
    """A judge that is shown replies alone: a model that was trained on these would take a prompt for part of one."""

    judging: Judge

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return self.judging.judge([""] * len(prompts), responses)


def opened(others: Others) -> dict[str, Judge]:
    """Judges by the place that each takes; a model is loaded once in a process, whatever exams it judges in."""
    found = {name: _opened(each, folder) for name, each, folder in others}
    return found | {"refuses": OfReplies(found["refuses"])} if "refuses" in found else found


@cache
def _opened(judge: Classifier | Guard, folder: Path) -> Judge:
    if isinstance(judge, Guard):
        return load_guard(str(folder), None, judge.opening)
    return load_classifier(str(folder), None, judge.label, judge.means)


def check(judge: Classifier | Guard, folder: Path) -> None:
    """Raise `UserError`, before weights are opened, where the model in a folder can't be that judge."""
    if isinstance(judge, Guard):
        check_guard(judge.model, folder, judge.opening)
    else:
        check_classifier(judge.model, folder, judge.label)
