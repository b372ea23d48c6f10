"""The functions that the study's sweeps call: bases, candidates examined and trained on, walks, surfaces.

`task` is one of `common.growing.tasks.SETS`, `network` the knobs of `common.growing.design`. Files: `mnist` and `sotu`,
the tables. The digits of scikit-learn, and the components of all digits, come from that package: `scikit_learn` is its
version, so that a run's key holds it. `base` names the base among `bases`.
"""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from common.connectivity import canonical
from common.errors import UserError
from common.growing.design import Course, Language, Perceptron
from common.growing.examination import (
    costs,
    foretold,
    short_runs,
    size_of,
    trained_on,
    walk_of,
)
from common.growing.networks import grow, keep_network, moved, network_of, new_network, open_network
from common.growing.surfaces import plane
from common.growing.tasks import Task, task_of
from common.models import parameter_count
from common.predictors import continuations

POINTS = 10  # of a training curve
LEAST = 1e-3  # standard deviations of a logit: an expansion that preserves the function moves none further


def pretrain(
    task: str, network: dict, seed: int, scikit_learn: str, *, mnist: Path, sotu: Path, keep: Path
) -> dict[str, object]:
    """Train a base network from scratch and keep it. `seed` changes the initial weights and the order of the data."""
    knobs, data = _opened(task, network, 1, scikit_learn, mnist, sotu)
    model, trained = trained_on(new_network(knobs, data, seed), data, knobs.base, POINTS, seed)
    keep_network(model, keep)
    return {
        "test_loss": trained.curve[-1]["test_loss"],
        "train_loss": trained.curve[-1]["loss"],
        "parameters": parameter_count(model),
        **{name: trained.used[name] for name in ("dtype", "optimizer")},
        "curve": _columns(trained.curve),
    }


def examine(
    base: str,
    task: str,
    network: dict,
    course: dict,
    grown: dict | None,
    rates: list[float],
    shares: list[float],
    seed: int,
    scikit_learn: str,
    *,
    mnist: Path,
    sotu: Path,
    **bases: Path,
) -> dict[str, object]:
    """Expand a base, ask every predictor, train on; without `grown` the base itself is asked and trained on.

    `grown`: the knobs of what it grows into. Metrics are the predictors with their own signs, `test_loss` after
    training on, `parameters`, and `moved`, how far the expansion moved logits. Tables: `curve` of training on; `short`,
    the short runs at `rates` and `shares` of M's cost; `cost` of each predictor.
    Raises `RuntimeError` where an expansion that should preserve the function does not, or one changes nothing.
    """
    pace = Course.model_validate(course)
    knobs, data = _opened(task, network, pace.judged, scikit_learn, mnist, sotu)
    start = open_network(knobs, data, bases[base])
    model, preserves = grow(start, grown, seed)
    distance = moved(start, model, data)
    if preserves and not distance < LEAST:
        raise RuntimeError(f"{grown} should preserve the function, and logits moved by {distance:.1e}")
    if grown is not None and parameter_count(model) <= parameter_count(start):
        raise UserError(f"{grown} makes nothing larger: a candidate must grow")
    predictors = foretold(model, data, pace, seed)
    runs = short_runs(model, data, pace, rates, shares, seed)
    _, trained = trained_on(model, data, pace.further, POINTS, seed, 0)
    return {
        **predictors,
        "preserves": preserves,
        "moved": distance,
        "test_loss": trained.curve[-1]["test_loss"],
        "train_loss": trained.curve[-1]["loss"],
        "curve": _columns([{"step": 0, "test_loss": data.loss_on(model, data.test)}, *trained.curve]),
        "short": _columns(runs),
        "cost": {"predictor": list(costs(data, walk_of(pace))), "steps": list(costs(data, walk_of(pace)).values())},
    }


def measure_walks(
    base: str,
    task: str,
    network: dict,
    course: dict,
    grown: dict | None,
    counts: list[int],
    steps: list[int],
    seed: int,
    scikit_learn: str,
    *,
    mnist: Path,
    sotu: Path,
    **bases: Path,
) -> dict[str, object]:
    """M of a candidate by other numbers K of continuations, and T of their steps, as the table `walks`."""
    pace = Course.model_validate(course)
    knobs, data = _opened(task, network, pace.judged, scikit_learn, mnist, sotu)
    model, _ = grow(open_network(knobs, data, bases[base]), grown, seed)
    start, rows = canonical(model), []
    for length in steps:
        walk = replace(walk_of(pace), count=max(counts), steps=length)
        ends = continuations(start, data.loss, lambda number: data.batches(seed, 1 + number), walk)
        # The first so many of these are those that fewer continuations would have given.
        rows += [{"count": count, "steps": length, "m": size_of(start, ends[:count], data, walk).m} for count in counts]
    return {"parameters": parameter_count(model), "walks": _columns(rows)}


def slice_surface(
    base: str,
    task: str,
    network: dict,
    course: dict,
    grown: dict | None,
    places: int,
    seed: int,
    scikit_learn: str,
    *,
    mnist: Path,
    sotu: Path,
    **bases: Path,
) -> dict[str, object]:
    """Losses on the plane through the first three minima found, a table `surface`; corners are in `minima`."""
    pace = Course.model_validate(course)
    knobs, data = _opened(task, network, pace.judged, scikit_learn, mnist, sotu)
    model, _ = grow(open_network(knobs, data, bases[base]), grown, seed)
    surface, minima = plane(model, data, walk_of(pace), places, seed)
    return {"parameters": parameter_count(model), "surface": _columns(surface), "minima": _columns(minima)}


def _opened(
    task: str, network: dict, judged: int, scikit_learn: str, mnist: Path, sotu: Path
) -> tuple[Perceptron | Language, Task]:
    if scikit_learn != version("scikit-learn"):
        raise UserError(f"scikit-learn is {version('scikit-learn')}, and the run asks for {scikit_learn}")
    knobs = network_of(task, network)
    return knobs, task_of(task, knobs, judged, mnist=mnist, sotu=sotu)


def _columns(rows: list[dict]) -> dict[str, list]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}
