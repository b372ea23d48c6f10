"""One candidate, examined: what foretells how well it will train on, what that costs, and how well it does."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from common.connectivity import hessian_trace
from common.growing.design import Course, Pace
from common.growing.tasks import SHORT, Task
from common.landscape import sharpness
from common.models import parameter_count
from common.predictors import (
    POINTS,
    Manifold,
    Walk,
    gradient_norm,
    loss_before,
    measure,
    naswot,
    short_run,
    sized,
    snip,
    synflow,
)
from common.training import Plan, Trained, train

RADIUS = 0.05  # of the sharpness, as Chitsaz et al. have it, arXiv 2407.11722
SAMPLES = 8  # random vectors of the Hessian's trace
FORWARD = 1 / 3  # of a training step: a backward pass takes twice as long as a forward one


def walk_of(course: Course) -> Walk:
    """The continuations by which M is measured."""
    return Walk(**course.walk.model_dump())


def manifold(model: nn.Module, task: Task, walk: Walk, seed: int) -> Manifold:
    """The manifold of minima around `model`; `seed` sets the order of the data in each continuation."""
    return measure(model, task.loss, task.continued(seed), task.judged, _logits(task), walk)


def size_of(start: nn.Module, ends: Sequence[nn.Module], task: Task, walk: Walk) -> Manifold:
    """The manifold whose minima are `ends`, found from the canonical form `start`."""
    return sized(start, ends, task.loss, task.judged, _logits(task), walk.tolerance)


def _logits(task: Task) -> Callable[[nn.Module], Tensor]:
    return lambda end: task.logits(end, task.judged)


def costs(task: Task, walk: Walk) -> dict[str, float]:
    """What each predictor costs, in training steps of the candidate, each a forward and a backward pass of a batch.

    Counted and not timed, so that it is the same everywhere; a forward pass is a third of a step.
    """
    judged = len(next(iter(task.judged.values()))) / task.batch_size  # batches
    trained = walk.count * walk.steps
    pairs = walk.count * (walk.count - 1) / 2
    return {
        "m": trained + judged * FORWARD * (walk.count + POINTS * pairs),
        "level": trained + judged * FORWARD * POINTS * pairs,
        "volume": trained + judged * FORWARD * walk.count,
        "m_c": trained,
        "parameters": 0.0,
        "loss_before": judged * FORWARD,
        "naswot": judged * FORWARD,
        "gradient_norm": judged,
        "snip": judged,
        "synflow": 1 / task.batch_size,
        "sharpness": judged * (1 + FORWARD),
        "hessian_trace": judged * (1 + 2 * SAMPLES),
    }


def foretold(model: nn.Module, task: Task, course: Course, seed: int) -> dict[str, float]:
    """Every predictor but the short runs. Their signs are as defined: not always is more a better promise."""
    found = manifold(model, task, walk_of(course), seed)
    return {
        **asdict(found),
        "volume": found.m - found.level,
        "parameters": parameter_count(model),
        "loss_before": loss_before(model, task.loss, task.judged),
        "naswot": naswot(model, lambda each: task.logits(each, task.judged)),
        "gradient_norm": gradient_norm(model, task.loss, task.judged),
        "snip": snip(model, task.loss, task.judged),
        "synflow": synflow(model),
        "sharpness": sharpness(model, task.loss, [task.judged], RADIUS),
        "hessian_trace": hessian_trace(model, task.loss, task.judged, samples=SAMPLES, seed=seed),
    }


def short_runs(
    model: nn.Module, task: Task, course: Course, rates: list[float], shares: list[float], seed: int
) -> list[dict[str, float]]:
    """Short runs at these learning rates and shares of M's cost; `promise` is minus the validation loss.

    They see the training data in an order of their own, as M's continuations do.
    """
    full = costs(task, walk_of(course))["m"]
    rows = []
    for share in shares:
        steps = max(1, math.ceil(full * share))
        for rate in rates:
            promise = short_run(
                model,
                task.loss,
                task.batches(seed, SHORT),
                lambda end: task.loss_on(end, task.validation),
                steps=steps,
                learning_rate=rate,
                warmup=min(course.walk.warmup, steps // 2),
            )
            rows.append({"share": share, "steps": steps, "rate": rate, "promise": promise})
    return rows


def trained_on(model: nn.Module, task: Task, pace: Pace, points: int, *seed: int) -> tuple[nn.Module, Trained]:
    """A copy of the model, trained on; its curve has the loss on test data at `points` steps."""
    copied = copy.deepcopy(model)
    plan = Plan(
        pace.steps,
        pace.learning_rate,
        pace.warmup,
        clip=float("inf"),
        log_every=max(1, pace.steps // points),
    )

    def evaluate(each: nn.Module) -> dict[str, float]:
        return {"test_loss": task.loss_on(each, task.test)}

    optimizer = torch.optim.Adam(copied.parameters(), lr=pace.learning_rate, fused=True)
    trained = train(copied, task.loss, task.batches(*seed), plan, optimizer=optimizer, evaluate=evaluate)
    return copied.eval(), trained
