"""What the study claims, and the differences by seed that decide it."""

import numpy as np
import pandas as pd

from common.analysis.hallucination.arms import ATTENTION, BASE, RECURRENT, TUNED
from common.errors import UserError
from common.evidence import Claim, detectable_effect
from common.hallucination.world import QUARTILES

LARGE, SMALL = "large", "small"
PAPER = "Hallucination and architectural inductive biases, arXiv 2410.17477"
ASPECTS = ("factuality", "faithfulness")
RARE = {"task": "recall", "breakdown": "frequency", "value": QUARTILES[-1]}
TRAP = {"task": "endings", "breakdown": "asked", "value": "otherwise"}


def share(answers: pd.DataFrame, column: str = "wrong", **wanted: str) -> pd.Series:
    """Mean share by seed over the arms and tasks of the rows wanted, at temperature 0; each arm is as heavy.

    `wanted` are values of columns; without a breakdown the rows for all items of a task count.
    """
    wanted = {"breakdown": "all"} | wanted
    rows = answers[answers["temperature"] == 0.0]
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    if rows.empty:
        raise UserError(f"nothing was answered with {', '.join(f'{k}={v}' for k, v in wanted.items())}")
    return rows.groupby(["seed", "arm"])[column].mean().groupby("seed").mean()


def evidence(answers: pd.DataFrame) -> dict[str, np.ndarray]:
    """What decides each claim, by its id: differences by seed, of shares of answers that are wrong.

    `answers`: see `arms.of_models`; all sizes and stages. Arms of the large size count unless a claim is on size.
    """
    large = answers[answers["size"] == LARGE]
    base, tuned = (large[large["stage"] == stage] for stage in (BASE, TUNED))
    both = set(answers.loc[answers["size"] == SMALL, "arm"])
    sized = answers[answers["arm"].isin(both) & (answers["stage"] == BASE)]

    def kinds(rows: pd.DataFrame, **wanted: str) -> np.ndarray:
        """Recurrent minus attention."""
        return _paired(*(share(rows, kind=kind, **wanted) for kind in (RECURRENT, ATTENTION)))

    found = {"rare": kinds(base, **RARE), "endings": -kinds(base, column="memorised", **TRAP)}
    rare, conflict = kinds(base, **RARE), kinds(base, task="conflict")
    found["differs"] = np.abs(rare - conflict)
    for arm in sorted(set(base["arm"])):
        found[f"universal_{identifier(arm)}"] = share(tuned, arm=arm).to_numpy()
    for kind in (ATTENTION, RECURRENT):
        for aspect in ASPECTS:
            smaller, larger = (share(sized, size=size, kind=kind, aspect=aspect) for size in (SMALL, LARGE))
            found[f"size_{kind}_{aspect}"] = _paired(smaller, larger)
        before, after = (share(rows, kind=kind, aspect="faithfulness") for rows in (base, tuned))
        found[f"tuning_{kind}"] = _paired(before, after)
    return found


def declare(pilot: pd.DataFrame, *, seeds: int, margin: float, slight: float) -> list[Claim]:
    """The claims with the smallest effect that so many `seeds` would see four times in five, by the pilot's spread.

    `pilot` has answers as `evidence` takes them. `margin` is the smallest share of answers that matters, `slight`
    how far a share may move and count as unmoved.
    """
    found = evidence(pilot)
    level = 0.025 / len(found)

    def claim(name: str, paper: str | None, statement: str, ours: str, figure: str, test: str = "greater") -> Claim:
        spread = max(float(np.std(found[name], ddof=1)), 1e-6)  # two seeds may answer alike
        return Claim(
            id=name, paper=paper, statement=statement, ours=ours, test=test,
            margin=slight if test == "equivalent" else margin,
            detectable=detectable_effect(spread, seeds, alpha=level), figure=figure,
        )  # fmt: skip

    arms = {identifier(arm): arm for arm in sorted(set(pilot["arm"]))}
    less = "share of wrong answers, {}, the smaller size minus the larger"
    return [
        claim(
            "rare", f"recurrent models are worse on rare facts ({PAPER})",
            "recurrent models know rare facts less often than attention",
            "share of wrong answers on the rarest quarter of facts, recurrent minus attention", "early",
        ),
        claim(
            "endings", f"recurrent models are more robust on MemoTrap ({PAPER})",
            "recurrent models end a proverb from memory, against the instruction, less often than attention",
            "share of memorised endings, attention minus recurrent", "early",
        ),
        claim(
            "differs", f"where models hallucinate differs by architecture ({PAPER})",
            "how far recurrent models are behind attention depends on whether memory or the context is asked",
            "size of the difference between two gaps, recurrent minus attention: rare facts, and conflicts", "map",
        ),
        *(
            claim(
                f"universal_{name}", f"hallucination is universal ({PAPER})", f"{arm} hallucinates, tuned as it is",
                "share of wrong answers, mean over tasks", "map",
            )
            for name, arm in arms.items()
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
            f"tuning_{ATTENTION}", f"instruction tuning helps the faithfulness of attention ({PAPER})",
            "instruction tuning makes attention more faithful",
            "share of wrong answers on faithfulness, before minus after", "tuning",
        ),
        claim(
            f"tuning_{RECURRENT}", f"it does almost nothing for models with recurrent layers ({PAPER})",
            "instruction tuning leaves the faithfulness of recurrent models as it is",
            "share of wrong answers on faithfulness, before minus after", "tuning", "equivalent",
        ),
    ]  # fmt: skip


def identifier(arm: str) -> str:
    """An arm's name as part of a claim's id."""
    return "".join(letter if letter.isalnum() else "_" for letter in arm.lower())


def _paired(first: pd.Series, second: pd.Series) -> np.ndarray:
    """First minus second by seed; `UserError` unless the seeds are the same."""
    if list(first.index) != list(second.index):
        raise UserError(f"seeds {list(first.index)} and {list(second.index)} cannot be paired")
    return (first - second).to_numpy()
