"""Intervals of the claims by the bootstrap, over seeds and the items that each seed's models were asked."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from common.analysis.hallucination.claims import Basis, evidence

GROUP = ["task", "breakdown", "value"]


def bootstrapped(
    answers: pd.DataFrame,
    basis: Basis,
    decided: Mapping[str, Mapping],
    resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Each claim's estimate with its 95% interval by t over seeds, and by the bootstrap over seeds and items.

    Two stages (Davison and Hinkley 1997, section 3.8): items are drawn anew within each seed, `resamples` times, the
    same for all models of the seed, which were asked the same; then seeds are, and each brings one of its resampled
    differences. A percentile interval, which with few seeds is somewhat too short. `answers` and `basis` are as
    `evidence` takes them, `decided` the records of the claims. Columns: claim, estimate, t_low, t_high, low, high,
    agree: whether both intervals lie on the same side of 0 or on none, of an equivalence both within the margin or not.
    """
    rng = np.random.default_rng(seed)
    rows = answers[(answers["temperature"] == 0.0) & answers["breakdown"].isin(["all", "frequency", "asked"])]
    rows = rows.reset_index(drop=True)
    wrong = np.empty((len(rows), resamples))
    for _, own in rows.groupby(["seed", *GROUP], sort=False):
        outcomes = np.array([text.split() for text in own["outcomes"]], float)  # (models, items)
        places = rng.integers(outcomes.shape[1], size=(resamples, outcomes.shape[1]))
        wrong[own.index] = outcomes[:, places].mean(axis=2)
    # Each resample as a seed of its own: what decides the claims is computed by seed, and so for all at once.
    again = rows.loc[np.repeat(rows.index, resamples)]
    number = np.tile(np.arange(resamples), len(rows))
    drawn = evidence(again.assign(seed=again["seed"] * resamples + number, wrong=wrong.ravel()), basis)
    found = []
    for name, record in decided.items():
        by_seed = drawn[name].reshape(-1, resamples)
        shape = (20 * resamples, len(by_seed))
        means = by_seed[rng.integers(len(by_seed), size=shape), rng.integers(resamples, size=shape)].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        ends = *record["ci"], low, high
        sides = [_side(record, *pair) for pair in (ends[:2], ends[2:])]
        found.append((name, record["estimate"], *ends, sides[0] == sides[1]))
    return pd.DataFrame(found, columns=["claim", "estimate", "t_low", "t_high", "low", "high", "agree"])


def _side(record: Mapping, low: float, high: float) -> int:
    """What an interval says for a claim: 1 that it is so, of a difference -1 that it is the other way round, or 0."""
    if record["test"] == "equivalent":
        return int(-record["margin"] < low and high < record["margin"])
    return int(low > 0) - int(high < 0)
