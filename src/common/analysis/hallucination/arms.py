"""Which model is which: arms by name, their kind of architecture, and the models that answered."""

from collections.abc import Mapping
from itertools import cycle, islice

import pandas as pd

from common.errors import UserError
from common.evidence import require_varied

ATTENTION, RECURRENT, HYBRID = "attention", "recurrent", "hybrid"
KINDS = (ATTENTION, HYBRID, RECURRENT)
BASE, TUNED = "base", "instruct"


def ladder_share(architecture: Mapping) -> float | None:
    """Share of a RecurrentGemma's layers that are attention; None for another family."""
    if architecture["family"] != "recurrent_gemma":
        return None
    shape = architecture["shape"]
    layers = list(islice(cycle(shape["blocks"]), shape["layers"]))
    return layers.count(ATTENTION) / len(layers)


def kind_of(architecture: Mapping) -> str:
    """The kind of an architecture by its layers: attention, hybrid or recurrent."""
    share = ladder_share(architecture)
    if share is None:
        return ATTENTION if architecture["family"] == "llama" else RECURRENT
    return {0.0: RECURRENT, 1.0: ATTENTION}.get(share, HYBRID)


LARGE = "large"
"""The size of the arms that all claims are about but those on size."""


def check_arms(
    arms: Mapping[str, Mapping], smaller: Mapping[str, Mapping[str, Mapping]], rates: Mapping[str, object]
) -> None:
    """Raise `UserError` unless the claims have what they compare.

    Needed are arms of every kind, RecurrentGemmas of at least two shares of attention, and one of attention and one
    recurrent both of the arms that each of the `smaller` sizes has and of those for which `rates` are tried; of every
    family one arm for which they are. Arms of one size have equal numbers of parameters, and all sizes the same arms.
    """
    if unknown := rates.keys() - arms.keys():
        raise UserError(f"rates of {', '.join(sorted(unknown))}, which are not among the arms {', '.join(arms)}")
    tried = {name: arms[name] for name in rates}
    families = {arm["family"] for arm in tried.values()}
    if absent := [name for name, arm in arms.items() if arm["family"] not in families]:
        raise UserError(f"no rates for {', '.join(absent)}, nor for another arm of the family")
    if not smaller or LARGE in smaller:
        raise UserError(f"smaller sizes are {', '.join(smaller) or 'none'}; allowed: one or more, none called {LARGE}")
    if len({frozenset(several) for several in smaller.values()}) > 1:
        first = ", ".join(next(iter(smaller.values())))
        raise UserError(f"smaller sizes have unlike arms; those of the first: {first}")
    for what, several, wanted in (
        ("arms", arms, KINDS), ("arms with rates", tried, (ATTENTION, RECURRENT)),
        *((f"arms of the size {size}", several, (ATTENTION, RECURRENT)) for size, several in smaller.items()),
    ):  # fmt: skip
        kinds = [kind_of(arm) for arm in several.values()]
        if absent := [kind for kind in wanted if kind not in kinds]:
            raise UserError(f"{what} are {', '.join(several)}; the study needs one of {', '.join(absent)}")
        if len(sizes := {arm["parameters"] for arm in several.values()}) > 1:
            raise UserError(f"{what} have {sorted(sizes)} parameters; to be compared they need equally many")
    if unknown := {name for several in smaller.values() for name in several} - tried.keys():
        raise UserError(
            f"smaller arms {', '.join(sorted(unknown))} are not among the arms with rates: {', '.join(tried)}"
        )
    if len({ladder_share(arm) for arm in arms.values()} - {None}) < 2:
        raise UserError("one share of attention makes no ladder; give RecurrentGemmas of two shares or more")


def named(runs: pd.DataFrame, arms: Mapping[str, Mapping], size: str) -> pd.DataFrame:
    """Runs with the name of their `arm`, its `kind` and `size`, and the name of each `model`, such as Llama_large_3.

    Raises `UserError` where the seed of an arm had no effect: equal losses.
    """
    names = [next(name for name, arm in arms.items() if arm == own) for own in runs["architecture"]]
    found = runs.assign(arm=names, kind=[kind_of(arms[name]) for name in names], size=size)
    found["model"] = [f"{arm}_{size}_{seed}" for arm, seed in zip(names, runs["seed"], strict=True)]
    for name, own in found.groupby("arm"):
        if own["seed"].nunique() > 1:
            require_varied(own["loss of stories"], f"loss of {name} on stories")
    return found


def of_models(evaluated: pd.DataFrame, table: pd.DataFrame, models: pd.DataFrame, stage: str) -> pd.DataFrame:
    """Rows of `table` that these evaluations returned, with arm, kind, size, seed and parameters of the
    model asked, and `stage`.

    Raises `UserError` where a model that was asked has no rows.
    """
    rows = table.merge(evaluated[["key", "model"]], on="key", validate="many_to_one")
    if absent := set(evaluated["model"]) - set(rows["model"]):
        raise UserError(f"no rows of {', '.join(sorted(absent))}")
    about = models[["model", "arm", "kind", "size", "seed", "parameters"]]
    return rows.merge(about, on="model", validate="many_to_one").assign(stage=stage)
