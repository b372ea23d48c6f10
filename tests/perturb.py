"""Change each parameter of a study a little and tell what it changed: `python perturb.py STUDY SCALE`.

Runs the notebook's cells in this process. A sweep whose keys are all in the cache is taken from there; a key that is
not is an effect already, and the notebook goes no further. Prints a JSON object: parameter → effect, or null.
"""

import copy
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")

from matplotlib.figure import Figure
from PIL import Image

import common.sweep
from common.files import digest
from common.notebooks import read_notebook
from common.project import BUILD, ROOT
from common.scales import section

OTHER = {
    "gpt2": "llama",
    "llama": "gpt2",
    "no": "bf16",
    "channel": "tensor",
    "tensor": "group",
    "sotu": "movie_reviews",
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
        yield path, value + 1 if isinstance(value, int) else value * 1.5


def no_new_runs(pool, jobs):
    raise NewRun


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


def main(study: str, scale: str) -> None:
    os.environ["COMPENDIUM_SCALE"] = scale
    os.environ["COMPENDIUM_FRESH"] = "1"
    common.sweep.Pool.done = no_new_runs
    pixel = io.BytesIO()
    Image.new("1", (1, 1)).save(pixel, "png")
    # No pictures: the data beside a figure tell as much, and much sooner.
    Figure.savefig = lambda figure, buffer, **options: buffer.write(pixel.getvalue())
    notebook = read_notebook(ROOT / "notebooks" / f"{study}.ipynb")
    parameters = section(scale, study)
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        work = Path(folder) / "work"
        expected = outcome(notebook, parameters, work)
        assert len(str(expected)) == 64, expected
        effects = {}
        for name, value in parameters.items():
            for path, changed in perturbed(value, name):
                found = outcome(notebook, parameters | {name: changed}, work)
                effects[path] = None if found == expected else found if len(str(found)) != 64 else "other results"
    print(json.dumps(effects))


if __name__ == "__main__":
    main(*sys.argv[1:])
