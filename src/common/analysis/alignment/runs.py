"""The table of runs: what must be in it, each run's score, and means over seeds.

A run has a row. `part` is one of `PARTS`; `dataset`, `aim` (harmless, helpful, mix; none where untuned), `method` (sft,
dpo, sft+dpo of a merge; none), `start` (base, instruct; unseen: a base that never met a prompt), `taken` (a model of
others as it is, the same for all seeds) and so on say what it is, and the measures of `common.alignment.evaluation`
what came of it.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from common.alignment.evaluation import MEASURES
from common.errors import UserError
from common.evidence import mean_interval

PARTS = ("starts", "crossing", "quantised", "sizes", "ranks", "losses", "selection", "merges", "unseen")
MAIN = ("knowledge", "exact", "win_rate", "nontoxic", "resisted_all")
"""Measures that stand for the paper's five: MMLU, BBH, AlpacaEval, RealToxicity, Red-Instruct."""

MEASURED = (*MEASURES, "reward")

AIMED = {"harmless": ("declined",), "helpful": ("win_rate",), "mix": ("declined", "win_rate")}
"""What data of an aim ask for: that unsafe prompts are declined, that replies to benign ones are preferred."""

Levels = Mapping[str, object]


def scored(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with `score`, the mean of what their aim asks for, and `both`, the mean of what either asks for.

    Shares from 0 to 1. A model that declines everything has `declined` 1 and still some win rate, since as good a
    reply as the rival's counts one half: where models of both aims are held against each other, `balanced` is fairer.
    """
    means = {aim: runs[list(names)].mean(axis=1, skipna=False) for aim, names in AIMED.items()}
    score = pd.Series(np.nan, runs.index)
    for aim, mean in means.items():
        score = score.where(runs["aim"] != aim, mean)
    return runs.assign(score=score, both=means["mix"])


def part(
    runs: pd.DataFrame,
    names: str | Sequence[str],
    by: Sequence[str],
    measures: Iterable[str],
    cells: Sequence[Levels] | None = None,
) -> pd.DataFrame:
    """The rows of a part, once found whole: each cell of `by` once for each seed, all measures there.

    `cells` are all that should be there, by default every combination of the levels that are. Raises `UserError` where
    a cell, one of its seeds or a measure is missing, where one is there twice, and where two seeds have the same
    numbers throughout: then the seed had no effect. Models that were `taken` as they are have no seed.
    """
    names = [names] if isinstance(names, str) else list(names)
    title, by, measures = " and ".join(names), list(by), list(measures)
    own = runs[runs["part"].isin(names)]
    if own.empty:
        raise UserError(f"no run of {title}")
    if absent := [name for name in (*by, "seed", *measures) if name not in own]:
        raise UserError(f"runs of {title} lack the column {absent[0]}")
    if (missing := own[measures].isna() | np.isinf(own[measures].astype(float))).any(axis=None):
        measure = missing.any().idxmax()
        raise UserError(f"{title}: {measure} is missing or not finite for {_place(own[missing[measure]].iloc[0], by)}")
    if own.duplicated([*by, "seed"]).any():
        raise UserError(f"{title}: there twice: {_place(own[own.duplicated([*by, 'seed'])].iloc[0], by)}")
    seeds = sorted(own["seed"].unique())
    axes = [own[name].unique() for name in by]
    wanted = pd.MultiIndex.from_product([*axes, seeds], names=[*by, "seed"])
    if cells is not None:
        wanted = pd.MultiIndex.from_tuples(
            [(*(cell[name] for name in by), seed) for cell in cells for seed in seeds], names=[*by, "seed"]
        )
    there = pd.MultiIndex.from_frame(own[[*by, "seed"]])
    for problem, found in (("missing", wanted.difference(there)), ("not in the grid", there.difference(wanted))):
        if len(found):
            raise UserError(f"{title}: {problem}: {_place(dict(zip(wanted.names, found[0], strict=True)), by)}")
    all_measures = [name for name in MEASURED if name in own and not own[name].isna().any()]
    for _, cell in own[~own["taken"].astype(bool)].groupby(by, sort=False):
        if (same := cell.duplicated(all_measures)).any():
            raise UserError(f"{title}: another seed has the same numbers: {_place(cell[same].iloc[0], by)}")
    return own


def there(runs: pd.DataFrame, name: str, by: Sequence[str]) -> list[dict[str, object]]:
    """Cells of a part that is no full crossing: those that are there for some seed, and must be for every."""
    return runs.loc[runs["part"] == name, list(by)].drop_duplicates().to_dict("records")


def by_seed(rows: pd.DataFrame, measure: str, **where: object) -> pd.Series:
    """Mean of a measure over the rows that have these levels, by seed; `UserError` where there is none."""
    own = rows
    for name, level in where.items():
        own = own[own[name] == level]
    if own.empty:
        raise UserError(f"no run with {', '.join(f'{name} {level}' for name, level in where.items())}")
    return own.groupby("seed")[measure].mean()


def summary(rows: pd.DataFrame, by: Sequence[str], measures: Iterable[str]) -> pd.DataFrame:
    """A row for each cell of `by` and measure: `measure`, `n`, `estimate`, `low`, `high` (95% by t over seeds).

    A seed's value is its mean over what `by` leaves open.
    """
    found = []
    for levels, cell in rows.groupby(list(by), sort=False):
        for measure in measures:
            mean, low, high, n = mean_interval(cell.groupby("seed")[measure].mean())
            found.append(
                dict(zip(by, levels, strict=True))
                | {"measure": measure, "n": n, "estimate": mean, "low": low, "high": high}
            )
    return pd.DataFrame(found)


def _place(row: Mapping[str, object], by: Sequence[str]) -> str:
    return ", ".join(f"{name} {row[name]}" for name in (*by, "seed"))
