"""The learning rate of each arm, by the pilot, and whether a run has learnt at all."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from common.errors import UserError
from common.hallucination.world import QUARTILES

RECALLED = [f"loss of recall, {quartile}" for quartile in QUARTILES]
STORIES = "loss of stories"


def rates_table(runs: pd.DataFrame, rates: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """The rates that were tried, a row each: arm, learning_rate, recall, stories, score, chosen, edge.

    `recall` is the mean over quartiles of the loss, in nats, of the facts' objects, and `score` its mean with the loss
    of stories; of each arm the rate of the lowest score is `chosen`. `edge` says of that one whether it is the lowest
    or the highest that was tried: beyond it may be a better one. `runs` has the columns arm, learning_rate and these
    losses, one run for each. Raises `UserError` where a rate that was to be tried has no run.
    """
    table = runs[["arm", "learning_rate"]].assign(recall=runs[RECALLED].mean(axis=1), stories=runs[STORIES])
    table["score"] = table[["recall", "stories"]].mean(axis=1)
    found = []
    for arm, several in rates.items():
        own = table[(table["arm"] == arm) & table["learning_rate"].isin(several)].sort_values("learning_rate")
        if absent := [rate for rate in several if rate not in set(own["learning_rate"])]:
            raise UserError(f"{arm} was not tried at {', '.join(map(str, absent))}")
        chosen = own["score"] == own["score"].min()
        edge = np.where(chosen, own["learning_rate"].isin([min(several), max(several)]), False)
        found.append(own.assign(chosen=chosen, edge=edge))
    return pd.concat(found, ignore_index=True)


def chosen_rates(table: pd.DataFrame, arms: Mapping[str, Mapping]) -> dict[str, float]:
    """The rate of each arm: the one chosen in `rates_table`, or else that of the first arm of its family."""
    own = table[table["chosen"]].set_index("arm")["learning_rate"].to_dict()
    family: dict[str, float] = {}
    for arm, rate in own.items():
        family.setdefault(arms[arm]["family"], rate)
    return {name: float(own.get(name, family[arm["family"]])) for name, arm in arms.items()}


def check_learnt(runs: pd.DataFrame) -> None:
    """Raise `UserError` where a model did not learn the most frequent facts.

    `runs` has the columns model, learnt, learnt_facts and `RECALLED`: see `common.hallucination.pretraining.pretrain`.
    """
    if not (late := runs[~runs["learnt_facts"].astype(bool)]).empty:
        told = ", ".join(f"{row['model']} {row[RECALLED[0]]:.2f}" for _, row in late.iterrows())
        limit = late["learnt"].iloc[0]
        raise UserError(f"loss on the most frequent facts: {told}; allowed: {limit} nats. Train longer, or faster")
