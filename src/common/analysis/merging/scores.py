"""From what models did in the exam to what a merge or a rival kept of its parents, and the tables that are drawn."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from common.analysis.merging.grids import FAMILIES
from common.errors import UserError
from common.evidence import mean_interval, require_varied

PLACE = ["domain", "seed"]
MEASURES = (
    "gain_kept", "exact_kept", "safety_kept", "accuracy", "exact", "held_out", "general", "safety", "complied",
    "greedy", "attacked", "refused_hard", "refused_plain", "margin", "told_apart",
)  # fmt: skip
PARENTS = ("base", "expert", "generalist")
LEAST = 0.02  # share of questions or prompts


def kept(arms: pd.DataFrame, parents: pd.DataFrame, family: str) -> pd.DataFrame:
    """`arms` with what each kept of its parents: `gain_kept`, `safety_kept` and their mean, `balanced`; `exact_kept`.

    gain_kept is (accuracy − base's) / (expert's − base's), safety_kept (safety − expert's) / (generalist's − expert's),
    by domain and seed, exact_kept the first of exact matches; a gap below `LEAST` counts as that, since a share of next
    to nothing says nothing. `told_apart` is safety less the false refusals of benign prompts that look unsafe: a model
    that declines everything has none of it. Raises `UserError` where a parent is missing or there twice.
    """
    own = FAMILIES[family]
    places = pd.MultiIndex.from_frame(arms[PLACE])
    at = {}
    for role in ("base", "expert", "generalist"):
        rows = parents[parents["arm"] == getattr(own, role)].set_index(PLACE)
        if absent := sorted(set(places) - set(rows.index)):
            raise UserError(f"no {getattr(own, role)} was examined for {absent[0]}")
        if rows.index.has_duplicates:
            domain, seed = rows.index[rows.index.duplicated()][0]
            raise UserError(f"{getattr(own, role)} was examined twice for {domain}, seed {seed}")
        at[role] = rows.loc[places].reset_index(drop=True)
    gain = at["expert"]["accuracy"] - at["base"]["accuracy"]
    safety = at["generalist"]["safety"] - at["expert"]["safety"]
    arms = arms.reset_index(drop=True)
    gain_kept = (arms["accuracy"] - at["base"]["accuracy"]) / np.maximum(gain, LEAST)
    safety_kept = (arms["safety"] - at["expert"]["safety"]) / np.maximum(safety, LEAST)
    return arms.assign(
        gain=gain,
        gap=safety,
        told_apart=arms["safety"] - arms["refused_hard"],
        gain_kept=gain_kept,
        exact_kept=(arms["exact"] - at["base"]["exact"])
        / np.maximum(at["expert"]["exact"] - at["base"]["exact"], LEAST),
        safety_kept=safety_kept,
        balanced=(gain_kept + safety_kept) / 2,
    )


def with_parents(arms: pd.DataFrame, parents: pd.DataFrame) -> pd.DataFrame:
    """`arms` and, among them, the main family's own parents, which keep what they keep of each other."""
    own = parents[parents["arm"].isin(PARENTS)]
    return pd.concat([kept(own, parents, "main"), arms], ignore_index=True)


def shown(best: Mapping[str, Mapping]) -> pd.DataFrame:
    """Chosen settings by arm, in words; of a fine-tuning the learning rate, as nothing else was chosen."""
    told = {arm: {k: v for k, v in s.items() if k == "learning_rate" or "method" not in s} for arm, s in best.items()}
    words = {arm: ", ".join(f"{name} {value}" for name, value in settings.items()) for arm, settings in told.items()}
    return pd.DataFrame({"settings": words})


def best_settings(candidates: pd.DataFrame) -> dict[str, object]:
    """Of each arm the settings whose mean `balanced` over domains and seeds is highest; the first of equals."""
    texts = candidates["settings"].map(repr)
    means = candidates.groupby(["arm", texts], sort=False)["balanced"].mean()
    best = means.groupby(level=0, sort=False).idxmax()
    settings = dict(zip(texts, candidates["settings"], strict=True))
    return {arm: settings[text] for arm, text in best}


def by_seed(arms: pd.DataFrame, arm: str, measure: str) -> pd.Series:
    """Mean of a measure over domains, by seed.

    Raises `UserError` where all seeds have the same: they had no effect then. A model `taken` as it is has no seed.
    """
    own = arms[arms["arm"] == arm]
    if own.empty:
        raise UserError(f"no run of {arm}")
    values = own.groupby("seed")[measure].mean()
    if not ("taken" in own and own["taken"].all()):
        require_varied(values, f"{measure} of {arm}", limits=(0.0, 1.0))
    return values


def plane_table(candidates: pd.DataFrame) -> pd.DataFrame:
    """Of MergeAlign's candidates: a, b, and the mean over domains of gain_kept and safety_kept."""
    own = candidates.assign(a=[s["a"] for s in candidates["settings"]], b=[s["b"] for s in candidates["settings"]])
    return own.groupby(["a", "b"], as_index=False)[["gain_kept", "safety_kept"]].mean()


def arm_table(arms: pd.DataFrame, groups: Mapping[str, str]) -> pd.DataFrame:
    """One row an arm and measure: group, arm, measure, estimate, low, high (95% by t over seeds).

    A seed's value is its mean over domains. `groups`: the arms in their order, with the group of each.
    """
    rows = []
    for arm, group in groups.items():
        own = arms[arms["arm"] == arm]
        for measure in MEASURES:
            values = own.groupby("seed")[measure].mean()
            mean, low, high, _ = mean_interval(values)
            place = {"group": group, "arm": arm, "measure": measure}
            rows.append(place | {"estimate": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def cost_table(arms: pd.DataFrame, groups: Mapping[str, str]) -> pd.DataFrame:
    """What is kept, `balanced`, and the thousands of tokens that one more expert takes: group, arm, tokens, estimate, …

    A run without `tokens` trained on none. With `low` and `high`, as `arm_table`.
    """
    rows = []
    for arm, group in groups.items():
        own = arms[arms["arm"] == arm]
        mean, low, high, _ = mean_interval(own.groupby("seed")["balanced"].mean())
        place = {"group": group, "arm": arm, "tokens": float(pd.to_numeric(own["tokens"]).fillna(0).mean()) / 1000}
        rows.append(place | {"estimate": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def ablation_table(arms: pd.DataFrame, families: Iterable[str]) -> pd.DataFrame:
    """By family: what MergeAlign keeps. Columns: family, measure, n, estimate, low, high."""
    rows = []
    for family in families:
        for measure in ("gain_kept", "safety_kept"):
            values = arms[arms["family"] == family].groupby("seed")[measure].mean()
            mean, low, high, n = mean_interval(values)
            place = {"family": FAMILIES[family].words, "measure": measure, "n": n}
            rows.append(place | {"estimate": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def part_table(table: pd.DataFrame, runs: pd.DataFrame, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """A table of `compare` over seeds: the columns `by`, measure, estimate, low, high; no value, no row."""
    joined = table.merge(runs[["key", "domain", "seed"]], on="key", validate="many_to_one")
    rows = []
    for place, own in joined.groupby(list(by), sort=False):
        for measure in measures:
            values = own.groupby("seed")[measure].mean().dropna()
            if not values.empty:
                mean, low, high, _ = mean_interval(values)
                rows.append(
                    dict(zip(by, place, strict=True)) | {"measure": measure, "estimate": mean, "low": low, "high": high}
                )
    return pd.DataFrame(rows)


def path_table(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Losses along the ways between models: path, loss_of, place, low, mean, high (range over seeds and domains)."""
    joined = table.merge(runs[["key"]], on="key", validate="many_to_one")
    grouped = joined.groupby(["path", "loss_of", "place"], sort=False)["loss"]
    return grouped.agg(low="min", mean="mean", high="max").reset_index()


def claim_name(rival: str) -> str:
    """A rival's name as part of a claim's."""
    return rival.replace(" ", "_").replace(",", "")


def edges(tried: Mapping[str, Sequence[float]], chosen: Mapping[str, float]) -> str:
    """Names of the values that were chosen at an end of those tried, or none."""
    return "; ".join(name for name, values in tried.items() if chosen[name] in (min(values), max(values))) or "none"


def barriers(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Loss barrier of each way, loss and seed: the largest rise of the loss above the straight line between its ends.

    (Frankle et al. 2020, arXiv 1912.05671.) Columns: path, loss_of, seed, barrier: the mean over domains, in nats.
    """
    joined = table.merge(runs[["key", "domain", "seed"]], on="key", validate="many_to_one")
    rows = []
    for (path, of, domain, seed), own in joined.groupby(["path", "loss_of", "domain", "seed"], sort=False):
        own = own.sort_values("place")
        line = np.interp(own["place"], [0, 1], own["loss"].iloc[[0, -1]])
        rows.append(
            {"path": path, "loss_of": of, "domain": domain, "seed": seed, "barrier": float((own["loss"] - line).max())}
        )
    return pd.DataFrame(rows).groupby(["path", "loss_of", "seed"], as_index=False, sort=False)["barrier"].mean()
