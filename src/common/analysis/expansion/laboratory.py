"""The study's runs as sweeps: bases, candidates examined, walks, slices; each row with labels that tell what it is."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import pandas as pd

from common.errors import UserError
from common.growing.minima import measure_walks, slice_surface
from common.growing.runs import examine, pretrain
from common.growing.tasks import SETS
from common.sweep import Kept

Knobs = Mapping[str, object]
NONE = "none"  # the base itself, as a candidate

WIDER, DEEPER, BOTH = "wider", "deeper", "wider and deeper"


class Sweeper(Protocol):
    """What the laboratory needs of a study."""

    def sweep(self, name: str, run: Callable[..., dict], cells: list[dict], inputs: dict) -> pd.DataFrame: ...

    def tables(self, names: list[str]) -> dict[str, Path]: ...


class Laboratory:
    """Runs of one execution of the notebook.

    `networks`, `courses` and `candidates`, by kind of network: its knobs, how its expansions are judged and trained
    further, and what it may grow into, by name; see `common.growing.design`.
    """

    def __init__(
        self,
        study: Sweeper,
        tables: Sequence[str],
        networks: Mapping[str, Knobs],
        courses: Mapping[str, Knobs],
        candidates: Mapping[str, Mapping[str, Knobs]],
    ):
        if lacking := {"mnist", "sotu"} - set(tables):
            raise UserError(f"tables lacks {', '.join(sorted(lacking))}, which the runs read")
        for kind, own in candidates.items():
            if NONE in own:
                raise UserError(f"a candidate of the {kind} is called {NONE}, which is what the base is called")
        self.study, self.files = study, study.tables(list(tables))
        self.networks, self.courses, self.candidates = networks, courses, candidates
        self.kept: dict[str, Kept] = {}

    def bases(self, name: str, places: Sequence[tuple[str, int]]) -> pd.DataFrame:
        """Base networks, one for each task and seed."""
        cells = [self._cell(task, seed) for task, seed in places]
        runs = self.study.sweep(name, pretrain, cells, self.files)
        self.kept |= {f"{task}_{seed}": kept for (task, seed), kept in zip(places, runs["kept"], strict=True)}
        return runs

    def examined(
        self,
        name: str,
        places: Sequence[tuple[str, int]],
        rates: Mapping[str, Sequence[float]],
        shares: Sequence[float],
    ) -> pd.DataFrame:
        """Every candidate, and the base, examined and trained further; `rates` of short runs, by network's kind."""
        labels, cells = [], []
        for task, seed in places:
            for candidate, knobs in {NONE: None, **self.candidates[kind_of(task)]}.items():
                short = {"rates": list(rates[kind_of(task)]), "shares": list(shares)}
                cells.append(self._grown(task, seed, knobs) | short)
                labels.append({"candidate": candidate, "type": type_of(knobs), "operator": operator_of(knobs)})
        return self._swept(name, examine, cells, labels)

    def walked(
        self, name: str, places: Sequence[tuple[str, int]], counts: Sequence[int], steps: Sequence[int]
    ) -> pd.DataFrame:
        """M of every candidate at other numbers of continuations and of steps."""
        labels, cells = [], []
        for task, seed in places:
            for candidate, knobs in self.candidates[kind_of(task)].items():
                cells.append(self._grown(task, seed, knobs) | {"counts": list(counts), "steps": list(steps)})
                labels.append({"candidate": candidate})
        return self._swept(name, measure_walks, cells, labels)

    def sliced(self, name: str, task: str, seed: int, chosen: Sequence[str], places: int) -> pd.DataFrame:
        """The loss surface through minima found around the base and around chosen candidates."""
        own = {NONE: None, **self.candidates[kind_of(task)]}
        if unknown := sorted(set(chosen) - set(own)):
            raise UserError(f"{', '.join(unknown)} is no candidate on {task}, allowed: {', '.join(own)}")
        cells = [self._grown(task, seed, own[candidate]) | {"places": places} for candidate in chosen]
        return self._swept(name, slice_surface, cells, [{"candidate": candidate} for candidate in chosen])

    def _cell(self, task: str, seed: int) -> dict[str, object]:
        network = self.networks[kind_of(task)]
        return {"task": task, "network": network, "seed": seed, "scikit_learn": version("scikit-learn")}

    def _grown(self, task: str, seed: int, knobs: Knobs | None) -> dict[str, object]:
        course = self.courses[kind_of(task)]
        return {"base": f"{task}_{seed}", **self._cell(task, seed), "course": course, "grown": knobs}

    def _swept(self, name: str, run: Callable[..., dict], cells: list[dict], labels: list[dict]) -> pd.DataFrame:
        own = {base: self.kept[base] for base in dict.fromkeys(cell["base"] for cell in cells)}
        runs = self.study.sweep(name, run, cells, self.files | own)
        told = pd.DataFrame(labels, index=runs.index)
        # A row that git holds has the columns of all of a study's runs, empty where they are none of its own.
        return pd.concat([told, runs.drop(columns=told.columns, errors="ignore")], axis=1)


def kind_of(task: str) -> str:
    """The kind of network that a task's are: `perceptron` or `language`."""
    if task not in SETS:
        raise UserError(f"there is no task {task!r}, allowed: {', '.join(SETS)}")
    return "language" if task == "text" else "perceptron"


def type_of(knobs: Knobs | None) -> str:
    """Whether a candidate is wider, deeper or both, by its knobs; `none` for the base."""
    if knobs is None:
        return NONE
    wider, deeper = "width" in knobs, "depth" in knobs
    return BOTH if wider and deeper else WIDER if wider else DEEPER


def operator_of(knobs: Knobs | None) -> str:
    """The ways in which a candidate is made, in words."""
    if knobs is None:
        return NONE
    return " + ".join(str(knobs[way]).replace("_", " ") for way in ("width", "depth") if way in knobs)
