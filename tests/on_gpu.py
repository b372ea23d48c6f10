"""Do some runs of studies again on a pretended GPU (see pretended.py): `python on_gpu.py SCALE STUDY…`.

Of each function that sweeps call, some runs that the cache has, such that each word in its parameters (architectures,
methods, tasks) is tried, up to a number. Prints a JSON object for each study: `done`, how many runs by function,
`left_out`, functions of which none was, and `apart`, by function and metric how far the GPU's number is from the CPU's,
relative to the larger of the CPU's and one.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from inspect import signature
from pathlib import Path
from unittest.mock import patch

import pandas as pd

from common.environment import FRESH
from common.notebooks import read_notebook
from common.project import BUILD, CACHE, ROOT
from common.scales import section
from common.sweep.records import Record, read_record
from common.sweep.workers import Job, Pool
from perturb import outcome, without_pictures
from pretended import GPU, pretended

MOST = 6  # runs of a function


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


def chosen(records: list[Record]) -> dict[str, Record]:
    """Some runs of each function by their keys, each with a word that those before did not have."""
    seen: dict[str, set] = {}
    count, found = Counter(), {}
    for record in records:
        own, known = {None, *words(record.cell)}, seen.setdefault(record.run, set())  # None: the first, whatever it has
        if not packed(record.cell) and own - known and count[record.run] < MOST:
            found[record.key] = record
            count[record.run] += 1
            known |= own
    return found


def apart(one: object, other: object) -> float:
    """How far two metrics or tables are apart; infinitely, where they are not of one kind."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return max((apart(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max((apart(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other))
    if numbers:
        return abs(one - other) / max(1.0, abs(other))
    return 0.0 if one == other else float("inf")


class Again:
    """In place of `Pool.done`: does chosen runs on the GPU, compares, and leaves in the cache what the CPU gave."""

    def __init__(self, records: Mapping[str, Record]):
        self.records, self.done, self.apart = records, Counter(), {}

    def __call__(self, pool: Pool, jobs: list[Job]) -> Iterator[Job]:
        for job in jobs:
            expected = self.records[job.key]
            with tempfile.TemporaryDirectory(dir=BUILD) as folder:
                places = {name: Path(folder) / name for name in ("keep", "scratch")}
                for place in places.values():
                    place.mkdir()
                given = {name: place for name, place in places.items() if name in signature(pool.run).parameters}
                with pretended():
                    found = pool.run(**job.cell, **job.inputs, **given)
            self.done[pool.run.__qualname__] += 1
            self._compare(pool.run.__qualname__, found, {**expected.metrics, **expected.tables})
            pool.cache.write(expected)
            yield job

    def _compare(self, name: str, found: Mapping[str, object], expected: Mapping[str, object]) -> None:
        if "device" in expected:
            assert (found["device"], expected["device"]) == (GPU.type, "cpu")
        assert found.keys() == expected.keys(), name
        for metric in expected.keys() - {"device"}:
            place = f"{name}: {metric}"
            far = apart(found[metric], expected[metric])
            if far:
                self.apart[place] = max(far, self.apart.get(place, 0.0))


def examined(study: str, scale: str, work: Path) -> dict[str, object]:
    keys = set(pd.read_csv(ROOT / "results" / scale / study / "runs.csv", dtype={"key": str})["key"])
    records = [read_record(path) for path in sorted((CACHE / "runs").glob("??/*.json")) if path.stem in keys]
    again = Again(chosen(records))
    for key in again.records:
        (CACHE / "runs" / key[:2] / f"{key}.json").unlink()
    notebook = read_notebook(ROOT / "notebooks" / f"{study}.ipynb")
    nothing_in_git = patch("common.study.committed_records", lambda folder, root: {})
    with without_pictures(study), patch.object(Pool, "done", lambda pool, jobs: again(pool, jobs)), nothing_in_git:
        ended = outcome(notebook, section(scale, study), work)
    assert len(str(ended)) == 64, ended
    left_out = sorted({record.run for record in records} - again.done.keys())
    return {"done": again.done, "left_out": left_out, "apart": again.apart}


def main(scale: str, *studies: str) -> None:
    os.environ["COMPENDIUM_SCALE"] = scale
    os.environ[FRESH] = "1"
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        print(json.dumps({study: examined(study, scale, Path(folder) / "work") for study in studies}))


if __name__ == "__main__":
    main(*sys.argv[1:])
