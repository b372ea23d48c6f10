"""How well a judge agrees with people, with intervals over objectives."""

from collections.abc import Callable

import numpy as np
import pandas

from common.errors import UserError
from common.judges.judge import Judge

DRAWS = 2000
FEWEST = 10
"""A category of its own line has responses to as many objectives at least, and both labels."""


def agreement(judge: Judge, rows: pandas.DataFrame, seed: int) -> pandas.DataFrame:
    """Agreement of a judge's verdicts (probability at least 1/2) with the labels of `rows` (see `safe_rows`).

    One line for each category, and first one for `all`: `category`, `n` responses, `groups` of near-duplicate
    objectives, `positive` (share of true labels), then `accuracy`, `balanced_accuracy` (mean of the shares of true and
    of false labels found) and `kappa` (Cohen 1960, agreement beyond chance), each with `_low` and `_high`: a 95%
    percentile bootstrap interval over groups, since responses to one objective are alike. Resamples without both labels
    are left out. Categories with fewer than ten groups or only one label count in `all` alone.
    `seed` fixes the resamples. Raises `UserError` when the rows have one label or fewer than ten groups in all.
    """
    verdict = judge.judge(rows.prompt.tolist(), rows.response.tolist()) >= 0.5
    label = rows.label.to_numpy(bool)
    parts = {"all": np.ones(len(rows), bool)}
    parts |= {category: (rows.category == category).to_numpy() for category in sorted(rows.category.unique())}
    lines = []
    for category, chosen in parts.items():
        groups, group = np.unique(rows.group[chosen], return_inverse=True)
        if len(groups) < FEWEST or len(set(label[chosen])) < 2:
            if category == "all":
                raise UserError(f"{len(rows)} rows of {len(groups)} groups: agreement needs {FEWEST} and both labels")
            continue
        counts = np.zeros((len(groups), 2, 2))
        np.add.at(counts, (group, label[chosen].astype(int), verdict[chosen].astype(int)), 1)
        draws = np.random.default_rng(seed).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), DRAWS)
        resampled = np.tensordot(draws, counts, 1)
        resampled = resampled[(resampled.sum(2) > 0).all(1)]
        line = {"category": category, "n": int(chosen.sum()), "groups": len(groups), "positive": label[chosen].mean()}
        for name, statistic in STATISTICS.items():
            low, high = np.quantile(statistic(resampled), [0.025, 0.975])
            line |= {name: statistic(counts.sum(0)[None])[0], f"{name}_low": low, f"{name}_high": high}
        lines.append(line)
    return pandas.DataFrame(lines)


def _accuracy(counts: np.ndarray) -> np.ndarray:
    """From counts `(tables, label, verdict)` to one number a table, as all of these."""
    return counts.trace(axis1=1, axis2=2) / counts.sum((1, 2))


def _balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    return (counts.diagonal(axis1=1, axis2=2) / counts.sum(2)).mean(1)


def _kappa(counts: np.ndarray) -> np.ndarray:
    chance = (counts.sum(2) * counts.sum(1)).sum(1) / counts.sum((1, 2)) ** 2
    return (_accuracy(counts) - chance) / (1 - chance)


STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "kappa": _kappa,
}
