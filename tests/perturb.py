"""Do a study again, then change each of its parameters a little: `python perturb.py STUDY SCALE`.

Runs the notebook's cells in this process, its sweeps too, where the cache lacks them: what comes out must be what the
pipeline's worker processes gave. Then a sweep whose keys are all in the cache is taken from there; a key that is not is
an effect of the changed parameter already, and the notebook goes no further. Prints a JSON object: `changed`, the
results and figures that came out otherwise than the pipeline's, and `effects`, parameter → effect, or null.
"""

import copy
import functools
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

import common.study
import common.sweep
from common.files import digest
from common.notebooks import read_notebook
from common.project import BUILD, ROOT
from common.scales import section
from common.study import Study

OTHER = {
    "gpt2": "llama",
    "llama": "gpt2",
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


def in_this_process(pool, jobs):
    for job in jobs:
        _, reason = pool._cell(job, os.getpid())
        assert reason is None, reason
        yield job


def no_new_runs(pool, jobs):
    raise NewRun


def files(folder: Path) -> dict[str, str]:
    """Digest of each file of a study's folder that must be the same whenever it is made."""
    others = {"timing.csv", "notebook.ipynb"}
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in others]
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


def without_pictures(study: str) -> None:
    """Of a figure only its data from now on, which tell as much, and of code and git only what is new."""
    plots = importlib.import_module(f"common.plots.{study}")
    for name, drawn in list(vars(plots).items()):
        if callable(drawn):
            setattr(plots, name, lambda *values, **named: None)
    Study.figure = lambda self, name, figure, data: data.to_csv(self.folder / "figures" / f"{name}.csv")
    common.sweep.code_of = functools.cache(common.sweep.code_of)
    common.study.committed_records = lambda folder, root: {}


def main(study: str, scale: str) -> None:
    os.environ["COMPENDIUM_SCALE"] = scale
    os.environ["COMPENDIUM_FRESH"] = "1"
    notebook = read_notebook(ROOT / "notebooks" / f"{study}.ipynb")
    parameters = section(scale, study)
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        work = Path(folder) / "work"
        common.sweep.Pool.done = in_this_process
        outcome(notebook, parameters, work)
        made = {part: files(work / part) for part in ("results", "figures")}
        there = {part: files(ROOT / part / scale / study) for part in made}
        changed = [
            f"{part}/{name}"
            for part in made
            for name in made[part].keys() | there[part].keys()
            if made[part].get(name) != there[part].get(name)
        ]
        common.sweep.Pool.done = no_new_runs
        without_pictures(study)
        expected = outcome(notebook, parameters, work)
        assert len(str(expected)) == 64, expected
        effects = {}
        for name, value in parameters.items():
            for path, other in perturbed(value, name):
                found = outcome(notebook, parameters | {name: other}, work)
                effects[path] = None if found == expected else found if len(str(found)) != 64 else "other results"
    print(json.dumps({"changed": changed, "effects": effects}))


if __name__ == "__main__":
    main(*sys.argv[1:])
