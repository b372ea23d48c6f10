"""Cells of the study's sweeps, each with the labels that tell what it is.

Models have names: `base_10`, `generalist_no_dpo_10`, `expert_medicine_10`. A family is one way to make the models that
are merged; all but the first change one thing about it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import UserError
from common.experts.material import EXPERT_DOMAINS

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


def checked(tables: Sequence[str], needed: Sequence[str], exposure_seeds: Sequence[int], seeds: Sequence[int]) -> None:
    """Raise `UserError` where the tables are not those that the study reads, or seeds of a family are none of its."""
    if set(tables) != set(needed):
        raise UserError(f"tables are {', '.join(tables)}; the study needs {', '.join(needed)}")
    if strange := set(exposure_seeds) - set(seeds):
        raise UserError(f"exposure_seeds has {sorted(strange)}, allowed: some of seeds {list(seeds)}")


def makers(
    seeds: Iterable[int], alignment: Mapping, expertise: Mapping, facts: int, families: Iterable[str]
) -> tuple[Plan, Plan]:
    """Generalists and experts of the families, whose bases are there: cells of `align` and of `specialise`."""
    generalists, experts = Plan(), Plan()
    for seed in seeds:
        about = {"facts_per_relation": facts, "seed": seed}
        for kind, start in {(FAMILIES[name].generalist, FAMILIES[name].base): None for name in families}:
            replay, dpo = STAGES.get(kind, (True, True))
            cell = {"start": f"{start}_{seed}", "alignment": alignment, "replay_domains": replay, "dpo": dpo} | about
            generalists.add(cell, name=f"{kind}_{seed}")
        for kind, start in {(FAMILIES[name].expert, FAMILIES[name].base): None for name in families}:
            own = expertise["helpful" if kind == "helpful" else "expert"]
            for domain in EXPERT_DOMAINS:
                cell = {"start": f"{start}_{seed}", "domain": domain, "expertise": own} | about
                experts.add(cell, name=f"{kind}_{domain}_{seed}")
    return generalists, experts


def examined(seeds: Iterable[int], families: Iterable[str], about: Mapping) -> Plan:
    """Each family's own base, expert and generalist, asked as experts of each domain: cells of `examine_model`."""
    plan = Plan()
    for seed in seeds:
        for domain in EXPERT_DOMAINS:
            kinds = [
                (role, getattr(FAMILIES[name], role)) for name in families for role in ("base", "expert", "generalist")
            ]
            for role, kind in dict.fromkeys(kinds):
                model = f"{kind}_{domain}_{seed}" if role == "expert" else f"{kind}_{seed}"
                plan.add({"model": model, "domain": domain, "seed": seed, **about}, arm=kind)
    return plan


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
    seeds: Iterable[int], domains: Iterable[str], tunings: Mapping[str, Sequence[Mapping]], repeats: Mapping, facts: int
) -> Plan:
    """Experts made safe by training, with each rival's settings: cells of `harden`."""
    plan = Plan()
    for seed in seeds:
        for domain in domains:
            for rival, several in tunings.items():
                for place, tuning in enumerate(several):
                    cell = {"start": f"expert_{domain}_{seed}", "tuning": tuning, "repeats": repeats}
                    cell |= {"facts_per_relation": facts, "seed": seed}
                    name = f"{rival.replace(' ', '_')}_{place}_{domain}_{seed}"
                    plan.add(cell, name=name, arm=rival, domain=domain, rate=tuning["learning_rate"])
    return plan


def comparisons(seeds: Iterable[int], settings: Mapping, steps: int, facts: int) -> Plan:
    """Pairs of expert and generalist whose task vectors are compared: cells of `compare`."""
    plan = Plan()
    for seed in seeds:
        for domain in EXPERT_DOMAINS:
            models = {"base": f"base_{seed}", "expert": f"expert_{domain}_{seed}", "generalist": f"generalist_{seed}"}
            about = {"domain": domain, "settings": settings, "steps": steps, "facts_per_relation": facts, "seed": seed}
            plan.add(models | about)
    return plan
