"""Runs by arm: rows that differ by nothing but their seed, and whether their means agree in two makings.

A row of `runs.csv` does not say which columns are settings. But a setting is shared by several seeds and a measurement
is not, so that columns whose every value stands with two seeds or more tell the arms apart.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from common.verification.tables import numbers
from common.verification.tolerances import tolerance_of

CHANCE = 0.05  # so many of 95% intervals may miss


def arms_of(runs: pd.DataFrame, same: list[str]) -> pd.Series:
    """A label for each row of `runs.csv`, equal where rows differ by their seed alone; `same`: columns to tell by."""
    labels = pd.Series("", index=runs.index)
    for sweep, rows in runs.groupby("sweep", sort=False):
        seeds = _seeds(rows)
        told = [str(sweep)] * len(rows)
        varied = [name for name in same if name not in {"key", "sweep", "seed"} and rows[name].nunique() > 1]
        for name in varied:
            values = [_without(seed, value) for seed, value in zip(seeds, rows[name], strict=True)]
            seen = pd.DataFrame({"value": values, "seed": list(seeds)}).groupby("value")["seed"].nunique()
            if seen.min() >= min(2, seeds.nunique()):
                told = [f"{label}|{value}" for label, value in zip(told, values, strict=True)]
        labels[rows.index] = told
    return labels


def _without(seed: str, value: str) -> str:
    """A value that is no number without the seed that it names, as that of a model does."""
    if not seed or seed not in value or re.fullmatch(r"[\d.]*", value):
        return value
    return re.sub(rf"(?<![\d.]){seed}(?![\d.])", "#", value)


def _seeds(rows: pd.DataFrame) -> pd.Series:
    """Seed of each row as text; where no column has it, the number that names of models end with, or nothing."""
    if (rows["seed"] != "").all() if "seed" in rows else False:
        return rows["seed"]
    for name in rows.columns.difference(["key", "sweep"], sort=False):
        ends = rows[name].str.extract(r"[a-z][\w,. -]*[-_ ](\d+)$", expand=False)
        if ends.notna().all():
            return ends
    return pd.Series("", index=rows.index)


@dataclass(frozen=True)
class Measured:
    """Measurements of one making, a row for each run and an arm's label for each row."""

    values: pd.DataFrame
    arms: pd.Series


def of_runs(runs: pd.DataFrame, names: list[str], arms: pd.Series) -> Measured:
    """Metrics `names` of `runs.csv`."""
    return Measured(runs[names].apply(pd.to_numeric, errors="coerce"), arms)


def of_table(table: pd.DataFrame, runs: pd.DataFrame, arms: pd.Series) -> Measured:
    """Numeric columns of a table that runs returned, averaged for each run and each combination of its words."""
    measures = [name for name in table if name != "key" and numbers(table[name]) is not None]
    words = [name for name in table if name != "key" and name not in measures]
    values = table[measures].apply(pd.to_numeric, errors="coerce")
    means = values.groupby([table["key"], *(table[name] for name in words)], sort=False).mean().reset_index()
    by_key = dict(zip(runs["key"], arms, strict=True))
    labels = means["key"].map(by_key).str.cat([means[name] for name in words], sep="|")
    return Measured(means[measures], labels)


def means_apart(old: Measured, new: Measured) -> tuple[int, int, str]:
    """How many means of an arm lie outside the other making's 95% interval, of how many, and the first of them.

    Arms of one row borrow the spread of their metric's other arms. Without any spread, a mean must lie within the
    metric's tolerance. An arm that one making lacks lies outside.
    """
    outside, tried, first = 0, 0, ""
    for name in old.values.columns.union(new.values.columns, sort=False):
        one, other = _means(old, name), _means(new, name)
        one, other = one.align(other, join="outer", axis=0)
        near = (one["mean"] - other["mean"]).abs() <= np.minimum(one["reach"], other["reach"])
        near |= tolerance_of(name).allows(one["mean"], other["mean"])
        tried, outside = tried + len(near), outside + int((~near).sum())
        if not near.all() and not first:
            label = near.index[~near][0]
            before, after = (table.loc[label, "mean"] for table in (one, other))
            first = f"{name} of {_short(str(label))}: {before:.4g} → {after:.4g}"
    return outside, tried, first


def _means(making: Measured, name: str) -> pd.DataFrame:
    """Mean of a metric by arm, and how far its 95% interval reaches to either side."""
    values = making.values[name] if name in making.values else pd.Series(np.nan, index=making.arms.index)
    table = values.groupby(making.arms).agg(["mean", "var", "count"])
    table = table[table["count"] > 0]
    freedom = table["count"] - 1
    pooled = (table["var"].fillna(0) * freedom).sum() / max(1, freedom.sum())
    freedom = freedom.where(freedom > 0, freedom.sum())
    spread = np.sqrt(table["var"].fillna(pooled) / table["count"])
    reach = np.where(freedom > 0, stats.t.ppf(0.975, freedom.clip(lower=1)) * spread, 0.0)
    return pd.DataFrame({"mean": table["mean"], "reach": reach})


def _short(label: str) -> str:
    return label if len(label) < 60 else f"{label[:59]}…"
