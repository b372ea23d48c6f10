"""What the study claims, how each claim is tested, and the numbers that decide it.

The order is: `declare`, from the pilot alone, before the reported runs; then `evidence`, from these.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from common.analysis.expansion.foresight import (
    PREDICTORS,
    RIVALS,
    RUN,
    at_equal_size,
    by_seed,
    parted,
    regret,
)
from common.errors import UserError
from common.evidence import Claim, detectable_effect, minus

GREATER, SAFE = "greater", "non_inferior"
STRONG = "the performance gain of an expansion correlates strongly with the change of M"
BEST = "M beats other predictors, even across types of expansion at equal parameter count"
TASKS = {"mnist": "MNIST", "digits": "scikit-learn's digits", "text": "a language model"}
WALKED = ("mnist", "digits")  # where K and T vary
RHO = "Spearman's correlation with the gain, over these candidates"
NOT_STRENGTH = "tested for being above zero, not for being strong"
REST = tuple(name for name in RIVALS if name != RUN)  # of the best, each task has a claim of its own


class Statement(NamedTuple):
    """A claim's words, what is measured, its test, the name of its margin, and its figure."""

    id: str
    paper: str | None
    statement: str
    ours: str
    test: str
    margin: str
    figure: str


def statements() -> list[Statement]:
    """All claims, in order."""
    mean = "averaged over the three tasks, by seed"
    return [
        *(
            Statement(
                f"foresees_{task}", STRONG, f"the gain correlates with M on {words}", f"{RHO}, by seed; {NOT_STRENGTH}",
                GREATER, "correlation", "gain",
            )
            for task, words in TASKS.items()
        ),
        *(
            Statement(
                f"beats_run_{task}", BEST, f"M predicts the gain better than a training run of equal cost on {words}",
                f"{RHO}, M's minus the run's, by seed", GREATER, "lead", "lead",
            )
            for task, words in TASKS.items()
        ),
        *(
            Statement(
                f"beats_{rival}", BEST, f"M predicts the gain better than {with_article(PREDICTORS[rival])}",
                f"{RHO}, M's minus the rival's, {mean}", GREATER, "lead", "lead",
            )
            for rival in REST
        ),
        Statement(
            "equal_size", STRONG, "the gain correlates with M across types at equal size",
            f"{RHO}, within sets of exactly equal parameter count, {mean}; {NOT_STRENGTH}", GREATER, "correlation",
            "equal",
        ),
        Statement(
            "equal_size_run", BEST, "M predicts the gain better than a training run of equal cost, at equal size",
            f"{RHO}, within sets of exactly equal parameter count, M's minus the run's, {mean}", GREATER, "lead",
            "equal",
        ),
        *(
            Statement(
                f"needs_{part}", None, f"M predicts the gain better than its {other} alone",
                f"{RHO}, M's minus that of its {other}, {mean}", GREATER, "lead", "lead",
            )
            for part, other in (("volume", "level"), ("level", "volume"))
        ),
        Statement(
            "choice", None, "the candidate of the highest M gains nearly as much as the best",
            f"share of the best candidate's gain that is missed, {mean}", SAFE, "regret", "regret",
        ),
        Statement(
            "stable", None, "M predicts the gain as well at any K and T of the range",
            f"{RHO}, at the K and T chosen minus the lowest of the range, averaged over both sets of digits, by seed",
            SAFE, "lead", "walks",
        ),
        Statement(
            "needs_lines", None, "M predicts the gain better than with losses at the minima alone, without barriers",
            f"{RHO}, M's minus that of M without lines, averaged over K, T and both sets of digits, by seed",
            GREATER, "lead", "walks",
        ),
        Statement(
            "parts_copies", None, "M tells useful fresh units from useless copies of equal size",
            f"M of fresh units that nothing reads yet minus M of exact copies, {mean}", GREATER, "parts", "change",
        ),
    ]  # fmt: skip


def with_article(words: str) -> str:
    """A predictor's label within a sentence: what is no single word or name takes an article."""
    return f"the {words}" if " " in words else words


def check_walks(walks: Mapping[str, object], seeds: Sequence[int], minimum_seeds: int) -> None:
    """Raise `UserError` where the seeds on which K and T vary are too few, or more than there are."""
    if not minimum_seeds <= walks["seeds"] <= len(seeds):
        raise UserError(f"walks.seeds is {walks['seeds']}, allowed: {minimum_seeds} to {len(seeds)}")


def declare(pilot: pd.DataFrame, *, seeds: int, walked: int, margins: Mapping[str, float]) -> list[Claim]:
    """The claims, each with the smallest effect that its seeds would see four times in five.

    By the spread of the pilot between seeds, at the level that Holm's correction leaves to the first; claims that
    rest on other K and T have `walked` seeds, all others `seeds`. `margins`: correlation, lead, regret, parts.
    """
    every = statements()
    level = 0.025 / len(every)
    spreads = {
        "correlation": by_seed(pilot, "m"),
        "lead": by_seed(pilot, "m") - by_seed(pilot, RUN),
        "regret": by_seed(pilot, "m", regret),
        "parts": parted(pilot),
    }
    found = {name: max(_spread(values), 0.01) for name, values in spreads.items()}
    return [
        Claim(
            id=one.id, paper=one.paper, statement=one.statement, ours=one.ours, test=one.test,
            margin=margins[one.margin], figure=one.figure,
            detectable=detectable_effect(found[one.margin], walked if one.figure == "walks" else seeds, alpha=level),
        )
        for one in every
    ]  # fmt: skip


def evidence(scored: pd.DataFrame, walks: pd.DataFrame) -> dict[str, np.ndarray]:
    """What decides each claim, by its id: correlations, or their differences, by seed.

    `walks`: see `common.analysis.expansion.tables.walk_correlations`.
    """
    m = by_seed(scored, "m")
    found = {f"foresees_{task}": m[task] for task in TASKS}
    run = by_seed(scored, RUN)
    found |= {f"beats_run_{task}": minus(m[task], run[task]) for task in TASKS}
    found |= {f"beats_{rival}": minus(averaged(m), averaged(by_seed(scored, rival))) for rival in REST}
    equal = averaged(at_equal_size(scored, "m"))
    found |= {
        "equal_size": equal,
        "equal_size_run": minus(equal, averaged(at_equal_size(scored, RUN))),
        "needs_volume": minus(averaged(m), averaged(by_seed(scored, "level"))),
        "needs_level": minus(averaged(m), averaged(by_seed(scored, "volume"))),
        "choice": averaged(by_seed(scored, "m", regret)),
    }
    least = walks.groupby(["task", "seed"])["correlation"].min()
    found["stable"] = averaged(minus(m.loc[least.index], least))
    lines = (walks["correlation"] - walks["at_ends"]).groupby([walks["task"], walks["seed"]]).mean()
    found["needs_lines"] = averaged(lines)
    found["parts_copies"] = averaged(parted(scored))
    return {name: values.to_numpy(dtype=float) for name, values in found.items()}


def averaged(values: pd.Series) -> pd.Series:
    """The mean over tasks, by seed; `values` by task and seed. Raises `UserError` where a task lacks a seed."""
    table = values.unstack(level=0)
    if table.isna().any(axis=None):
        raise UserError("the tasks have not the same seeds")
    return table.mean(axis=1)


def _spread(values: pd.Series) -> float:
    """Standard deviation between seeds, pooled over tasks."""
    return float(np.sqrt(values.groupby(level=0).var(ddof=1).mean()))
