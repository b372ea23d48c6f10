"""A model's answers to a task, and its scores with intervals."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.scorecard.intervals import RESAMPLES, item_interval
from common.tasks.answers import answers, unfit
from common.tasks.items import Task
from common.tasks.metrics import CALIBRATION, Metric, item_values, metrics, parts

CHUNK = 64
"""Items between two steps of the progress."""


@dataclass(frozen=True)
class Scored:
    """`task` has the items that were asked, `left_out` counts the others by reason.

    `answered` has a row for each item, as `common.tasks.answers.answers`. `scores` have `group` and `value`, empty for
    all items, `metric`, `estimate`, `low`, `high` (95%), `items`; for the values of a group without calibration.
    """

    task: Task
    left_out: dict[str, int]
    answered: pd.DataFrame
    scores: pd.DataFrame


def limited(task: Task, limit: int | None, seed: int) -> Task:
    """The items of `limit` rows of the file, drawn by the seed, in order; all of them where there are no more."""
    rows = list(dict.fromkeys(item.row for item in task.items))
    if limit is None or limit >= len(rows):
        return task
    chosen = set(np.random.default_rng(seed).permutation(rows)[:limit])
    return task.part([number for number, item in enumerate(task.items) if item.row in chosen])


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    seed: int,
    advance: Callable[[int], object] = lambda items: None,
    resamples: int = RESAMPLES,
) -> Scored:
    """Ask the items of a task and score the answers. `advance` is told how many items were done since it was told last.

    Items that are too long for the model, or whose answers its tokenizer cannot part from the prompt, are left out. The
    seed fixes the resamples of the intervals. Raises `UserError` where no item is left.
    """
    reasons = unfit(model, tokenizer, task)
    advance(len(reasons))
    left = [number for number in range(len(task.items)) if number not in reasons]
    if not left:
        raise UserError(f"{task.name}: no item fits the model: {Counter(reasons.values()).most_common(1)[0][0]}")
    asked = task.part(left)
    # In random order, so that the first items tell how long all will take.
    order = np.random.default_rng(seed).permutation(len(left))
    tables = []
    for start in range(0, len(left), CHUNK):
        numbers = order[start : start + CHUNK]
        tables.append(answers(model, tokenizer, asked.part(numbers)).set_index(numbers))
        advance(len(numbers))
    answered = pd.concat(tables).sort_index()
    return Scored(asked, dict(Counter(reasons.values())), answered, _scores(asked, answered, seed, resamples))


def _scores(task: Task, answered: pd.DataFrame, seed: int, resamples: int) -> pd.DataFrame:
    values = item_values(task, answered)
    own = metrics(task)
    lines = [("", "", metric, values) for metric in own]
    for (group, value), numbers in parts(task).items():
        lines += [(group, value, metric, values.iloc[numbers]) for metric in own if metric not in CALIBRATION]
    rows = np.array([item.row for item in task.items])
    table = pd.DataFrame(
        [
            (group, value, metric.name, *_interval(metric, some, rows, seed, resamples))
            for group, value, metric, some in lines
        ],
        columns=["group", "value", "metric", "estimate", "low", "high", "items"],
    )
    # Of a part of the items some say nothing: AUROC where all are hallucinated.
    return table[(table["group"] == "") | table["estimate"].notna()].reset_index(drop=True)


def _interval(metric: Metric, values: pd.DataFrame, rows: np.ndarray, seed: int, resamples: int) -> tuple:
    """Estimate, both ends of its interval, and how many items there are to which the metric applies."""
    there = values[list(metric.columns)].dropna()
    if there.empty:
        return np.nan, np.nan, np.nan, 0
    chosen = rows[there.index].tolist()
    return item_interval(there.to_numpy(float), chosen, metric.statistic, seed, resamples=resamples)
