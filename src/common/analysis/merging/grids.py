"""Cells of the study's sweeps, each with the labels that tell what it is.

Models have names: `base_10`, `generalist_no_dpo_10`, `expert_medicine_10`. A family is one way to make the models that
are merged; all but the first change one thing about it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from common.experts.material import EXPERT_DOMAINS

Seeds = Mapping[str, Sequence[int]]  # of families
Labels = dict[str, object]
Cell = dict[str, object]


@dataclass(frozen=True)
class Family:
    """Where a family's models come from: the kind of its base, of its expert and of its generalist."""

    words: str
    base: str = "base"
    expert: str = "expert"
    generalist: str = "generalist"


FAMILIES = {
    "main": Family("as above"),
    "no_dpo": Family("generalist: no DPO", generalist="generalist_no_dpo"),
    "no_replay": Family("generalist: no replay", generalist="generalist_no_replay"),
    "neither": Family("generalist: neither", generalist="generalist_neither"),
    "helpful": Family("expert: taught to go along", expert="helpful"),
    "unexposed": Family("base: never met prompts", "unexposed", "unexposed_expert", "unexposed_generalist"),
}
# How generalists are made: (facts of the domains replayed, DPO after supervised fine-tuning).
STAGES = {
    "generalist_no_dpo": (True, False),
    "generalist_no_replay": (False, True),
    "generalist_neither": (False, False),
}


@dataclass
class Plan:
    """Cells of one sweep, with their labels."""

    labels: list[Labels] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)

    def add(self, cell: Cell, **labels: object) -> None:
        self.labels.append(labels)
        self.cells.append(cell)

    def names(self) -> set[str]:
        """Every text among the cells' values: the models that they take are among them."""
        return {value for cell in self.cells for value in cell.values() if isinstance(value, str)}


def bases(families: Seeds) -> list[tuple[str, int]]:
    """Kind and seed of each of the families' bases."""
    return [(kind, seed) for seed, kind, _ in _each(families, "base")]


def generalists(families: Seeds, alignment: Mapping, about: Mapping) -> Plan:
    """The families' generalists: cells of `align`."""
    plan = Plan()
    for seed, kind, start in _each(families, "generalist"):
        replay, dpo = STAGES.get(kind, (True, True))
        cell = {"start": f"{start}_{seed}", "alignment": alignment, "replay_domains": replay, "dpo": dpo}
        plan.add({**cell, "seed": seed, **about}, name=f"{kind}_{seed}")
    return plan


def experts(families: Seeds, kinds: Mapping[str, Mapping], about: Mapping) -> Plan:
    """The families' experts of each domain: cells of `specialise`."""
    plan = Plan()
    for seed, kind, start in _each(families, "expert"):
        for domain in EXPERT_DOMAINS:
            cell = {"start": f"{start}_{seed}", "domain": domain, "expertise": kinds[kind], "seed": seed, **about}
            plan.add(cell, name=f"{kind}_{domain}_{seed}")
    return plan


def parents(families: Seeds, about: Mapping) -> Plan:
    """The families' bases, experts and generalists, asked as experts of each domain: cells of `examine_model`."""
    plan = Plan()
    for domain in EXPERT_DOMAINS:
        for role in ("base", "expert", "generalist"):
            for seed, kind, _ in _each(families, role):
                model = f"{kind}_{domain}_{seed}" if role == "expert" else f"{kind}_{seed}"
                plan.add({"model": model, "domain": domain, "seed": seed, **about}, arm=kind)
    return plan


def _each(families: Seeds, role: str) -> list[tuple[int, str, str]]:
    """Seed, kind and kind of base of every model that plays a role in the families, once."""
    found = [(seed, getattr(FAMILIES[name], role), FAMILIES[name].base) for name in families for seed in families[name]]
    return list(dict.fromkeys(found))


def merges(
    seeds: Iterable[int], family: str, arms: Mapping[str, Sequence[tuple[str, Mapping]]], about: Mapping
) -> Plan:
    """Merges of a family's experts with its generalist by each method and settings: cells of `examine_merge`."""
    own, plan = FAMILIES[family], Plan()
    for seed in seeds:
        for domain in EXPERT_DOMAINS:
            models = {
                "base": f"{own.base}_{seed}",
                "expert": f"{own.expert}_{domain}_{seed}",
                "generalist": f"{own.generalist}_{seed}",
            }
            for arm, ways in arms.items():
                for method, settings in ways:
                    cell = {"method": method, "settings": settings, "domain": domain, "seed": seed, **about}
                    plan.add(models | cell, arm=arm, family=family)
    return plan


def rivals(
    seeds: Iterable[int],
    domains: Iterable[str],
    ways: Mapping[str, Sequence[Mapping]],
    repeats: Mapping,
    about: Mapping,
) -> Plan:
    """Experts made safe by training, in each of a rival's ways: cells of `harden`."""
    plan = Plan()
    for seed in seeds:
        for domain in domains:
            for rival, several in ways.items():
                for place, tuning in enumerate(several):
                    cell = {"start": f"expert_{domain}_{seed}", "tuning": tuning, "repeats": repeats, "seed": seed}
                    name = f"{rival} {place} {domain} {seed}"
                    plan.add({**cell, **about}, name=name, arm=rival, domain=domain, settings=tuning)
    return plan


def hardened(runs: pd.DataFrame, about: Mapping) -> Plan:
    """What `harden` kept, asked as experts of their domains: cells of `examine_model`."""
    plan = Plan()
    for run in runs.to_dict("records"):
        cell = {"model": run["name"], "domain": run["domain"], "seed": run["seed"], **about}
        plan.add(cell, arm=run["arm"], family="main", settings=run["settings"])
    return plan


def comparisons(seeds: Iterable[int], settings: Mapping, places: int, about: Mapping) -> Plan:
    """Pairs of expert and generalist whose task vectors are compared: cells of `compare`."""
    plan = Plan()
    for seed in seeds:
        for domain in EXPERT_DOMAINS:
            models = {"base": f"base_{seed}", "expert": f"expert_{domain}_{seed}", "generalist": f"generalist_{seed}"}
            plan.add({**models, "domain": domain, "settings": settings, "places": places, "seed": seed, **about})
    return plan
