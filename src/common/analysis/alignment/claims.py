"""What the study claims, how each claim is tested, and the numbers that decide it.

The order is: `declare`, from the pilot alone, before the reported runs; then `evidence`, from these.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from common.analysis.alignment.runs import by_seed, part, scored
from common.errors import UserError
from common.evidence import Claim, detectable_effect

CELL = ("dataset", "aim", "method", "start")  # what tells a cell of the crossing
MERGED = "beavertails-like"  # data of the models that are merged
CLEAN, NOISY = "beavertails-like", "hh-like"
MEASURED = ("declined", "win_rate", "balanced", "margin")
GREATER, SAFE, EQUAL = "greater", "non_inferior", "equivalent"
SCORE = "score (what the aim's data ask for: unsafe prompts declined, win rate, or the mean of both)"
BOTH = "mean of unsafe prompts declined and of the win rate"
BALANCED = "mean of unsafe prompts declined and of instructions followed"


class Statement(NamedTuple):
    """A claim's words, what is measured, its test, the names of its margin and of the spread it varies by, its figure.

    `arms`: a weight and a number of runs for each of the means that a seed's number is the weighted sum of. Runs taken
    as independent, its standard deviation is the spread times the root of the sum of weight²/runs.
    """

    id: str
    paper: str | None
    statement: str
    ours: str
    test: str
    margin: str
    spread: str
    arms: tuple[tuple[float, int], ...]
    figure: str


STATEMENTS = (
    Statement(
        "better_data", "higher-quality data align better", "clean data do better than noisy data",
        f"{SCORE}, {CLEAN} minus {NOISY}, over aims, methods and starts", GREATER, "score", "score",
        ((1, 12), (-1, 12)), "datasets",
    ),
    Statement(
        "better_data_sft", "SFT gains more from better data than DPO", "clean data help SFT more than DPO",
        f"{SCORE}, {CLEAN} minus {NOISY}, of SFT minus that of DPO", GREATER, "interaction", "score", ((1, 6),) * 4,
        "datasets",
    ),
    Statement(
        "sft_base", "SFT suits pre-trained models", "from a base, SFT does better than DPO",
        f"{SCORE}, SFT minus DPO, from bases", GREATER, "score", "score", ((1, 6), (-1, 6)), "methods",
    ),
    Statement(
        "dpo_instruct", "DPO suits instruction-tuned models", "from an instruct model, DPO does better than SFT",
        f"{SCORE}, DPO minus SFT, from instruct models", GREATER, "score", "score", ((1, 6), (-1, 6)), "methods",
    ),
    Statement(
        "dpo_faithful", "DPO is more faithful to the explicit preference",
        "models of opposite aims end up further apart with DPO",
        "fidelity (see the notebook), DPO minus SFT", GREATER, "interaction", "score", ((0.5, 4),) * 8, "fidelity",
    ),
    Statement(
        "mixtures_hurt", "mixing the two aims' data hurts",
        "a model of mixed data falls short of a model of each aim, at that aim",
        f"{BOTH}: of each aim's own models, minus of those of mixed data", GREATER, "score", "score",
        ((0.5, 8),) * 4, "mixtures",
    ),
    Statement(
        "mixtures_hurt_dpo", "mixtures hurt DPO most", "mixing costs more with DPO than with SFT",
        f"{BOTH}: cost of mixing with DPO minus that with SFT", GREATER, "interaction", "score", ((0.5, 4),) * 8,
        "mixtures",
    ),
    Statement(
        "dare_mitigates", "merging the separately aligned models by DARE mitigates the trade-off",
        "a DARE merge of a model of each aim, task vectors whole, does better than a model of mixed data",
        f"{BALANCED}: DARE merge (both task vectors whole) minus model of mixed data", GREATER, "score", "balanced",
        ((1, 4), (-1, 4)), "merges",
    ),
    Statement(
        "slerp_degrades", "SLERP degrades what DARE keeps",
        "a SLERP merge does worse than a DARE merge that is as far from the start",
        f"{BALANCED}: DARE merge (half of each task vector) minus SLERP merge, half way", GREATER, "score", "balanced",
        ((1, 4), (-1, 4)), "merges",
    ),
    Statement(
        "lora_qlora", "LoRA and QLoRA do equally well", "QLoRA does as well as LoRA",
        f"{SCORE}, QLoRA minus LoRA, the same cells and seeds", EQUAL, "equal", "score", ((1, 12), (-1, 12)),
        "adapters",
    ),
    Statement(
        "unseen_dpo", None, "DPO does not teach declining to a base that never met a refusal",
        "unsafe prompts declined after DPO, minus before", SAFE, "decisions", "score", ((1, 1), (-1, 1)), "unseen",
    ),
    Statement(
        "unseen_margin", None, "DPO raises the log-odds of refusing of a base that never met a refusal",
        "log-odds of refusing in nats after DPO, minus before", GREATER, "log_odds", "margin", ((1, 1), (-1, 1)),
        "unseen",
    ),
    Statement(
        "unseen_sft", None, "SFT teaches declining to a base that never met a refusal",
        "unsafe prompts declined after SFT, minus after DPO", GREATER, "decisions", "score", ((1, 1), (-1, 1)),
        "unseen",
    ),
)  # fmt: skip
"""All claims, in order. The paper's words are ours for what it says (arXiv 2406.04879)."""


def spreads(pilot: pd.DataFrame) -> dict[str, float]:
    """Standard deviation of a run between seeds, pooled over the pilot's cells (`CELL`), each with the same seeds.

    Of `score`, `balanced` and `margin`. Raises `UserError` where a cell has one seed, or nothing varies.
    """
    groups = scored(pilot).groupby(list(CELL))
    if (few := groups.size() < 2).any():
        raise UserError(f"the pilot has one seed of {few.idxmax()}, allowed: two or more of each cell")
    found = {name: float(np.sqrt(groups[name].var(ddof=1).mean())) for name in ("score", "balanced", "margin")}
    if still := [name for name, spread in found.items() if not spread > 0]:
        raise UserError(f"the pilot's {still[0]} is missing or the same for all seeds")
    return found


def declare(
    spread: Mapping[str, float], *, seeds: int, margins: Mapping[str, float], unseen: bool = True
) -> list[Claim]:
    """The claims, each with the smallest effect that so many `seeds` would see four times in five.

    `spread`: see `spreads`. At the level that Holm's correction leaves to the first claim. `margins`: score,
    interaction, equal, decisions, log_odds. Without `unseen`, bases that never met a prompt, nothing is claimed of
    them.
    """
    stated = [one for one in STATEMENTS if unseen or one.figure != "unseen"]
    level = 0.025 / len(stated)
    return [
        Claim(
            id=one.id, paper=one.paper, statement=one.statement, ours=one.ours, test=one.test,
            margin=margins[one.margin], figure=one.figure, detectable=detectable_effect(
                spread[one.spread] * float(np.sqrt(sum(weight**2 / runs for weight, runs in one.arms))),
                seeds, alpha=level,
            ),
        )
        for one in stated
    ]  # fmt: skip


def evidence(
    runs: pd.DataFrame, cells: Sequence[Mapping[str, str]], quantised: Sequence[Mapping[str, str]]
) -> dict[str, np.ndarray]:
    """What decides each claim, by its id: differences by seed; of "does not teach", by how much it does.

    `cells` and `quantised` are those of the crossing and of its half with QLoRA, by the names in `CELL`. Of bases that
    never met a prompt there is evidence where there are some.
    """
    runs = scored(runs)
    crossing = part(runs, "crossing", CELL, (*MEASURED, "score"), cells)
    separate = part(runs[runs["method"] != "sft+dpo"], "merges", ("start", "method", "merge"), MEASURED)

    def score(**where: str) -> pd.Series:
        return by_seed(crossing, "score", **where)

    def gained(method: str) -> pd.Series:
        return score(dataset=CLEAN, method=method) - score(dataset=NOISY, method=method)

    mixed = by_seed(crossing, "balanced", dataset=MERGED, aim="mix")
    merged = {name: by_seed(separate, "balanced", merge=name) for name in ("dare", "dare_half", "slerp")}
    found = {
        "better_data": score(dataset=CLEAN) - score(dataset=NOISY),
        "better_data_sft": gained("sft") - gained("dpo"),
        "sft_base": score(start="base", method="sft") - score(start="base", method="dpo"),
        "dpo_instruct": score(start="instruct", method="dpo") - score(start="instruct", method="sft"),
        "dpo_faithful": fidelity(crossing, method="dpo") - fidelity(crossing, method="sft"),
        "mixtures_hurt": cost_of_mixing(crossing),
        "mixtures_hurt_dpo": cost_of_mixing(crossing, method="dpo") - cost_of_mixing(crossing, method="sft"),
        "dare_mitigates": merged["dare"] - mixed,
        "slerp_degrades": merged["dare_half"] - merged["slerp"],
        "lora_qlora": of_adapters(runs, crossing, quantised),
        **(_taught(runs) if (runs["start"] == "unseen").any() else {}),
    }
    for name, values in found.items():
        if values.isna().any():
            raise UserError(f"claim {name}: seed {values.index[values.isna()][0]} is missing from one of its arms")
    return {name: values.to_numpy() for name, values in found.items()}


def _taught(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """What fine-tuning teaches bases that never met a prompt."""
    before = part(runs[runs["start"] == "unseen"], "starts", ("start",), MEASURED)
    after = part(runs, "unseen", ("method",), MEASURED)
    return {
        "unseen_dpo": by_seed(after, "declined", method="dpo") - by_seed(before, "declined"),
        "unseen_margin": by_seed(after, "margin", method="dpo") - by_seed(before, "margin"),
        "unseen_sft": by_seed(after, "declined", method="sft") - by_seed(after, "declined", method="dpo"),
    }


def fidelity(crossing: pd.DataFrame, **where: str) -> pd.Series:
    """How far models of opposite aims are apart in what the aims ask for, by seed: from −1 to 1.

    The mean of two differences: unsafe prompts declined, harmless minus helpful models; win rate, helpful minus
    harmless. What a method gives a model whatever the data prefer cancels, so this measures neither how well models
    do nor how far they go from their start, but whether they follow the sign of the preference. It is read off what
    models say, not off the likelihoods that DPO's loss is made of, in which DPO would win by construction.
    """
    declined = [by_seed(crossing, "declined", aim=aim, **where) for aim in ("harmless", "helpful")]
    preferred = [by_seed(crossing, "win_rate", aim=aim, **where) for aim in ("helpful", "harmless")]
    return (declined[0] - declined[1] + preferred[0] - preferred[1]) / 2


def cost_of_mixing(crossing: pd.DataFrame, **where: str) -> pd.Series:
    """What a model of mixed data lacks of each aim's own model in what that aim asks for; mean of both, by seed."""
    own = [by_seed(crossing, "score", aim=aim, **where) for aim in ("harmless", "helpful")]
    return sum(own) / 2 - by_seed(crossing, "both", aim="mix", **where)


def of_adapters(
    runs: pd.DataFrame, crossing: pd.DataFrame, quantised: Sequence[Mapping[str, str]], measure: str = "score"
) -> pd.Series:
    """QLoRA's measure minus LoRA's in the same cells, by seed; mean over cells."""
    packed = part(runs, "quantised", CELL, (*MEASURED, "score"), quantised)
    if not (packed["base_dtype"] == "nf4").all() or (crossing["base_dtype"] == "nf4").any():
        raise UserError("runs of QLoRA must have a base of nf4, those of LoRA must not")
    keys = [*CELL, "seed"]
    both = packed.merge(crossing, on=keys, suffixes=("", "_lora"), validate="one_to_one")
    if len(both) < len(packed):
        raise UserError(f"{len(packed) - len(both)} runs of QLoRA have no run of LoRA beside")
    return (both[measure] - both[f"{measure}_lora"]).groupby(both["seed"]).mean()
