"""What the study claims, and the differences by seed that decide it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from common.analysis.hallucination.arms import ATTENTION, BASE, RECURRENT, TUNED
from common.errors import UserError
from common.evidence import Claim, detectable_effect, proportion_interval
from common.hallucination.world import QUARTILES

LARGE, SMALL = "large", "small"
PAPER = "Hallucination and architectural inductive biases, arXiv 2410.17477"
ASPECTS = ("factuality", "faithfulness")
RARE = {"task": "recall", "breakdown": "frequency", "value": QUARTILES[-1]}
TRAP = {"task": "endings", "breakdown": "asked", "value": "otherwise"}


def telling(pilot: pd.DataFrame, margin: float) -> dict[str, list[str]]:
    """Tasks that tell models apart, by stage: some arm of the pilot surely beats chance by `margin`, or memory tempts.

    Surely: so does the lower end of the exact 95% interval over the items of all seeds. On the other tasks all guess,
    and a mean over them and the rest would only be drawn towards what guessing gives. Where memory tempts, who does not
    know better answers from memory and does not guess. Of an aspect none of whose tasks tells anything, all are kept.
    `pilot` has answers as `evidence` takes them.
    """
    rows = pilot[(pilot["size"] == LARGE) & (pilot["breakdown"] == "all") & (pilot["temperature"] == 0.0)]
    found: dict[str, list[str]] = {BASE: [], TUNED: []}
    for (stage, _), several in rows.groupby(["stage", "aspect"], sort=False):
        tells = dict.fromkeys(several["task"].unique(), False)
        for (task, _), own in several.groupby(["task", "arm"], sort=False):
            right, items = ((1 - own["wrong"]) * own["items"]).sum(), int(own["items"].sum())
            surely = proportion_interval(round(right), items).low > own["chance"].mean() + margin
            tells[task] |= bool(surely or own["memorised"].notna().all())
        found[stage] += [task for task in tells if tells[task]] or list(tells)
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


def evidence(answers: pd.DataFrame, tasks: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """What decides each claim, by its id: differences by seed, of shares of answers that are wrong.

    `answers`: see `arms.of_models`; all sizes and stages. Arms of the large size count unless a claim is on size. An
    aspect is the mean over those of its tasks that are among `tasks`, by stage: see `telling`. What is said of tuning
    takes for both stages the tasks of tuned models.
    """
    large = answers[answers["size"] == LARGE]
    base, tuned = (large[large["stage"] == stage] for stage in (BASE, TUNED))
    both = set(answers.loc[answers["size"] == SMALL, "arm"])
    sized = answers[answers["arm"].isin(both) & (answers["stage"] == BASE) & answers["task"].isin(tasks[BASE])]

    def kinds(rows: pd.DataFrame, **wanted: object) -> np.ndarray:
        """Recurrent minus attention."""
        return _paired(*(share(rows, kind=kind, **wanted) for kind in (RECURRENT, ATTENTION)))

    rare, endings = kinds(base, **RARE), -kinds(tuned, **TRAP)
    found = {"rare": rare, "endings": endings, "differs": rare + endings}
    before, after = (rows[rows["task"].isin(tasks[TUNED])] for rows in (base, tuned))
    each = [share(after, arm=arm, aspect=aspect) for arm in sorted(set(after["arm"])) for aspect in ASPECTS]
    found["universal"] = pd.concat(each, axis=1).min(axis=1).to_numpy()
    for kind in (ATTENTION, RECURRENT):
        for aspect in ASPECTS:
            smaller, larger = (share(sized, size=size, kind=kind, aspect=aspect) for size in (SMALL, LARGE))
            found[f"size_{kind}_{aspect}"] = _paired(smaller, larger)
    for kind in (ATTENTION, RECURRENT):
        first, second = (share(rows, kind=kind, aspect="faithfulness") for rows in (before, after))
        found[f"tuning_{kind}"] = _paired(first, second)
    found["tuning_differs"] = found[f"tuning_{ATTENTION}"] - found[f"tuning_{RECURRENT}"]
    return found


def declare(
    pilot: pd.DataFrame, tasks: Mapping[str, Sequence[str]], *, seeds: int, margin: float, slight: float
) -> list[Claim]:
    """The claims with the smallest effect that so many `seeds` would see four times in five, by the pilot's spread.

    `pilot` and `tasks` are as `evidence` takes them. `margin` is the smallest share of answers that matters, `slight`
    how far a share may move and count as unmoved.
    """
    found = evidence(pilot, tasks)
    level = 0.025 / len(found)

    def claim(name: str, paper: str | None, statement: str, ours: str, figure: str, test: str = "greater") -> Claim:
        spread = max(float(np.std(found[name], ddof=1)), 1e-6)  # two seeds may answer alike
        return Claim(
            id=name, paper=paper, statement=statement, ours=ours, test=test,
            margin=slight if test == "equivalent" else margin,
            detectable=detectable_effect(spread, seeds, alpha=level), figure=figure,
        )  # fmt: skip

    less = "share of wrong answers, {}, base models, the smaller size minus the larger"
    tuning = "share of wrong answers, faithfulness, before tuning minus after"
    helps = f"instruction tuning improves the faithfulness of Transformers ({PAPER})"
    return [
        claim(
            "universal", f"hallucination is universal ({PAPER})", "every architecture hallucinates on both aspects",
            "least share of wrong answers of any arm, tuned, on either aspect", "map",
        ),
        claim(
            "differs", f"where models hallucinate differs by architecture ({PAPER})",
            "recurrent models are further behind attention on rare facts than on memorised endings",
            "share wrong, recurrent minus attention: rarest quarter of facts (base), minus memorised endings (tuned)",
            "early",
        ),
        claim(
            "rare", f"recurrent models are worse on rare facts ({PAPER})",
            "recurrent models know rare facts less often than attention",
            "share of wrong answers on the rarest quarter of facts, base models, recurrent minus attention", "early",
        ),
        claim(
            "endings", f"recurrent models are more robust on MemoTrap ({PAPER})",
            "recurrent models end a proverb from memory, against the instruction, less often than attention",
            "share of memorised endings, tuned models, attention minus recurrent", "early",
        ),
        *(
            claim(
                f"size_{kind}_{aspect}",
                f"factuality grows with size for all, faithfulness only for attention ({PAPER})",
                f"{kind} models: {aspect} {'does not change' if flat else 'grows'} with size",
                less.format(aspect), "size", "equivalent" if flat else "greater",
            )
            for kind in (ATTENTION, RECURRENT)
            for aspect in ASPECTS
            for flat in [kind == RECURRENT and aspect == "faithfulness"]
        ),
        claim(
            f"tuning_{ATTENTION}", helps, "instruction tuning makes attention more faithful", tuning, "tuning",
        ),
        claim(
            f"tuning_{RECURRENT}", f"it does almost nothing for models with recurrent layers ({PAPER})",
            "instruction tuning leaves the faithfulness of recurrent models as it is", tuning, "tuning", "equivalent",
        ),
        claim(
            "tuning_differs", helps + ", and hardly that of models with recurrent layers",
            "instruction tuning helps attention more than recurrent models", f"{tuning}: attention minus recurrent",
            "tuning",
        ),
    ]  # fmt: skip


def _paired(first: pd.Series, second: pd.Series) -> np.ndarray:
    """First minus second by seed; `UserError` unless the seeds are the same."""
    if list(first.index) != list(second.index):
        raise UserError(f"seeds {list(first.index)} and {list(second.index)} cannot be paired")
    return (first - second).to_numpy()
