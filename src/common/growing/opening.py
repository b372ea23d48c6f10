"""What every run of the study begins and ends with."""

from importlib.metadata import version
from pathlib import Path

from torch import nn

from common.errors import UserError
from common.growing.design import Course, Language, Perceptron
from common.growing.networks import grow, network_of, open_network
from common.growing.tasks import Task, task_of


def opened(
    task: str, network: dict, judged: int, scikit_learn: str, mnist: Path, sotu: Path
) -> tuple[Perceptron | Language, Task]:
    """The network's knobs, checked, and the task.

    The digits of scikit-learn, and the components of all digits, come from that package: `scikit_learn` is its version,
    which a run's key holds in this way. Raises `UserError` where another one is installed.
    """
    if scikit_learn != version("scikit-learn"):
        raise UserError(f"scikit-learn is {version('scikit-learn')}, and the run asks for {scikit_learn}")
    knobs = network_of(task, network)
    return knobs, task_of(task, knobs, judged, mnist=mnist, sotu=sotu)


def grown_from(
    base: Path,
    task: str,
    network: dict,
    course: dict,
    grown: dict | None,
    seed: int,
    scikit_learn: str,
    mnist: Path,
    sotu: Path,
) -> tuple[nn.Module, nn.Module, bool, Task, Course]:
    """The base, what it grew into, whether that leaves the function as it was, the task, and how it is judged."""
    pace = Course.model_validate(course)
    knobs, data = opened(task, network, pace.judged, scikit_learn, mnist, sotu)
    start = open_network(knobs, data, base)
    return start, *grow(start, grown, seed), data, pace


def columns(rows: list[dict]) -> dict[str, list]:
    """Rows as columns, None where a row has no value."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}
