"""The learning rate of each arm, by the pilot."""

from collections.abc import Mapping, Sequence

import pandas as pd

from common.errors import UserError
from common.hallucination.world import QUARTILES

PROBES = (*(f"loss of recall, {quartile}" for quartile in QUARTILES), "loss of stories")


def chosen_rates(runs: pd.DataFrame, rates: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Of each arm the rate with the lowest loss: half of it recall, the mean over quartiles, and half of it stories.

    `runs` has the columns arm, learning_rate and `PROBES`, one run for each. Raises `UserError` where a rate that was
    to be tried has no run.
    """
    score = runs[list(PROBES[:-1])].mean(axis=1) + runs[PROBES[-1]]
    table = runs.assign(score=score).set_index(["arm", "learning_rate"])["score"]
    for arm, several in rates.items():
        if absent := [rate for rate in several if (arm, rate) not in table.index]:
            raise UserError(f"{arm} was not tried at {', '.join(map(str, absent))}")
    return {arm: float(table[arm].idxmin()) for arm in rates}
