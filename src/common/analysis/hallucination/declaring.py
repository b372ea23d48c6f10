"""What the study claims, fixed before the reported runs. The paper: arXiv 2410.17477."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from common.analysis.hallucination.arms import ATTENTION, BASE, HYBRID, LARGE, RECURRENT, TUNED
from common.analysis.hallucination.claims import ASPECTS, Basis, evidence
from common.evidence import Claim, detectable_effect
from common.hallucination.texts import EXERCISES

KINDS = (ATTENTION, RECURRENT)
ALIKE = (
    ("universal",),
    ("endings",),
    ("rare", "rare_each", *(f"size_{kind}_factuality" for kind in KINDS)),
    ("hybrid", *(name.format(kind) for name in ("size_{}_faithfulness", "tuning_{}", "stories_{}") for kind in KINDS)),
)
"""Claims on differences of one kind of share, of one aspect: these have one spread."""

CONTRASTS = {
    "differs": ("rare", "endings"),
    "size_differs": tuple(f"size_{kind}_faithfulness" for kind in KINDS),
    "tuning_differs": tuple(f"tuning_{kind}" for kind in KINDS),
}
"""Claims on the difference, or the sum, of what two others are on."""


def declare(pilot: pd.DataFrame, basis: Basis, *, seeds: int, margin: float, slight: float) -> list[Claim]:
    """The claims with the smallest effect that so many `seeds` would see four times in five, by the pilot's spread.

    `pilot` and `basis` are as `evidence` takes them. `margin` is the smallest share of answers that matters, `slight`
    how far a share may move and count as unmoved. How a claim is measured names the tasks and arms that count for it.
    """
    found = evidence(pilot, basis)
    level = 0.025 / len(found)
    spreads = pooled(found)

    def claim(name: str, paper: str | None, statement: str, ours: str, figure: str, test: str = "greater") -> Claim:
        return Claim(
            id=name, paper=paper, statement=statement, ours=ours, test=test,
            margin=slight if test == "equivalent" else margin,
            detectable=detectable_effect(spreads[name], seeds, alpha=level), figure=figure,
        )  # fmt: skip

    several = pilot.groupby("arm")["size"].nunique()
    sized = several.index[several > 1]

    def among(kind: str, arms: Iterable[str] | None = None) -> str:
        """Arms of a kind, those among `arms` if given, by name."""
        own = pilot[(pilot["size"] == LARGE) & (pilot["kind"] == kind)]["arm"].unique()
        return ", ".join(arm for arm in own if arms is None or arm in set(arms))

    def both(first: str, second: str, arms: Iterable[str] | None = None) -> str:
        return f"{first} ({among(first, arms)}) minus {second} ({among(second, arms)})"

    aspects = dict(zip(pilot["task"], pilot["aspect"], strict=True))
    tasks = {
        stage: {aspect: tasks_named([task for task in own if aspects[task] == aspect]) for aspect in ASPECTS}
        for stage, own in basis.tasks.items()
    }
    less = {
        aspect: f"share of wrong answers, base models, smallest size minus largest, mean over {tasks[BASE][aspect]}"
        for aspect in ASPECTS
    }
    tuning = (
        f"share of wrong answers, before tuning minus after, mean over {tasks[TUNED]['faithfulness']}; arms that follow"
    )
    rarest = "share of wrong answers on the rarest quarter of facts, base models"
    conflicts = "share of conflicts not answered as the story says"
    helps = "instruction tuning improves the faithfulness of Transformers"
    return [
        claim(
            "universal", "hallucination is universal", "every architecture hallucinates on both aspects",
            "least share of wrong answers of any arm, tuned, on either aspect", "map",
        ),
        claim(
            "differs", "where models hallucinate differs by architecture",
            "recurrent models are further behind attention on rare facts than on memorised endings",
            "share wrong, recurrent minus attention: rarest quarter of facts (base), minus memorised endings (tuned)",
            "early",
        ),
        claim(
            "rare", "recurrent models are worse on rare facts",
            "recurrent models know rare facts less often than attention",
            f"{rarest}, {both(RECURRENT, ATTENTION)}", "early",
        ),
        claim(
            "rare_each", "recurrent models are worse on rare facts",
            "every recurrent architecture knows rare facts less often than attention",
            f"{rarest}, the best recurrent arm of each seed minus attention ({among(ATTENTION)})", "early",
        ),
        claim(
            "endings", "recurrent models are more robust on MemoTrap",
            "recurrent models end a proverb from memory, against the instruction, less often than attention",
            f"share of memorised endings, tuned; arms that know proverbs: {both(ATTENTION, RECURRENT, basis.knowing)}",
            "early",
        ),
        *(
            claim(
                f"size_{kind}_{aspect}",
                "factuality grows with size for all, faithfulness only for attention",
                f"{kind} models: {aspect} {'does not change' if flat else 'grows'} with size",
                f"{less[aspect]}; {among(kind, sized)}", "size", "equivalent" if flat else "greater",
            )
            for kind in KINDS
            for aspect in ASPECTS
            for flat in [kind == RECURRENT and aspect == "faithfulness"]
        ),
        claim(
            "size_differs", "factuality grows with size for all, faithfulness only for attention",
            "faithfulness grows more with size for attention than for recurrent models",
            f"{less['faithfulness']}; {both(ATTENTION, RECURRENT, sized)}", "size",
        ),
        claim(
            f"tuning_{ATTENTION}", helps, "instruction tuning makes attention more faithful",
            f"{tuning}: {among(ATTENTION, basis.following)}", "tuning",
        ),
        claim(
            f"tuning_{RECURRENT}", "instruction tuning does almost nothing for models with recurrent layers",
            "instruction tuning leaves the faithfulness of recurrent models as it is",
            f"{tuning}: {among(RECURRENT, basis.following)}", "tuning", "equivalent",
        ),
        claim(
            "tuning_differs", helps + ", and hardly that of models with recurrent layers",
            "instruction tuning helps attention more than recurrent models",
            f"{tuning}: {both(ATTENTION, RECURRENT, basis.following)}", "tuning",
        ),
        *(
            claim(
                f"stories_{kind}", None,
                f"after instruction tuning {kind} models follow a story less, asked as they were before",
                f"{conflicts}, after tuning minus before; arms that follow: {among(kind, basis.following)}", "tuning",
            )
            for kind in KINDS
        ),
        claim(
            "hybrid", None, "models with both kinds of layers follow a story more than attention alone",
            f"{conflicts}, base models, {both(ATTENTION, HYBRID)}", "ladder",
        ),
    ]  # fmt: skip


def tasks_named(tasks: Sequence[str]) -> str:
    """The tasks of a mean, and of which of them base models have read the form, where not of all."""
    read = [task for task in tasks if task not in EXERCISES]
    remark = "" if len(read) == len(tasks) else f" (base models have read only the form of {', '.join(read) or 'none'})"
    return ", ".join(tasks) + remark


def pooled(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Standard deviation over seeds of what each claim is on, by its id; `found` has the differences by seed.

    Pooled over claims that are `ALIKE`, since two seeds may well agree by chance; over all of them where those do not
    vary. Variances of the parts of `CONTRASTS` add up, as if these were independent.
    """
    variance = {
        name: float(np.mean([np.var(found[one], ddof=1) for one in alike])) for alike in ALIKE for name in alike
    }
    # Where nothing varies at all a claim still has to have some detectable effect.
    overall = max(float(np.mean(list(variance.values()))), 1e-12)
    variance = {name: own or overall for name, own in variance.items()}
    variance |= {name: sum(variance[part] for part in parts) for name, parts in CONTRASTS.items()}
    return {name: float(np.sqrt(variance[name])) for name in found}
