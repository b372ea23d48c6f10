"""Tables that figures are drawn from: shares of wrong answers with their intervals over seeds."""

from collections.abc import Mapping

import pandas as pd

from common.analysis.hallucination.arms import BASE, TUNED, ladder_share
from common.analysis.hallucination.claims import ASPECTS, LARGE, RARE, TRAP
from common.evidence import mean_interval

STAGES = (BASE, TUNED)


def early_table(answers: pd.DataFrame) -> pd.DataFrame:
    """The paper's early figure: rare facts that are wrong, and proverbs ended from memory. See `_intervals`."""
    large = answers[(answers["size"] == LARGE) & (answers["stage"] == BASE)]
    rows = [
        _intervals(_rows(large, **wanted), column, ["kind", "arm"]).assign(measure=measure)
        for measure, column, wanted in (
            ("rarest facts, wrong", "wrong", RARE),
            ("proverbs, ended from memory", "memorised", TRAP),
        )
    ]
    return pd.concat(rows, ignore_index=True)


def map_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Shares of wrong answers by task and arm, of tuned models: aspect, task, kind, arm, estimate, low, high."""
    tuned = answers[(answers["size"] == LARGE) & (answers["stage"] == TUNED)]
    return _intervals(_rows(tuned), "wrong", ["aspect", "task", "kind", "arm"])


def size_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Wrong answers by aspect, of arms of several sizes: aspect, kind, arm, size, parameters, estimate, low, high."""
    several = answers.groupby("arm")["size"].nunique()
    base = answers[answers["arm"].isin(several.index[several > 1]) & (answers["stage"] == BASE)]
    return _intervals(_aspects(base), "wrong", ["aspect", "kind", "arm", "size", "parameters"])


def tuning_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Wrong answers by aspect before and after tuning: aspect, kind, arm, stage, estimate, low, high."""
    return _intervals(_aspects(answers[answers["size"] == LARGE]), "wrong", ["aspect", "kind", "arm", "stage"])


def ladder_table(answers: pd.DataFrame, arms: Mapping[str, Mapping]) -> pd.DataFrame:
    """Wrong answers by aspect against the share of attention: aspect, share, arm, stage, estimate, low, high."""
    shares = {arm: share for arm, own in arms.items() if (share := ladder_share(own)) is not None}
    own = answers[(answers["size"] == LARGE) & answers["arm"].isin(shares)]
    table = _intervals(_aspects(own.assign(share=own["arm"].map(shares))), "wrong", ["aspect", "share", "arm", "stage"])
    return table.sort_values(["aspect", "stage", "share"], ignore_index=True)


def between_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Conflicts answered against the story, by what stands between: between, count, kind, arm, estimate, low, high.

    `between` is distractors or distance (fillers), `count` how many; by each the other is none.
    """
    large = answers[(answers["size"] == LARGE) & (answers["stage"] == BASE) & (answers["task"] == "conflict")]
    rows = [
        _intervals(_rows(large, breakdown=name), "wrong", ["value", "kind", "arm"]).assign(between=name)
        for name in ("distractors", "distance")
    ]
    table = pd.concat(rows, ignore_index=True).rename(columns={"value": "count"})
    return table.assign(count=table["count"].astype(int)).sort_values(["between", "arm", "count"], ignore_index=True)


def matched_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Parameters, tokens read, seeds and final losses by size and arm, means over seeds: what was matched, and how."""
    losses = [name for name in runs if name.startswith("loss of ")]
    means = runs.groupby(["size", "kind", "arm"], sort=False)[["parameters", "tokens", "learning_rate", *losses]].mean()
    return means.assign(seeds=runs.groupby(["size", "kind", "arm"], sort=False)["seed"].nunique())


def _rows(answers: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Rows at temperature 0 with these values; for all items of each task where no breakdown is wanted."""
    rows = answers[answers["temperature"] == 0.0]
    for name, value in ({"breakdown": "all"} | wanted).items():
        rows = rows[rows[name] == value]
    return rows


def _aspects(answers: pd.DataFrame) -> pd.DataFrame:
    """Means over the tasks of an aspect, each as heavy as the others, by model and stage."""
    rows = _rows(answers)
    rows = rows[rows["aspect"].isin(ASPECTS)]
    by = [name for name in rows if name in ("aspect", "arm", "kind", "size", "parameters", "seed", "stage", "share")]
    return rows.groupby(by, as_index=False)["wrong"].mean()


def _intervals(rows: pd.DataFrame, column: str, by: list[str]) -> pd.DataFrame:
    """Mean of a column and its 95% interval over seeds for each group: the columns `by`, estimate, low, high."""
    found = []
    for place, own in rows.groupby(by, sort=False):
        interval = mean_interval(own[column].astype(float))
        numbers = {"estimate": interval.mean, "low": interval.low, "high": interval.high}
        found.append(dict(zip(by, place, strict=True)) | numbers)
    return pd.DataFrame(found)
