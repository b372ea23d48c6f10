"""The study's sweeps, one after another: who is made, of whom, and asked what."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.analysis import judging
from common.analysis.base_models import READ, BaseModels, Knobs, Sweeper
from common.analysis.merging import grids
from common.analysis.merging.grids import FAMILIES, Plan
from common.errors import UserError
from common.experts.design import tunings
from common.experts.runs import compare, examine_merge, examine_model
from common.experts.training import align, harden, specialise

TRAINED_ON = ("facts", "unsafe_prompts", "benign_prompts", "replies")
ASKED = (*TRAINED_ON, "judged_responses")
TABLES = (*READ, "judged_responses")
Ways = Mapping[str, Sequence[tuple[str, Knobs]]]  # by arm: methods with their settings


class Laboratory:
    """Makes models and merges and examines them, and knows where each model is by its name (see `grids`).

    `reading`, `base`, …: the study's parameters of these names; without `unexposed_shares` there is no family whose
    base never met a prompt. Raises `UserError`, before anything runs, where `tables` are not `TABLES`, or a given base
    or judges of others cannot be had (see `BaseModels` and `judging`).
    """

    def __init__(
        self, study: Sweeper, tables: Sequence[str], vocab_size: int | None, reading: Knobs, base: Knobs,
        unexposed_shares: Knobs, alignment: Knobs, expertise: Knobs, helpful: Knobs, prompts: int, judges: Knobs,
    ):  # fmt: skip
        if set(tables) != set(TABLES):
            raise UserError(f"tables are {', '.join(tables)}; the study needs {', '.join(TABLES)}")
        self.study, self.alignment = study, alignment
        self.facts = {"facts_per_relation": reading["facts_per_relation"]}
        self.asked = self.facts | {"prompts": prompts}
        self.judges = judging.located(judges, study.scale)
        self.judged = {"judges": judges} if judges else {}  # runs that ours judge are keyed without
        self.files = study.tables(list(TABLES))
        self.bases = BaseModels(study, base, vocab_size, reading, {"unexposed": unexposed_shares})
        self.families = [name for name, family in FAMILIES.items() if family.base in self.bases.kinds]
        self.kinds_of_expert = {"expert": expertise, "unexposed_expert": expertise, "helpful": {**expertise, **helpful}}
        self.models: dict[str, Any] = {}
        self._trained: list[pd.DataFrame] = []

    def made(self, name: str, families: Mapping[str, Sequence[int]], split: str) -> pd.DataFrame:
        """Bases, experts and generalists of families, each with its seeds, examined: a row a model and domain.

        `arm` says which kind of model, `taken` whether it is a given one as it is, the same for all seeds.
        """
        self.train(name, families)
        plan = grids.parents(families, self._exam(split))
        examined = self._swept(f"{name}_parents", examine_model, plan, ASKED, **self.judges)
        return examined.assign(taken=examined["arm"].isin(self.bases.kinds) & self.bases.taken)

    def train(self, name: str, families: Mapping[str, Sequence[int]]) -> None:
        """Make bases, experts and generalists of families, each with its seeds."""
        self.models |= self.bases.made(f"{name}_bases", grids.bases(families))
        plan = grids.generalists(families, self.alignment, self.facts)
        self._swept(f"{name}_generalists", align, plan, TRAINED_ON)
        plan = grids.experts(families, self.kinds_of_expert, self.facts)
        self._swept(f"{name}_experts", specialise, plan, TRAINED_ON)

    def merged(
        self, name: str, seeds: Sequence[int], ways: Ways, split: str, family: str = "main", attacks: bool = True
    ) -> pd.DataFrame:
        """Merges of a family's experts with its generalist, examined."""
        plan = grids.merges(seeds, family, ways, self._exam(split, attacks))
        return self._swept(name, examine_merge, plan, ASKED, **self.judges)

    def trained(
        self, name: str, seeds: Sequence[int], domains: Sequence[str], rates: Mapping[str, Sequence[float]],
        rivalry: Knobs, split: str,
    ) -> pd.DataFrame:  # fmt: skip
        """Experts made safe by training at each rival's rates, examined; with the `tokens` that training took."""
        ways = {rival: tunings(rival, several, rivalry) for rival, several in rates.items()}
        plan = grids.rivals(seeds, domains, ways, self.alignment["repeats"], self.facts)
        made = self._swept(name, harden, plan, TRAINED_ON)
        plan = grids.hardened(made, self._exam(split))
        examined = self._swept(f"{name}_examined", examine_model, plan, ASKED, **self.judges)
        return examined.assign(tokens=made["tokens"])

    def compared(self, seeds: Sequence[int], settings: Knobs, places: int) -> pd.DataFrame:
        """The main family's experts and generalists, compared."""
        return self._swept("compare", compare, grids.comparisons(seeds, settings, places, self.asked), ASKED)

    def tokens(self, rivals: Sequence[str]) -> dict[str, float]:
        """Thousands of tokens that a generalist and a rival trained on, replayed ones among them; means over runs.

        `breakeven`: the first expert from which on a generalist for all takes fewer than the rival that takes fewest.
        """
        runs = pd.concat(self._trained, ignore_index=True)
        thousands = pd.to_numeric(runs["tokens"]) / 1000
        generalist = thousands[runs["name"].str.match(r"generalist_\d+$")].mean()
        by_rival = [thousands[runs["name"].str.match(rf"{rival} \d+ ")].mean() for rival in rivals]
        return {
            "generalist_tokens": float(generalist),
            "rival_tokens": float(np.mean(by_rival)),
            "breakeven": float(np.ceil(generalist / min(by_rival))),
        }

    def _exam(self, split: str, attacks: bool = True) -> dict[str, object]:
        return {"split": split, "attacks": attacks, **self.asked, **self.judged}

    def _files(self, names: Iterable[str]) -> dict[str, Path]:
        return {name: self.files[name] for name in names}

    def _swept(self, name: str, run: Callable, plan: Plan, tables: Iterable[str], **more: Path) -> pd.DataFrame:
        own = {model: kept for model, kept in self.models.items() if model in plan.names()}
        runs = self.study.sweep(name, run, plan.cells, self._files(tables) | own | more)
        labels = pd.DataFrame(plan.labels, index=runs.index)
        # A row that git holds has the columns of all of a study's runs, empty where they are none of its own.
        runs = pd.concat([labels, runs.drop(columns=labels.columns, errors="ignore")], axis=1)
        if run in (align, harden):
            self._trained.append(runs[["name", "tokens"]])
        if "kept" in runs:
            self.models.update(zip(runs["name"], runs["kept"], strict=True))
        return runs
