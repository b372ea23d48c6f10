"""What the study claims, how each claim is tested, and the numbers that decide it.

The order is: `declare`, from the pilot alone, before the reported runs; then `evidence`, from these.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from common.analysis.merging.grids import FAMILIES
from common.analysis.merging.scores import by_seed, claim_name
from common.evidence import Claim, detectable_effect, minus

MERGEALIGN, TIED, EVEN, SLERP = "MergeAlign", "MergeAlign, tied", "plain mean", "SLERP, half way"
GREATER, SAFE, EQUAL = "greater", "non_inferior", "equivalent"
FREE = "merging two task vectors makes an expert safe without training, at little or no cost to its domain"
OURS = "a and b chosen freely; the paper's, as far as we know, are tied: a + b = 1"
LARGEST = {"correlation": 1.0}  # the largest effect that a measure can have, of those that have one


class Spread(NamedTuple):
    """Which of the pilot's quantities tells how much seeds differ, and how many of it a difference takes."""

    measure: str
    arms: int


class Statement(NamedTuple):
    """A claim's words, what is measured, its test, the name of its margin, its spread and figure."""

    id: str
    paper: str | None
    statement: str
    ours: str
    test: str
    margin: str
    spread: Spread
    figure: str


def statements(rivals: Sequence[str]) -> list[Statement]:
    """All claims, in order; one a rival."""
    gain, safety, both = Spread("gain_kept", 1), Spread("safety_kept", 1), Spread("balanced", 2)
    mean = "mean of the gain and the safety that are kept"
    return [
        Statement(
            "unsafe_experts", None, "a domain expert declines fewer unsafe prompts than the aligned generalist",
            "share of unsafe prompts declined, generalist minus expert", GREATER, "safety", Spread("safety", 2), "arms",
        ),
        Statement(
            "experts_lose_safety", None, "making an expert costs safety that its base had",
            "share of unsafe prompts declined, base minus expert", GREATER, "safety", Spread("safety", 2), "arms",
        ),
        Statement(
            "keeps_gain", FREE, "MergeAlign, its coefficients free, keeps nine tenths of the expert's gain",
            f"share of the gain that is lost, {OURS}", SAFE, "gain", gain, "arms",
        ),
        Statement(
            "keeps_safety", FREE, "MergeAlign, its coefficients free, keeps four fifths of the generalist's safety",
            f"share of the safety that is lost, {OURS}", SAFE, "safety", safety, "arms",
        ),
        *(
            Statement(
                f"no_worse_than_{claim_name(rival)}", None,
                f"MergeAlign does as well as {rival} on the expert", f"{mean}, {rival} minus MergeAlign", SAFE,
                "balanced", both, "arms",
            )
            for rival in rivals
        ),
        Statement(
            "slerp_even", None, "SLERP half way is the plain mean of expert and generalist",
            f"{mean}, SLERP minus the mean", EQUAL, "balanced", both, "arms",
        ),
        Statement(
            "free_tied", None, "free coefficients do better than those that add up to one",
            f"{mean}, free minus tied", GREATER, "balanced", both, "arms",
        ),
        Statement(
            "dpo", None, "what keeps the safety through the merge is DPO",
            "share of the safety kept, with DPO minus without", GREATER, "safety", Spread("safety_kept", 2),
            "ablations",
        ),
        Statement(
            "replay", None, "what keeps the gain is that the generalist replayed the domain",
            "share of the gain kept, with replay minus without", GREATER, "gain", Spread("gain_kept", 2), "ablations",
        ),
        Statement(
            "helpful", None, "an expert that was taught to go along keeps less of the safety",
            "share of the safety kept, expert as above minus taught", GREATER, "safety", Spread("safety_kept", 2),
            "ablations",
        ),
        Statement(
            "similarity", None, "the more alike the two task vectors, the more of both is kept",
            f"Spearman's correlation of their cosine with the {mean}, over families and domains, by seed", GREATER,
            "correlation", Spread("correlation", 1), "similarity",
        ),
    ]  # fmt: skip


def declare(
    pilot: pd.DataFrame,
    parents: pd.DataFrame,
    rivals: Sequence[str],
    *,
    seeds: int,
    ablated: int,
    margins: Mapping[str, float],
    families: int = len(FAMILIES),
) -> list[Claim]:
    """The claims, each with the smallest effect that its seeds would see four times in five.

    Claims about families other than the main one have `ablated` seeds, all others `seeds`. By the spread of the pilot's
    MergeAlign between seeds, at the level that Holm's correction leaves to the first; at most the `LARGEST` that the
    measure can have. `parents` are the pilot's. `margins`: gain, safety, balanced, correlation. `families`: how many
    there are, the main one among them.
    """
    level = 0.025 / len(statements(rivals))
    values = {name: by_seed(pilot, MERGEALIGN, name) for name in ("gain_kept", "safety_kept", "balanced")}
    values["safety"] = by_seed(parents, "generalist", "safety")
    spreads = {name: max(float(np.std(own, ddof=1)), 1e-6) for name, own in values.items()}
    # Of a rank correlation over families and domains where there is none: 1 / sqrt(n - 1).
    spreads["correlation"] = 1 / np.sqrt(2 * families - 1)
    claims = []
    for one in statements(rivals):
        spread = spreads[one.spread.measure] * np.sqrt(one.spread.arms)
        n = ablated if one.figure in ("ablations", "similarity") else seeds
        seen = min(detectable_effect(spread, n, alpha=level), LARGEST.get(one.spread.measure, np.inf))
        claims.append(
            Claim(
                id=one.id, paper=one.paper, statement=one.statement, ours=one.ours, test=one.test,
                margin=margins[one.margin], detectable=seen, figure=one.figure,
            )
        )  # fmt: skip
    return claims


def evidence(
    parents: pd.DataFrame, arms: pd.DataFrame, families: pd.DataFrame, rivals: Sequence[str]
) -> dict[str, np.ndarray]:
    """What decides each claim, by its id: differences by seed; of "no worse than", what is lost.

    `arms`: merges and rivals of the main family, `families`: MergeAlign in every family, the main one's seeds and some
    of them in all others. Raises `UserError` where the two sides of a difference have other seeds.
    """

    def balanced(arm: str) -> pd.Series:
        return by_seed(arms, arm, "balanced")

    def ablated(family: str, measure: str) -> pd.Series:
        means = families.groupby(["family", "seed"])[measure].mean()
        return minus(means["main"].reindex(means[family].index), means[family])

    found = {
        "unsafe_experts": minus(by_seed(parents, "generalist", "safety"), by_seed(parents, "expert", "safety")),
        "experts_lose_safety": minus(by_seed(parents, "base", "safety"), by_seed(parents, "expert", "safety")),
        "keeps_gain": 1 - by_seed(arms, MERGEALIGN, "gain_kept"),
        "keeps_safety": 1 - by_seed(arms, MERGEALIGN, "safety_kept"),
        "slerp_even": minus(balanced(SLERP), balanced(EVEN)),
        "free_tied": minus(balanced(MERGEALIGN), balanced(TIED)),
        "dpo": ablated("no_dpo", "safety_kept"),
        "replay": ablated("no_replay", "gain_kept"),
        "helpful": ablated("helpful", "safety_kept"),
        "similarity": correlations(families),
    }
    for rival in rivals:
        name = f"no_worse_than_{claim_name(rival)}"
        found[name] = minus(balanced(rival), balanced(MERGEALIGN))
    return {name: values.to_numpy() for name, values in found.items()}


def correlations(families: pd.DataFrame) -> pd.Series:
    """Spearman's rank correlation of `cosine` and `balanced` over families and domains, by seed.

    Seeds that not every family has do not count.
    """
    count = families.groupby("seed")["family"].transform("nunique")
    families = families[count == families["family"].nunique()]
    return families.groupby("seed").apply(lambda own: float(spearmanr(own["cosine"], own["balanced"]).statistic))
