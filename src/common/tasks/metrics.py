"""What the answers to a task come to: names of metrics, and how each is computed from some of the items."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.tasks.calibration import auroc, calibration_error
from common.tasks.items import YES, Task

Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Metric:
    """`statistic` takes values `(items, columns)` to a number. `means` says in a few words what the number is."""

    name: str
    means: str
    columns: tuple[str, ...]
    statistic: Statistic


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _from_memory(values: np.ndarray) -> float:
    memorised, correct = values.sum(0)
    return float(memorised / (memorised + correct)) if memorised + correct else float("nan")


def _by_width(values: np.ndarray) -> float:
    return calibration_error(*values.T)


def _by_mass(values: np.ndarray) -> float:
    return calibration_error(*values.T, of_equal="mass")


def _ranked(values: np.ndarray) -> float:
    return auroc(*values.T)


SURE = ("confidence", "correct")
ACCURACY = Metric("accuracy", "share answered rightly", ("correct",), _mean)
MC1 = Metric("MC1", "share whose best answer is likelier than every false one", ("correct",), _mean)
MC2 = Metric("MC2", "probability of the true answers among all offered", ("mc2",), _mean)
CONTEXT = Metric("context rate", "share answered as the prompt says", ("correct",), _mean)
MEMORY = Metric("memorisation rate", "share answered from memory, against the prompt", ("memorised",), _mean)
RATIO = Metric(
    "memorisation ratio", "from memory, of what is from memory or the prompt", ("memorised", "correct"), _from_memory
)
EXACT = Metric("exact match", "share equal to a right answer, normalised as in SQuAD", ("exact",), _mean)
F1 = Metric("F1", "overlap of words with a right answer", ("f1",), _mean)
RECOGNITION = Metric("recognition", "AUROC of the probability of yes", ("yes", "is_yes"), _ranked)
SAYS_YES = Metric("says yes", "share answered with yes", ("says_yes",), _mean)
CALIBRATION = (
    Metric("ECE", "|confidence - accuracy| over 15 bins of equal width", SURE, _by_width),
    Metric("ECE, equal mass", "the same over bins of equally many items", SURE, _by_mass),
    Metric("AUROC", "how well confidence tells right answers from wrong ones", SURE, _ranked),
)


def metrics(task: Task) -> list[Metric]:
    """The metrics of a task, the one that it is known by first; calibration comes last."""
    if task.kind == "yes or no":
        return [ACCURACY, RECOGNITION, SAYS_YES, *CALIBRATION]
    if any(item.memorised for item in task.items):
        # Longpre et al. 2021, arXiv 2109.05052: the ratio leaves out answers that are neither.
        first = [ACCURACY, MEMORY] if task.kind == "choice" else [CONTEXT, MEMORY, RATIO, EXACT, F1]
    elif task.kind == "choice":
        first = [MC1, MC2] if any(len(item.right) > 1 for item in task.items) else [ACCURACY, MC2]
    else:
        first = [ACCURACY, EXACT, F1]
    return [*first, *CALIBRATION]


def item_values(task: Task, answered: pd.DataFrame) -> pd.DataFrame:
    """The columns that metrics are computed from, one row an item, as `common.tasks.answers.answers` has them.

    Beside those `is_yes` and `says_yes`, 0 or 1, of yes and no.
    """
    right = [float(item.right[0] == YES) for item in task.items]
    return answered.assign(is_yes=right, says_yes=(answered["answer"] == YES).astype(float))


def chance(task: Task) -> float:
    """Expected share of right answers where one of those offered is picked blindly (the best right one and the wrong);
    NaN where none are offered.
    """
    return float(np.mean([1 / (1 + len(item.wrong)) if item.wrong else np.nan for item in task.items]))


def parts(task: Task) -> dict[tuple[str, str], list[int]]:
    """Numbers of the items with each value of each group, by name and value; sorted as texts."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, item in enumerate(task.items):
        for name, value in item.groups.items():
            found.setdefault((name, value), []).append(number)
    return dict(sorted(found.items()))
