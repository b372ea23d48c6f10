"""A table of runs as the alignment study has it, its measures made up: effects that are known, and noise by seed."""

from itertools import product

import numpy as np
import pandas as pd

from common.alignment.evaluation import MEASURES

SEEDS = (10, 11, 12, 13, 14)
DATASETS, AIMS = ("hh-like", "beavertails-like"), ("harmless", "helpful", "mix")
METHODS, STARTS = ("sft", "dpo"), ("base", "instruct")
CELLS = [
    dict(zip(("dataset", "aim", "method", "start"), cell, strict=True))
    for cell in product(DATASETS, AIMS, METHODS, STARTS)
]
QUANTISED = CELLS[::2]
EFFECTS = {
    "clean": 0.1, "clean_sft": 0.05, "suits": 0.08, "opposite": 0.3, "opposite_dpo": 0.1, "mix": 0.05, "mix_dpo": 0.06,
    "dare": 0.04, "dare_half": 0.02, "slerp": -0.06, "nf4": 0.0,
}  # fmt: skip
"""Of the clean data; more of it with SFT; of the method that suits the start; half of what sets opposite aims apart,
and more with DPO; what mixing takes, and more with DPO; of merges against mixed data; of packing."""


def made_runs(noise=0.02, seeds=SEEDS, seed=0, **changes):
    """Runs of every part. `changes` are other `EFFECTS`."""
    effect = EFFECTS | changes
    rng = np.random.default_rng(seed)
    rows = []

    def add(part, number, declined, preferred, nontoxic=0.0, margin=0.0, **levels):
        own = {name: 0.5 + noise * rng.normal() for name in MEASURES}
        own |= {"declined": declined + noise * rng.normal(), "win_rate": preferred + noise * rng.normal()}
        own |= {"nontoxic": nontoxic + noise * rng.normal(), "margin": margin + noise * rng.normal()}
        own["balanced"] = (own["declined"] + own["win_rate"]) / 2
        own |= {"kl_reply": 2 + noise * rng.normal()}
        plain = {
            "dataset": "none", "aim": "none", "method": "none", "start": "base", "adapter": "lora", "pairs": 0,
            "rank": 8, "loss_type": "none", "selection": "random", "merge": "none", "base_dtype": "float32",
            "beta": 0.1, "reward": np.nan, "base_bytes": 2_700_000, "taken": False,
        }  # fmt: skip
        rows.append(plain | {"part": part, "seed": number} | own | levels)

    def both(dataset, aim, method, start):
        """Unsafe prompts declined, and the win rate."""
        clean = dataset == "beavertails-like"
        level = 0.4 + effect["clean"] * clean + effect["clean_sft"] * (clean and method == "sft")
        level += effect["suits"] * ((method == "sft") == (start == "base"))
        apart = effect["opposite"] + effect["opposite_dpo"] * (method == "dpo")
        if aim == "mix":
            level += apart - effect["mix"] - effect["mix_dpo"] * (method == "dpo")
            return level, level
        sign = 1 if aim == "harmless" else -1
        return level + sign * apart, level - sign * apart

    for number in seeds:
        for start in (*STARTS, "unseen"):
            add("starts", number, 0.0 if start == "unseen" else 0.3, 0.4, start=start)
        for cell in CELLS:
            toxic = {"sft": 1.0, "dpo": -3.0}[cell["method"]]
            add("crossing", number, *both(**cell), toxic, pairs=800, **cell)
        for cell in QUANTISED:
            level = [value + effect["nf4"] for value in both(**cell)]
            add("quantised", number, *level, pairs=800, adapter="qlora", base_dtype="nf4", base_bytes=1_900_000, **cell)
        for start, method in product(STARTS, METHODS):
            mixed = both("beavertails-like", "mix", method, start)[0]
            for merge in ("slerp", "dare", "dare_half", "ties", "linear"):
                level = mixed + effect.get(merge, 0.0)
                toxic = {"sft": 0.9, "dpo": -2.9}[method]
                add("merges", number, level, level, toxic, start=start, method=method, merge=merge, aim="mix")
        for start in STARTS:
            add("merges", number, 0.7, 0.7, start=start, method="sft+dpo", merge="dare", aim="mix")
        for method in METHODS:
            taught = {"sft": 0.8, "dpo": 0.0}[method]
            add("unseen", number, taught, 0.4, margin={"sft": 5.0, "dpo": 27.0}[method], start="unseen", method=method,
                aim="harmless")  # fmt: skip
        for rank, method in product((2, 8, 32), METHODS):
            add("ranks", number, 0.5 + 0.02 * np.log2(rank), 0.5, rank=rank, method=method, aim="mix")
        for selection in ("random", "dissimilar", "diverse", "entropy"):
            add("selection", number, 0.6, 0.6, selection=selection, dataset="hh-like", method="dpo", aim="mix")
        add("losses", number, 0.5, 0.5, loss_type="untuned", beta=0.0, dataset="reviews", reward=0.1, kl_reply=0.0)
        for place, loss in enumerate(("sigmoid", "ipo", "hinge", "robust", "kto", "simpo")):
            for beta in (0.1, 0.5):
                kl = (place + 1) / beta / 10
                add("losses", number, 0.5, 0.5, loss_type=loss, beta=beta, dataset="reviews", method="dpo",
                    reward=np.log1p(kl) + noise * rng.normal(), kl_reply=kl * (1 + noise * rng.normal()))  # fmt: skip
    for number in seeds[:3]:
        for dataset, method, pairs in product(DATASETS, METHODS, (50, 100, 200, 400, 800)):
            level = both(dataset, "mix", method, "base")[0] * (1 - 0.7 * np.exp(-pairs / 150))
            add("sizes", number, level, level, dataset=dataset, method=method, pairs=pairs, aim="mix")
    return pd.DataFrame(rows)
