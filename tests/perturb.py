"""Do studies again, then change each of their parameters a little: `python perturb.py SCALE STUDY…`.

Runs the notebook's cells in this process, its sweeps too, where the cache lacks them: what comes out must be what the
pipeline's worker processes gave, pictures aside. So must what comes from the rows of the last commit alone. Then a
sweep whose keys are all in the cache is taken from there; a key that is not is an effect of the changed parameter
already, and the notebook goes no further. Some of the runs that the cache lacks are done on a pretended GPU as well.
Prints a JSON object for each study: `changed`, the results and figures' data that came out otherwise than the
pipeline's, `redrawn`, those that did from git's rows, `on_gpu`, what share of each function's numbers are not
near the CPU's there (see on_gpu.py), and `effects`, parameter → effect, or null.
"""

import copy
import functools
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import matplotlib as mpl
import pandas as pd

mpl.use("agg")

from common.environment import FRESH
from common.files import digest
from common.notebooks import read_notebook
from common.project import BUILD, CACHE, ROOT
from common.scales import section
from common.study import Study
from common.sweep import Kept, Sweep, sweep
from common.sweep.records import code_of
from common.sweep.workers import Pool
from on_gpu import OnGpu

PARTS = ("results", "figures")
OTHER = {
    "gpt2": "llama",
    "llama": "gpt2",
    "lstm": "xlstm",
    "recurrent_gemma": "llama",
    "no": "bf16",
    "channel": "tensor",
    "tensor": "group",
    "sotu": "movie_reviews",
    "sft": "orpo",
    "dpo": "simpo",
    "mergealign": "ties",
    "linear": "slerp",
    "slerp": "linear",
    "ties": "dare_ties",
    "dare_linear": "task_arithmetic",
    "good": "bad",
    "mnist": "digits",
    "zero": "random",
    "random": "identity",
    "copy_noise": "net2wider",
    "net2wider": "zero",
    "identity": "stack",
    "stack": "random",
}


class NewRun(BaseException):
    """A cell that the cache does not have; not an Exception, so that no notebook code catches it."""


def perturbed(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Pairs of a name and the whole value with one part of it changed."""
    if isinstance(value, dict):
        for key, part in value.items():
            for name, changed in perturbed(part, f"{path}.{key}"):
                yield name, {**value, key: changed}
    elif isinstance(value, list):
        kind = type(value[0])
        yield path, value[1:] if kind is str else [part + 1 for part in value] if kind is int else value[:-1]
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, str):
        yield path, OTHER[value]
    else:
        yield path, value + 1 if isinstance(value, int) else value * 1.5 or 0.5


def in_this_process(gpu):
    def done(pool, jobs):
        for job in jobs:
            _, reason = pool._cell(job, os.getpid())
            assert reason is None, reason
            gpu.again(pool, job, pool.cache.read(job.key, print))
            yield job

    return done


def no_new_runs(pool, jobs):
    raise NewRun


def files(folder: Path) -> dict[str, str]:
    """Digest of each file of a study's folder that must be the same whenever it is made; not of pictures.

    Equal data give equal pictures (test_figures.py), which test_make_figures.py and `make faults` compare as well.
    """
    others = {"timing.csv", "notebook.ipynb"}
    pictures = {".png", ".svg"}
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in others]
    paths = [path for path in paths if path.suffix not in pictures]
    return {str(path.relative_to(folder)): digest(path) for path in paths}


def outcome(notebook, parameters: dict, work: Path) -> object:
    """Digest of the results and figure data that the notebook writes, or what kept it from its end."""
    os.environ["COMPENDIUM_WORK"] = str(work)
    namespace: dict[str, object] = {}
    try:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                exec(cell.source, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace.update(copy.deepcopy(parameters))
    except NewRun:
        return "other runs"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return digest(work)


def data_alone(study: Study, name: str, figure: object, data: pd.DataFrame) -> None:
    """Of a figure only its data, written as `save_figure` does: drawing them is most of a notebook's time."""
    table = data if data.index.names == [None] else data.reset_index()
    table.to_csv(study.folder / "figures" / f"{name}.csv", index=False, lineterminator="\n")


@contextmanager
def without_pictures(study: str) -> Iterator[None]:
    plots = importlib.import_module(f"common.plots.{study}")
    with ExitStack() as stack:
        for name in [name for name, drawn in vars(plots).items() if callable(drawn)]:
            stack.enter_context(patch.object(plots, name, lambda *values, **named: None))
        stack.enter_context(patch.object(Study, "figure", data_alone))
        yield


@contextmanager
def aside(folder: Path) -> Iterator[None]:
    """The folder is not there for a while."""
    away = folder.with_name("aside")
    folder.rename(away)
    yield
    shutil.rmtree(folder, ignore_errors=True)
    away.rename(folder)


def from_git(notebook, parameters: dict, work: Path) -> object:
    """Outcome where no run is in the cache and rows of the last commit stand for all of them."""
    with aside(CACHE / "runs"), patch.dict(os.environ):
        del os.environ[FRESH]
        return outcome(notebook, parameters, work)


def remembering(ask: Callable[..., Sweep]) -> Callable[..., Sweep]:
    """`sweep` that looks the same runs up once: most of a notebook with one parameter changed asks for the same."""
    answers: dict[str, Sweep] = {}

    def remembered(run: Callable, cells: list[dict], *, inputs: dict, **options: object) -> Sweep:
        contents = {name: value.content if isinstance(value, Kept) else str(value) for name, value in inputs.items()}
        question = json.dumps([run.__module__, run.__qualname__, cells, contents])
        if question not in answers:
            answers[question] = ask(run, cells, inputs=inputs, **options)
        return answers[question]

    return remembered


def examined(study: str, scale: str, work: Path) -> dict[str, object]:
    notebook = read_notebook(ROOT / "notebooks" / f"{study}.ipynb")
    parameters = section(scale, study)
    nothing_in_git = patch("common.study.committed_records", lambda folder, root: {})
    there = {f"{part}/{name}": value for part in PARTS for name, value in files(ROOT / part / scale / study).items()}
    with without_pictures(study):
        gpu = OnGpu()
        with patch.object(Pool, "done", in_this_process(gpu)), nothing_in_git:
            expected = outcome(notebook, parameters, work)
        assert len(str(expected)) == 64, expected
        made = files(work)
        with patch.object(Pool, "done", no_new_runs):
            found = from_git(notebook, parameters, work)
            assert len(str(found)) == 64, found
            redrawn = files(work)
            with nothing_in_git, patch("common.study.sweep", remembering(sweep)):
                effects = {}
                for name, value in parameters.items():
                    for path, other in perturbed(value, name):
                        found = outcome(notebook, parameters | {name: other}, work)
                        same, ended = found == expected, len(str(found)) == 64
                        effects[path] = None if same else "other results" if ended else found
    unlike_there, unlike_made = unlike(made, there), unlike(redrawn, made)
    return {"changed": unlike_there, "redrawn": unlike_made, "on_gpu": gpu.apart, "effects": effects}


def unlike(some: dict[str, str], others: dict[str, str]) -> list[str]:
    return sorted(name for name in some.keys() | others.keys() if some.get(name) != others.get(name))


def main(scale: str, *studies: str) -> None:
    os.environ["COMPENDIUM_SCALE"] = scale
    os.environ[FRESH] = "1"
    BUILD.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=BUILD) as folder,
        patch("common.sweep.code_of", functools.cache(code_of)),  # code does not change meanwhile
    ):
        print(json.dumps({study: examined(study, scale, Path(folder) / "work") for study in studies}))


if __name__ == "__main__":
    main(*sys.argv[1:])
