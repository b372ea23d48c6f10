"""Tables that figures are drawn from: shares of wrong answers with their intervals over seeds."""

from collections.abc import Mapping, Sequence

import pandas as pd

from common.analysis.hallucination.arms import BASE, LARGE, TUNED, ladder_share
from common.analysis.hallucination.claims import ASPECTS, RARE, TRAP
from common.evidence import mean_interval
from common.hallucination.world import QUARTILES

CALIBRATED = ("recall", "conflict")
MEASURES = (
    ("rarest facts, wrong (base)", BASE, RARE),
    ("proverbs, ended from memory (tuned)", TUNED, TRAP),
)
"""What the early figure shows, of models of which stage, and the rows that tell."""


def early_table(answers: pd.DataFrame) -> pd.DataFrame:
    """The paper's early figure: rare facts that are wrong, and proverbs ended from memory. See `_intervals`."""
    large = answers[answers["size"] == LARGE]
    rows = [
        _intervals(_rows(large[large["stage"] == stage], **wanted), "wrong", ["kind", "arm"]).assign(measure=measure)
        for measure, stage, wanted in MEASURES
    ]
    return pd.concat(rows, ignore_index=True)


def rarity_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Facts that base models get wrong, by how often they were read: frequency, kind, arm, estimate, low, high, guess.

    A row each quarter and arm, the most frequent quarter first. `guess` is the share of wrong answers of guessing.
    """
    own = answers[(answers["size"] == LARGE) & (answers["stage"] == BASE)]
    own = _rows(own, task=RARE["task"], breakdown=RARE["breakdown"]).rename(columns={"value": RARE["breakdown"]})
    table = _intervals(own, "wrong", [RARE["breakdown"], "kind", "arm"])
    table["guess"] = 1 - table[RARE["breakdown"]].map(own.groupby(RARE["breakdown"])["chance"].mean())
    order = table[RARE["breakdown"]].map(QUARTILES.index)
    return table.assign(order=order).sort_values(["arm", "order"], ignore_index=True).drop(columns="order")


def map_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Shares of wrong answers by task and arm, of tuned models: aspect, task, kind, arm, estimate, low, high, guess.

    `guess` is the share of wrong answers of guessing.
    """
    tuned = _rows(answers[(answers["size"] == LARGE) & (answers["stage"] == TUNED)])
    table = _intervals(tuned, "wrong", ["aspect", "task", "kind", "arm"])
    return table.assign(guess=1 - table["task"].map(tuned.groupby("task")["chance"].mean()))


def size_table(answers: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """Wrong answers by aspect, of arms of several sizes: aspect, kind, arm, size, parameters, estimate, low, high."""
    several = answers.groupby("arm")["size"].nunique()
    base = answers[answers["arm"].isin(several.index[several > 1]) & (answers["stage"] == BASE)]
    return _intervals(_aspects(base, tasks), "wrong", ["aspect", "kind", "arm", "size", "parameters"])


def tuning_table(answers: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """Wrong answers by aspect before and after tuning: aspect, kind, arm, stage, estimate, low, high."""
    large = answers[answers["size"] == LARGE]
    return _intervals(_aspects(large, tasks), "wrong", ["aspect", "kind", "arm", "stage"])


def gained_table(answers: pd.DataFrame) -> pd.DataFrame:
    """What tuning gains by task, a row each arm: share of wrong answers before less after, mean over seeds.

    Of `unanswerable` those with an answer and those without one apart: a model that always says that it is unknown is
    right on the latter.
    """
    own = answers[(answers["size"] == LARGE) & (answers["temperature"] == 0.0)]
    split = own["breakdown"] == "answerable"
    own = own[split | ((own["breakdown"] == "all") & (own["task"] != "unanswerable"))]
    words = own["value"].map({"yes": "answerable", "no": "unanswerable"})
    own = own.assign(task=own["task"].where(~split[own.index], words))
    wrong = own.groupby(["kind", "arm", "task", "stage"], sort=False)["wrong"].mean().unstack()
    return (wrong[BASE] - wrong[TUNED]).unstack("task")


def ladder_table(answers: pd.DataFrame, arms: Mapping[str, Mapping], tasks: Sequence[str]) -> pd.DataFrame:
    """Wrong answers by aspect against the share of attention: aspect, share, arm, stage, estimate, low, high."""
    shares = {arm: share for arm, own in arms.items() if (share := ladder_share(own)) is not None}
    own = answers[(answers["size"] == LARGE) & answers["arm"].isin(shares)]
    own = _aspects(own.assign(share=own["arm"].map(shares)), tasks)
    table = _intervals(own, "wrong", ["aspect", "share", "arm", "stage"])
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


def temperature_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Wrong answers by the temperature they were drawn at, base models: task, temperature, kind, arm and interval."""
    base = answers[(answers["size"] == LARGE) & (answers["stage"] == BASE) & (answers["breakdown"] == "all")]
    drawn = base.groupby("task")["temperature"].nunique()
    rows = base[base["task"].isin(drawn.index[drawn > 1])]
    table = _intervals(rows, "wrong", ["task", "temperature", "kind", "arm"])
    return table.sort_values(["task", "arm", "temperature"], ignore_index=True)


def calibration_table(calibration: pd.DataFrame) -> pd.DataFrame:
    """Calibration error and AUROC of confidence, tuned models, by arm: task, measure, kind, arm, estimate, low, high.

    Of each aspect the task in which a name is written: `CALIBRATED`. `calibration` has the rows of all models as
    `of_models` gives them. A model that is never right, or never wrong, has no AUROC; an arm with less than two that
    have one, no interval and no row.
    """
    own = calibration[(calibration["size"] == LARGE) & (calibration["stage"] == TUNED)]
    own = own[own["task"].isin(CALIBRATED)]
    rows = []
    for column, words in (("error", "calibration error"), ("auroc", "AUROC")):
        there = own[own[column].notna()].groupby(["task", "arm"]).filter(lambda several: len(several) > 1)
        if len(there):
            rows.append(_intervals(there, column, ["task", "kind", "arm"]).assign(measure=words))
    return pd.concat(rows, ignore_index=True)


def skill_table(answers: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Right answers above chance by arm, base models of all sizes: what is known, and what is copied from a story.

    Columns are `recall` and `conflict` with their intervals over seeds, as estimate, low, high; and `copies`, whether
    the lower end of the latter is above `margin`. Where it is not, an arm's faithfulness is that of guesses.
    """
    base = answers[answers["stage"] == BASE]
    found = []
    for task in ("recall", "conflict"):
        rows = _rows(base, task=task)
        table = _intervals(rows.assign(above=1 - rows["wrong"] - rows["chance"]), "above", ["size", "kind", "arm"])
        found.append(table.set_index(["size", "kind", "arm"]).add_prefix(f"{task}, "))
    both = pd.concat(found, axis=1)
    return both.assign(copies=both["conflict, low"] > margin)


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


def _aspects(answers: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    """Means over those tasks of an aspect, each as heavy as the others, by model and stage."""
    rows = _rows(answers)
    rows = rows[rows["aspect"].isin(ASPECTS) & rows["task"].isin(tasks)]
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
