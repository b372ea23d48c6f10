"""The functions that the study's sweeps call first: bases, and candidates examined and trained on.

`task` is one of `common.growing.tasks.SETS`, `network` and `course` knobs of `common.growing.design`. Files: `mnist`,
`sotu`, the tables; for `scikit_learn` see `common.growing.opening`. `base` names the base among `bases`.
"""

from pathlib import Path

from common.errors import UserError
from common.growing.examination import costs, foretold, short_runs, trained_on, walk_of
from common.growing.networks import keep_network, moved, new_network
from common.growing.opening import columns, grown_from, opened
from common.growing.tasks import FURTHER
from common.models import parameter_count

POINTS = 10  # of a training curve
LEAST = 1e-3  # standard deviations of a logit: an expansion that preserves the function moves none further


def pretrain(
    task: str, network: dict, seed: int, scikit_learn: str, *, mnist: Path, sotu: Path, keep: Path
) -> dict[str, object]:
    """Train a base network from scratch and keep it. `seed` changes the initial weights and the order of the data."""
    knobs, data = opened(task, network, 1, scikit_learn, mnist, sotu)
    model, trained = trained_on(new_network(knobs, data, seed), data, knobs.base, POINTS, seed)
    keep_network(model, keep)
    return {
        "test_loss": trained.curve[-1]["test_loss"],
        "train_loss": trained.curve[-1]["loss"],
        "parameters": parameter_count(model),
        **{name: trained.used[name] for name in ("dtype", "optimizer")},
        "curve": columns(trained.curve),
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
    whence = (bases[base], task, network, course, grown, seed, scikit_learn, mnist, sotu)
    start, model, preserves, data, pace = grown_from(*whence)
    distance = moved(start, model, data)
    if preserves and not distance < LEAST:
        raise RuntimeError(f"{grown} should preserve the function, and logits moved by {distance:.1e}")
    if grown is not None and parameter_count(model) <= parameter_count(start):
        raise UserError(f"{grown} makes nothing larger: a candidate must grow")
    predictors = foretold(model, data, pace, seed)
    runs = short_runs(model, data, pace, rates, shares, seed)
    _, trained = trained_on(model, data, pace.further, POINTS, seed, FURTHER)
    return {
        **predictors,
        "preserves": preserves,
        "moved": distance,
        "test_loss": trained.curve[-1]["test_loss"],
        "train_loss": trained.curve[-1]["loss"],
        "curve": columns([{"step": 0, "test_loss": data.loss_on(model, data.test)}, *trained.curve]),
        "short": columns(runs),
        "cost": {"predictor": list(costs(data, walk_of(pace))), "steps": list(costs(data, walk_of(pace)).values())},
    }
