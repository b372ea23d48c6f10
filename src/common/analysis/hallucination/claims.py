"""What counts for the study's claims, and the differences by seed that decide them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.analysis.hallucination.arms import ATTENTION, BASE, HYBRID, KINDS, LARGE, RECURRENT, TUNED
from common.errors import UserError
from common.evidence import proportion_interval
from common.hallucination.questions import CONTROL
from common.hallucination.world import QUARTILES

ASPECTS = ("factuality", "faithfulness")
RARE = {"task": "recall", "breakdown": "frequency", "value": QUARTILES[-1]}
CONFLICT = "conflict"
TRAP = {"task": "endings", "breakdown": "asked", "value": "otherwise"}


@dataclass(frozen=True)
class Basis:
    """What counts for the claims, by the pilot.

    Tasks of each stage that tell; arms that follow stories; and arms that know the proverbs by heart.
    """

    tasks: Mapping[str, Sequence[str]]
    following: Sequence[str]
    knowing: Sequence[str]


def basis(pilot: pd.DataFrame, margin: float) -> Basis:
    """Tasks on which an arm of the pilot beats chance by `margin`, and arms whose base models do on two tasks.

    To beat it, the lower end of the exact 95% interval over the items of all seeds must lie above. On the other tasks
    all guess, and a mean over them and the rest would only be drawn towards what guessing gives; so would a mean over
    arms that follow no story before and after. `following` are arms that beat chance so on conflicts, `knowing` those
    that do on proverbs without an instruction: an arm that does not know a proverb cannot be tempted by it. Of an
    aspect with no such task all tasks are kept, and of a kind of architecture with no such arm all arms. `pilot` has
    answers as `evidence` takes them.
    """
    rows = pilot[(pilot["size"] == LARGE) & (pilot["breakdown"] == "all") & (pilot["temperature"] == 0.0)]
    tasks: dict[str, list[str]] = {BASE: [], TUNED: []}
    for (stage, _), several in rows[rows["task"] != CONTROL].groupby(["stage", "aspect"], sort=False):
        tells = {task: bool(_above_chance(own, margin)) for task, own in several.groupby("task", sort=False)}
        tasks[stage] += [task for task in tells if tells[task]] or list(tells)
    arms = []
    for task in (CONFLICT, CONTROL):
        asked = rows[(rows["stage"] == BASE) & (rows["task"] == task)]
        kinds = [asked.loc[asked["kind"] == kind, "arm"].unique().tolist() for kind in KINDS]
        sure = _above_chance(asked, margin)
        arms.append([arm for several in kinds for arm in [one for one in several if one in sure] or several])
    return Basis(tasks, *arms)


def _above_chance(answers: pd.DataFrame, margin: float) -> list[str]:
    """Arms that beat chance by the margin, with the lower end of their interval, on a task whose answers these are."""
    found = []
    for arm, own in answers.groupby("arm", sort=False):
        right, items = ((1 - own["wrong"]) * own["items"]).sum(), int(own["items"].sum())
        if proportion_interval(round(right), items).low > own["chance"].mean() + margin:
            found.append(arm)
    return found


def share(answers: pd.DataFrame, **wanted: object) -> pd.Series:
    """Mean share of wrong answers by seed over the arms and tasks of the rows wanted, at temperature 0.

    Each arm is as heavy, and each task of an arm. `wanted` are values of columns; without a breakdown the rows for all
    items of a task count.
    """
    wanted = {"breakdown": "all"} | wanted
    rows = answers[answers["temperature"] == 0.0]
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    if rows.empty:
        raise UserError(f"nothing was answered with {', '.join(f'{k}={v}' for k, v in wanted.items())}")
    return rows.groupby(["seed", "arm"])["wrong"].mean().groupby("seed").mean()


def evidence(answers: pd.DataFrame, basis: Basis) -> dict[str, np.ndarray]:
    """What decides each claim, by its id: differences by seed, of shares of answers that are wrong.

    `answers`: see `arms.of_models`; all sizes and stages. Arms of the large size count unless a claim is on size. An
    aspect is the mean over those of its tasks that `basis` has for the stage. What is said of tuning takes for both
    stages the tasks of tuned models, and the arms that follow; what is said of endings, those that know the proverbs.
    """
    large = answers[answers["size"] == LARGE]
    base, tuned = (large[large["stage"] == stage] for stage in (BASE, TUNED))
    smallest = answers.sort_values("parameters")["size"].iloc[0]
    both = answers.loc[answers["size"] == smallest, "arm"]
    sized = answers[answers["arm"].isin(both) & (answers["stage"] == BASE) & answers["task"].isin(basis.tasks[BASE])]

    def kinds(rows: pd.DataFrame, **wanted: object) -> np.ndarray:
        """Recurrent minus attention."""
        return _paired(*(share(rows, kind=kind, **wanted) for kind in (RECURRENT, ATTENTION)))

    rare, endings = kinds(base, **RARE), -kinds(tuned[tuned["arm"].isin(basis.knowing)], **TRAP)
    found = {"rare": rare, "endings": endings, "differs": rare + endings}
    attention = share(base, kind=ATTENTION, **RARE)
    gaps = [_paired(share(base, arm=arm, **RARE), attention) for arm in arms_of(base, RECURRENT)]
    found["rare_each"] = np.min(gaps, axis=0)
    before, after = (rows[rows["task"].isin(basis.tasks[TUNED])] for rows in (base, tuned))
    each = [share(after, arm=arm, aspect=aspect) for arm in sorted(set(after["arm"])) for aspect in ASPECTS]
    found["universal"] = pd.concat(each, axis=1).min(axis=1).to_numpy()
    for kind in (ATTENTION, RECURRENT):
        for aspect in ASPECTS:
            smaller, larger = (share(sized, size=size, kind=kind, aspect=aspect) for size in (smallest, LARGE))
            found[f"size_{kind}_{aspect}"] = _paired(smaller, larger)
    found["size_differs"] = found[f"size_{ATTENTION}_faithfulness"] - found[f"size_{RECURRENT}_faithfulness"]
    before, after = (rows[rows["arm"].isin(basis.following)] for rows in (before, after))
    for kind in (ATTENTION, RECURRENT):
        first, second = (share(rows, kind=kind, aspect="faithfulness") for rows in (before, after))
        found[f"tuning_{kind}"] = _paired(first, second)
    found["tuning_differs"] = found[f"tuning_{ATTENTION}"] - found[f"tuning_{RECURRENT}"]
    asked = [rows[rows["arm"].isin(basis.following)] for rows in (tuned, base)]
    for kind in (ATTENTION, RECURRENT):
        found[f"stories_{kind}"] = _paired(*(share(rows, kind=kind, task=CONFLICT) for rows in asked))
    found["hybrid"] = _paired(*(share(base, kind=kind, task=CONFLICT) for kind in (ATTENTION, HYBRID)))
    return found


def arms_of(rows: pd.DataFrame, kind: str) -> list[str]:
    return sorted(set(rows.loc[rows["kind"] == kind, "arm"]))


def _paired(first: pd.Series, second: pd.Series) -> np.ndarray:
    """First minus second by seed; `UserError` unless the seeds are the same."""
    if list(first.index) != list(second.index):
        raise UserError(f"seeds {list(first.index)} and {list(second.index)} cannot be paired")
    return (first - second).to_numpy()
