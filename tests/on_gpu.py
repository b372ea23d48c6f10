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

MOST = 2  # runs of a function
NEAR = 5e-3


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


def numbers(value: object) -> list[float]:
    """All numbers of metrics or tables, in order; texts are left out, as a last bit may turn what a model writes."""
    if isinstance(value, Mapping):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def apart(one: object, other: object) -> float:
    """Share of the numbers that are apart by more than `NEAR` of the larger of the other's number and one.

    One where they are not as many, or one of them is none.
    """
    pairs = numbers(one), numbers(other)
    if len(pairs[0]) != len(pairs[1]) or not all(map(math.isfinite, pairs[0])):
        return 1.0
    far = [abs(a - b) > NEAR * max(1.0, abs(b)) for a, b in zip(*pairs, strict=True)]
    return sum(far) / max(1, len(far))


class OnGpu:
    """Does some of a process's runs again: such that words in their parameters (methods, tasks) are tried, up to a few.

    `apart`: by function, the largest share of a run's numbers that are not near the CPU's.
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
        self.apart[name] = max(apart(found, expected), self.apart.get(name, 0.0))
