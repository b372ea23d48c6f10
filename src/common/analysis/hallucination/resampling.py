"""Intervals of the claims by the bootstrap, over seeds and the items that each seed's models were asked."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from common.analysis.hallucination.claims import evidence

GROUP = ["task", "breakdown", "value"]


def bootstrapped(
    answers: pd.DataFrame, tasks: Sequence[str], decided: Mapping[str, Mapping], resamples: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Each claim's estimate with its 95% interval by t over seeds, and by the bootstrap over seeds and items.

    Two stages (Davison and Hinkley 1997, section 3.8): items are drawn anew within each seed, `resamples` times, the
    same for all models of the seed, which were asked the same; then seeds are, and each brings one of its resampled
    differences. A percentile interval, which with few seeds is somewhat too short. `answers` and `tasks` are as
    `evidence` takes them, `decided` the records of the claims. Columns: claim, estimate, t_low, t_high, low, high,
    agree: whether both intervals lie on the same side of 0, or on none.
    """
    rng = np.random.default_rng(seed)
    rows = answers[(answers["temperature"] == 0.0) & answers["breakdown"].isin(["all", "frequency", "asked"])]
    rows = rows.reset_index(drop=True)
    groups = [
        (own.index.to_numpy(), np.array([np.array(text.split(), float) for text in own["outcomes"]]))
        for _, own in rows.groupby(["seed", *GROUP], sort=False)
    ]
    drawn = []
    for _ in range(resamples):
        wrong = np.empty(len(rows))
        for place, outcomes in groups:
            wrong[place] = outcomes[:, rng.integers(outcomes.shape[1], size=outcomes.shape[1])].mean(axis=1)
        drawn.append(evidence(rows.assign(wrong=wrong), tasks))
    found = []
    for name, record in decided.items():
        by_seed = np.array([one[name] for one in drawn])  # (resamples, seeds)
        shape = (20 * resamples, by_seed.shape[1])
        means = by_seed[rng.integers(resamples, size=shape), rng.integers(by_seed.shape[1], size=shape)].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        ends = *record["ci"], low, high
        sides = [(first > 0) - (second < 0) for first, second in (ends[:2], ends[2:])]
        found.append((name, record["estimate"], *ends, sides[0] == sides[1]))
    return pd.DataFrame(found, columns=["claim", "estimate", "t_low", "t_high", "low", "high", "agree"])
