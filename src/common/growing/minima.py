"""The functions that the study's sweeps call about the minima around a candidate; see `common.growing.runs`."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from common.connectivity import canonical
from common.growing.examination import size_of, walk_of
from common.growing.opening import columns, grown_from
from common.growing.surfaces import plane
from common.models import parameter_count
from common.predictors import continuations


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
    """M of a candidate by other numbers K of continuations, and T of their steps, as the table `walks`.

    `m_at_ends` is M with the mean loss of the minima alone, not on the lines between them: it knows of no barrier.
    """
    _, model, _, data, pace = grown_from(bases[base], task, network, course, grown, seed, scikit_learn, mnist, sotu)
    start, rows = canonical(model), []
    for length in steps:
        walk = replace(walk_of(pace), count=max(counts), steps=length)
        ends = continuations(start, data.loss, data.continued(seed), walk)
        losses = [data.loss_on(end, data.judged) for end in ends]
        # The first so many of these are those that fewer continuations would have given.
        for count in counts:
            found = size_of(start, ends[:count], data, walk)
            at_ends = found.m - found.level - math.log(fmean(losses[:count]))
            rows.append({"count": count, "steps": length, "m": found.m, "m_at_ends": at_ends})
    return {"parameters": parameter_count(model), "walks": columns(rows)}


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
    _, model, _, data, pace = grown_from(bases[base], task, network, course, grown, seed, scikit_learn, mnist, sotu)
    surface, minima = plane(model, data, walk_of(pace), places, seed)
    return {"parameters": parameter_count(model), "surface": columns(surface), "minima": columns(minima)}
