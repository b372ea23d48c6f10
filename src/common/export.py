"""Trained models of the studies, to be exported: by the name of their folder, with what a sweep kept of them."""

import os
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pandas as pd

from common.analysis.merging.laboratory import Laboratory
from common.bases.pretraining import fit_tokenizer, pretrain_base
from common.environment import CLUSTER
from common.project import DATA
from common.scales import section
from common.sweep import Kept, grid, sweep


class Trainer:
    """What a laboratory needs of a study, outside of any: runs come from their cache, or are done."""

    def __init__(self, scale: str):
        self.scale = scale

    def tables(self, names: list[str]) -> dict[str, Path]:
        """Files of tables."""
        return {name: DATA / f"{name}.jsonl" for name in names}

    def sweep(self, name: str, run: Callable[..., dict], cells: list[dict], inputs: dict) -> pd.DataFrame:
        """Runs of a grid as a table: parameters, metrics, and what was `kept`."""
        swept = sweep(run, cells, inputs=inputs, name=name, cluster=os.environ.get(CLUSTER))
        return pd.DataFrame([{**record.cell, **record.metrics} for record in swept.records]).assign(kept=swept.kept)


def base_models(scale: str) -> dict[str, Kept]:
    """Every reported base model of the study of bases: `informed-20`."""
    knobs, trainer = section(scale, "bases"), Trainer(scale)
    read = trainer.tables([name for name in knobs["tables"] if name != "judged_responses"])
    cells = grid(vocab_size=[knobs["vocab_size"]], reading=[knobs["reading"]])
    tokenizer = trainer.sweep("tokenizer", fit_tokenizer, cells, read)["kept"].iloc[0]
    cells = grid(base=knobs["bases"].values(), reading=[knobs["reading"]], seed=knobs["seeds"])
    made = trainer.sweep("bases", pretrain_base, cells, read | {"tokenizer": tokenizer})
    names = [f"{name}-{seed}" for name in knobs["bases"] for seed in knobs["seeds"]]
    return dict(zip(names, made["kept"], strict=True))


def merged_models(scale: str) -> dict[str, Kept]:
    """What the study of merging merges on its first reported seed, base, generalist and experts: `generalist-20`."""
    knobs = section(scale, "merging")
    taken = signature(Laboratory).parameters.keys() & knobs.keys()
    laboratory = Laboratory(Trainer(scale), **{name: knobs[name] for name in taken})
    laboratory.train("merging", {"main": knobs["seeds"][:1]})
    return {"-".join(name.rsplit("_", 1)): kept for name, kept in laboratory.models.items()}
