"""How well each predictor predicted the gain: scores, rank correlations, regrets, and their intervals.

The gain of a candidate is the test loss of its base after continued training, less its own: both from the same base, on
the same batches, for the same number of steps.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from common.analysis.expansion.laboratory import NONE, kind_of
from common.errors import UserError

RUN = "run"
PREDICTORS = {
    "m": "M",
    "level": "M's level alone",
    "volume": "M's volume alone",
    "m_c": "M_C: volume in weights",
    RUN: "training run of equal cost",
    "parameters": "number of parameters",
    "loss_before": "loss before training",
    "gradient_norm": "gradient norm",
    "snip": "SNIP",
    "synflow": "SynFlow",
    "naswot": "NASWOT",
    "sharpness": "sharpness",
    "hessian_trace": "Hessian trace",
}
OURS = ("m", "level", "volume", "m_c", RUN)  # where more is better by definition
RIVALS = tuple(name for name in PREDICTORS if name not in ("m", "level", "volume", "m_c"))
RESAMPLES = 2000
MEAN = "mean"  # over the tasks
Values = NDArray[np.float64]


def gains(runs: pd.DataFrame) -> pd.DataFrame:
    """The candidates' rows with `gain`, in nats, `before`, the base's M, and `size`; the base's own rows are left out.

    `size` is the number of parameters, which `parameters` is too until it is turned as a predictor; see `oriented`.

    Raises `UserError` where a base was not trained further itself.
    """
    base = runs[runs["candidate"] == NONE].set_index(["task", "seed"])
    own = runs[runs["candidate"] != NONE].reset_index(drop=True)
    places = pd.MultiIndex.from_frame(own[["task", "seed"]])
    if absent := sorted(set(places) - set(base.index)):
        raise UserError(f"the base of {absent[0]} was not trained further itself")
    found = base.loc[places].reset_index(drop=True)
    gain = found["test_loss"] - own["test_loss"]
    return own.assign(gain=gain, before=found["m"], after=own["m"], size=own["parameters"].astype(int))


def with_run(scored: pd.DataFrame, short: pd.DataFrame, rates: Mapping[str, float], share: float) -> pd.DataFrame:
    """`scored` with the column `run`: the promise of the short run at this share of M's cost and its task's rate."""
    rate = scored["task"].map(lambda task: rates[kind_of(task)])
    chosen = short[np.isclose(short["share"], share)]
    promised = chosen.set_index(["key", "rate"])["promise"]
    at = pd.MultiIndex.from_arrays([scored["key"], rate])
    if absent := sorted(set(at) - set(promised.index)):
        raise UserError(f"no short run at rate {absent[0][1]} and a share {share} of M's cost was made")
    return scored.assign(**{RUN: promised.loc[at].to_numpy(dtype=float)})


def choose_rates(scored: pd.DataFrame, short: pd.DataFrame) -> pd.DataFrame:
    """By kind of network and rate, the mean rank correlation of short runs of M's cost with the gain; and the choice.

    Columns: kind, rate, correlation, chosen. Of equal ones the lower rate.
    """
    rows = []
    for kind, own in scored.assign(kind=scored["task"].map(kind_of)).groupby("kind", sort=False):
        full = short[short["key"].isin(own["key"]) & np.isclose(short["share"], 1.0)]
        for rate in sorted(full["rate"].unique()):
            told = with_run(own, short, {kind: rate}, 1.0)
            rows.append({"kind": kind, "rate": rate, "correlation": float(by_seed(told, RUN).mean())})
    table = pd.DataFrame(rows)
    best = table.groupby("kind")["correlation"].idxmax()
    return table.assign(chosen=table.index.isin(best))


def edges(tried: pd.DataFrame) -> str:
    """Kinds of network whose chosen rate is the least or the largest tried, so that a better one may lie beyond."""
    ends = tried.groupby("kind")["rate"].agg(["min", "max"])
    chosen = tried[tried["chosen"]].set_index("kind")["rate"]
    return ", ".join(kind for kind, rate in chosen.items() if rate in set(ends.loc[kind])) or "none"


def signs(scored: pd.DataFrame) -> dict[str, dict[str, int]]:
    """By kind of network, whether more (1) or less (−1) of a predictor means more gain here; ours are fixed."""
    found = {}
    for kind, own in scored.groupby(scored["task"].map(kind_of), sort=False):
        other = {name: float(by_seed(own, name).mean()) for name in PREDICTORS if name not in OURS}
        found[kind] = dict.fromkeys(OURS, 1) | {name: 1 if value >= 0 else -1 for name, value in other.items()}
    return found


def oriented(scored: pd.DataFrame, way: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """`scored` with every predictor such that more promises more; `way` as `signs` gives it."""
    by_task = pd.DataFrame({task: way[kind_of(task)] for task in scored["task"].unique()}).T
    turned = {name: scored[name].astype(float) * scored["task"].map(by_task[name]) for name in PREDICTORS}
    return scored.assign(**turned)


def rank_correlation(pairs: Values) -> Values:
    """Spearman's rank correlation, averaged over seeds; `pairs (…, seeds, candidates, 2)`, score and gain, to `(…)`.

    Where all scores of a seed are equal they rank nothing: 0.
    """
    ranks = rankdata(pairs, axis=-2)
    centred = ranks - ranks.mean(-2, keepdims=True)
    spread = np.sqrt((centred**2).sum(-2).prod(-1))
    product = (centred[..., 0] * centred[..., 1]).sum(-1)
    return np.where(spread > 0, product / np.where(spread > 0, spread, 1), 0.0).mean(-1)


def regret(pairs: Values) -> Values:
    """Share of the gain of the best candidate that is missed by taking the one of the highest score; as above."""
    gains = pairs[..., 1]
    taken = np.take_along_axis(gains, pairs[..., 0].argmax(-1)[..., None], -1)[..., 0]
    best = gains.max(-1)
    return ((best - taken) / best).mean(-1)


def by_seed(
    scored: pd.DataFrame, predictor: str, statistic: Callable[[Values], Values] = rank_correlation
) -> pd.Series:
    """A statistic of a predictor and the gain, by task and seed, over candidates."""
    return scored.groupby(["task", "seed"], sort=False).apply(
        lambda own: float(statistic(own[[predictor, "gain"]].to_numpy(dtype=float)[None]))
    )


def pairs_of(scored: pd.DataFrame, task: str, predictor: str) -> Values:
    """Scores and gains on a task, `(seeds, candidates, 2)`. Raises `UserError` where a candidate lacks a seed."""
    own = scored[scored["task"] == task]
    values = [own.pivot(index="seed", columns="candidate", values=name) for name in (predictor, "gain")]
    if any(each.isna().any(axis=None) for each in values):
        raise UserError(f"{task}: a candidate lacks a seed that others have")
    return np.stack([each.to_numpy(dtype=float) for each in values], axis=-1)


def resampled(values: Values, statistic: Callable[[Values], Values]) -> tuple[float, Values]:
    """The statistic of `values (seeds, candidates, …)`, and of resamples in which both are drawn anew `(resamples,)`.

    The crossed bootstrap (Owen 2007). Tasks that share candidates or seeds share what is drawn of them.
    """
    rng = np.random.default_rng(0)
    seeds, candidates = values.shape[:2]
    rows = rng.integers(seeds, size=(RESAMPLES, seeds, 1))
    columns = rng.integers(candidates, size=(RESAMPLES, 1, candidates))
    return float(statistic(values)), statistic(values[rows, columns])


def _row(task: str, predictor: str, estimate: float, drawn: Values) -> dict[str, object]:
    """An estimate with its 95% interval by percentiles: of few candidates the accelerated one need not be defined."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    # Drawn with repetition, candidates may rank better than all of them do.
    place = {"task": task, "predictor": predictor, "estimate": estimate}
    return place | {"low": min(float(low), estimate), "high": max(float(high), estimate)}


def _mean(found: Sequence[tuple[float, Values]]) -> tuple[float, Values]:
    return float(np.mean([estimate for estimate, _ in found])), np.mean([drawn for _, drawn in found], axis=0)


def _table(found: Mapping[tuple[str, str], tuple[float, Values]]) -> pd.DataFrame:
    """Rows of each task and predictor, and of the mean over tasks where there are several."""
    rows = [_row(task, predictor, *each) for (task, predictor), each in found.items()]
    tasks = dict.fromkeys(task for task, _ in found)
    for predictor in dict.fromkeys(predictor for _, predictor in found):
        own = [found[task, predictor] for task in tasks if (task, predictor) in found]
        if len(own) == len(tasks) > 1:
            rows.append(_row(MEAN, predictor, *_mean(own)))
    return pd.DataFrame(rows)


def _correlations(
    scored: pd.DataFrame, predictors: Sequence[str], statistic: Callable[[Values], Values]
) -> dict[tuple[str, str], tuple[float, Values]]:
    """By task and predictor; what is the same for all candidates, as it may be at equal size, is left out."""
    found = {}
    for task in scored["task"].unique():
        for predictor in predictors:
            pairs = pairs_of(scored, task, predictor)
            if not (np.ptp(pairs[..., 0], axis=1) == 0).all():
                found[task, predictor] = resampled(pairs, statistic)
    return found


def power_table(
    scored: pd.DataFrame, predictors: Sequence[str] = tuple(PREDICTORS), statistic: Callable = rank_correlation
) -> pd.DataFrame:
    """One row a task and predictor, and the mean over tasks: task, predictor, estimate, low, high.

    Over candidates and seeds. What is the same for all candidates is left out.
    """
    return _table(_correlations(scored, predictors, statistic))


def lead_table(scored: pd.DataFrame) -> pd.DataFrame:
    """How much better M's rank correlation is than each other predictor's; columns and rows as of `power_table`.

    Over candidates and seeds, in pairs: a resample has the same candidates for both.
    """
    found = {}
    for task in scored["task"].unique():
        m = pairs_of(scored, task, "m")
        for rival in [name for name in PREDICTORS if name != "m"]:
            other = pairs_of(scored, task, rival)[..., :1]
            found[task, rival] = resampled(np.concatenate([m, other], axis=-1), _lead)
    return _table(found)


def _lead(triples: Values) -> Values:
    return rank_correlation(triples[..., :2]) - rank_correlation(triples[..., [2, 1]])


def equal_table(scored: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation within each set of equal size: task, set, candidates, predictor, estimate, low, high.

    And the mean over tasks, of the mean over a task's sets.
    """
    predictors = [name for name in PREDICTORS if name != "parameters"]
    parts, means = [], {}
    for task, sets in equal_sets(scored).items():
        own = scored[scored["task"] == task]
        found = [
            _correlations(own[own["candidate"].isin(names)], predictors, rank_correlation) for names in sets.values()
        ]
        for (size, names), each in zip(sets.items(), found, strict=True):
            parts.append(_table(each).assign(set=f"{size:,} parameters", candidates=len(names)))
        for place in [place for place in found[0] if all(place in each for each in found)]:
            means[place] = _mean([each[place] for each in found])
    mean = _table(means)
    return pd.concat([*parts, mean[mean["task"] == MEAN].assign(set="all sets", candidates=0)], ignore_index=True)


def equal_sets(scored: pd.DataFrame, least: int = 4) -> dict[str, dict[int, list[str]]]:
    """By task, the sets of `least` candidates or more that have one number of parameters, to the last one.

    Sets have candidates of two types or more, as otherwise they tell nothing across types.
    """
    found: dict[str, dict[int, list[str]]] = {}
    told = scored.drop_duplicates(["task", "candidate"])
    for (task, size), own in told.groupby(["task", "size"], sort=False):
        if len(own) >= least and own["type"].nunique() > 1:
            found.setdefault(task, {})[int(size)] = own["candidate"].tolist()
    return found


def parted(scored: pd.DataFrame) -> pd.Series:
    """M of fresh units that nobody reads yet less M of exact copies, of one number of parameters, by task and seed."""
    rows = {}
    for (task, seed), own in scored.groupby(["task", "seed"], sort=False):
        m = own.groupby(["operator", "size"])["m"].mean()
        sizes = set(m.get("zero", {}).keys()) & set(m.get("net2wider", {}).keys())
        if not sizes:
            raise UserError(f"{task} has no candidates zero and net2wider of one number of parameters")
        rows[task, seed] = float(np.mean([m["zero", size] - m["net2wider", size] for size in sizes]))
    return pd.Series(rows)


def at_equal_size(scored: pd.DataFrame, predictor: str) -> pd.Series:
    """Rank correlation within sets of equal size, averaged over the sets, by task and seed."""
    parts = []
    for task, sets in equal_sets(scored).items():
        own = scored[scored["task"] == task]
        each = [by_seed(own[own["candidate"].isin(names)], predictor) for names in sets.values()]
        parts.append(pd.concat(each, axis=1).mean(axis=1))
    if not parts:
        raise UserError("no four candidates of two types have the same number of parameters")
    return pd.concat(parts)
