"""The numbers that the study's sentences (`words`) are filled with."""

import pandas as pd

from common.analysis.alignment.beside import slerp_rows
from common.analysis.alignment.claims import CELL, MERGED
from common.analysis.alignment.runs import by_seed, scored
from common.analysis.alignment.words import NOT_SHOWN
from common.evidence import mean_interval

ARM = ("part", *CELL, "merge", "adapter", "size", "rank", "selection")  # what tells an arm of any part
DECLINING = 0.5  # what declining everything is worth in `balanced`

Numbers = dict[str, float | str | list[float]]


def spoken(runs: pd.DataFrame) -> Numbers:
    """Numbers of the summary, by name: `packed_bytes`, the bytes of a base packed to NF4 as a share of those of the
    same in float32; rows of `slerp_rows` that look `swapped`, of all; the score of the fewest and of the most pairs;
    and those of `_by_method`, `_of_mixing` and `_of_merges`.
    """
    sized, printed = scored(runs[runs["part"] == "sizes"]), slerp_rows()
    found: Numbers = {}
    for name, pairs in (("fewest", sized["pairs"].min()), ("most", sized["pairs"].max())):
        found |= {f"{name}_pairs": pairs, f"{name}_score": sized.loc[sized["pairs"] == pairs, "score"].mean()}
    bytes_ = [runs.loc[runs["part"] == name, "base_bytes"].astype(float).mean() for name in ("quantised", "crossing")]
    swapped = printed["other"] < printed["own"]
    found |= {"packed_bytes": bytes_[0] / bytes_[1], "swapped": float(swapped.sum()), "slerp_rows": float(len(swapped))}
    return found | _by_method(runs) | _of_mixing(runs) | _of_merges(runs)


def spoken_of_limits(runs: pd.DataFrame, tried: pd.DataFrame) -> Numbers:
    """Numbers of the limits: what the untuned base, instruct and, where there are some, unseen models decline, follow,
    win and resist; what `edges` says of the learning rates `tried`; and those of `_of_declining`.
    """
    starts = runs[runs["part"] == "starts"].groupby("start")
    told = {"base": ("declined", "answered", "win_rate"), "instruct": ("declined", "answered")}
    told |= {"unseen": ("declined", "resisted")} if "unseen" in starts.groups else {}
    means = {f"{start}_{name}": float(starts[name].mean()[start]) for start, names in told.items() for name in names}
    return means | {"edges": edges(tried)} | _of_declining(runs)


def edges(tried: pd.DataFrame) -> str:
    """Methods whose chosen learning rate is the lowest or the highest tried, so that a better one may lie beyond.

    `tried`: method, learning_rate, edge (see `Laboratory.rated`).
    """
    highest = tried.groupby("method")["learning_rate"].max()
    found = [
        f"{row.method.upper()}, the {'highest' if row.learning_rate == highest[row.method] else 'lowest'}"
        for row in tried[tried["edge"]].itertuples()
    ]
    return "; ".join(found) or "none"


def _by_method(runs: pd.DataFrame) -> Numbers:
    """KL and knowledge after either method, means over the crossing, and the knowledge of the models it starts from."""
    crossing = runs[runs["part"] == "crossing"]
    starts = runs[(runs["part"] == "starts") & runs["start"].isin(crossing["start"])]
    found: Numbers = {"start_knowledge": starts["knowledge"].mean()}
    for method, own in crossing.groupby("method"):
        found |= {f"{method}_kl": own["kl_reply"].mean(), f"{method}_knowledge": own["knowledge"].mean()}
    return found


def _of_mixing(runs: pd.DataFrame) -> Numbers:
    """What the cost of mixing is made of. `by_measure`: how much more models of one aim have at that aim than at both,
    as those of mixed data are scored; the rest is what is left when both are scored on both, or on `balanced`.
    """
    crossing = scored(runs[runs["part"] == "crossing"])
    mixed = crossing["aim"] == "mix"
    found: Numbers = {"by_measure": (crossing["score"] - crossing["both"])[~mixed].mean()}
    for name, own in (("single", crossing[~mixed]), ("mix", crossing[mixed])):
        found |= {f"{name}_{measure}": own[measure].mean() for measure in ("both", "balanced")}
    return found


def _of_merges(runs: pd.DataFrame) -> Numbers:
    """What models of the data `MERGED`, by aim, and DARE merges of whole task vectors decline and follow; and how
    merges of half of each do against mixed data in `balanced`, by how much with its interval.
    """
    crossing = runs[(runs["part"] == "crossing") & (runs["dataset"] == MERGED)]
    merged = runs[(runs["part"] == "merges") & (runs["method"] != "sft+dpo")]
    several = {f"{aim}_data": own for aim, own in crossing.groupby("aim")}
    several["dare"] = merged[merged["merge"] == "dare"]
    found: Numbers = {}
    for name, own in several.items():
        found |= {f"{name}_{measure}": own[measure].mean() for measure in ("declined", "answered")}
    halves, mixed = by_seed(merged, "balanced", merge="dare_half"), by_seed(crossing, "balanced", aim="mix")
    gain, low, high, _ = mean_interval(halves - mixed)
    return found | {
        "halves_balanced": halves.mean(), "mix_data_balanced": mixed.mean(), "halves_gain": gain,
        "halves_gain_ci": [low, high],
    }  # fmt: skip


def _of_declining(runs: pd.DataFrame) -> Numbers:
    """Of all `arms` that were trained or merged, which are `above` declining everything by their intervals, the `best`
    mean, and what follows where none is.
    """
    own = runs[~runs["part"].isin(["starts", "losses"])]
    own = own.assign(size=own["pairs"].where(own["part"] == "sizes", 0))  # elsewhere seeds may differ in pairs
    intervals = [mean_interval(arm["balanced"]) for _, arm in own.groupby(list(ARM))]
    above = sum(low > DECLINING for _, low, _, _ in intervals)
    return {
        "arms": float(len(intervals)), "above": str(above) if above else "none", "best": max(i.mean for i in intervals),
        "not_shown": "" if above else NOT_SHOWN,
    }  # fmt: skip
