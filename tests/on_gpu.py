"""Runs done again on a pretended GPU (see pretended.py), and how far their numbers are from the CPU's."""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path

from common.alignment.runs import _rival
from common.sweep.records import Record
from common.sweep.workers import Job, Pool
from pretended import GPU, pretended

MOST = 4  # runs of a function


def words(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a run's parameters, with where they stand."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from words(part, f"{path}.{key}")
    elif isinstance(value, str):
        yield path, value


def packed(value: object) -> bool:
    """Whether 4-bit weights are among the parameters, which no pretended GPU takes."""
    if isinstance(value, Mapping):
        return any(packed(part) or (key == "quantized" and part is True) for key, part in value.items())
    return value == "nf4"


def apart(one: object, other: object) -> float:
    """How far metrics or tables are apart, relative to the larger of the other's number and one.

    Infinitely, where they are not of one kind.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return max((apart(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((apart(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other)):
        far = abs(one - other) / max(1.0, abs(other))
        return far if math.isfinite(far) else math.inf  # what is no number is told as a difference
    return 0.0 if one == other else math.inf


class OnGpu:
    """Does some of a process's runs again: such that words in their parameters (methods, tasks) are tried, up to a few.

    `apart`: by function and metric, the farthest that the GPU's is from the CPU's.
    """

    def __init__(self) -> None:
        self.apart: dict[str, float] = {}
        self._done: Counter[str] = Counter()
        self._seen: dict[str, set] = {}

    def again(self, pool: Pool, job: Job, expected: Record) -> None:
        name = pool.run.__qualname__
        own, seen = {None, *words(job.cell)}, self._seen.setdefault(name, set())  # None: the first, whatever it has
        if packed(job.cell) or not own - seen or self._done[name] == MOST:
            return
        seen |= own
        self._done[name] += 1
        _rival.cache_clear()  # what the CPU wrote is not to stand for it
        with tempfile.TemporaryDirectory() as folder:
            given = {place: Path(folder) / place for place in ("keep", "scratch")}
            given = {place: path for place, path in given.items() if place in signature(pool.run).parameters}
            for path in given.values():
                path.mkdir()
            with pretended():
                found = pool.run(**job.cell, **job.inputs, **given)
        self._compare(name, found, {**expected.metrics, **expected.tables})

    def _compare(self, name: str, found: Mapping[str, object], expected: Mapping[str, object]) -> None:
        if "device" in expected:
            assert (found["device"], expected["device"]) == (GPU.type, "cpu")
        assert found.keys() == expected.keys(), name
        for metric in expected.keys() - {"device"}:
            place, far = f"{name}: {metric}", apart(found[metric], expected[metric])
            self.apart[place] = max(far, self.apart.get(place, 0.0))
