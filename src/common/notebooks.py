"""Notebooks as programs: canonical source, parameters, and an executed copy that is the same each time."""

import ast
import hashlib
import json
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from common.errors import UserError
from common.project import ROOT
from common.signature import parameter_names, parameters_cell

CHECK = "check"  # tag of the cell that checks parameters
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read_notebook(path: Path) -> NotebookNode:
    """The notebook at `path`; `UserError` where there is none or it can't be read."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise UserError(f"there is no notebook {path}") from error
    except (ValueError, TypeError, AttributeError, nbformat.ValidationError) as error:
        raise UserError(f"{path} is not a notebook: {str(error).splitlines()[0]}") from error


def forked_from(study: str, root: Path = ROOT) -> str | None:
    """The study whose fork a study is, as its notebook's metadata say; None where it is none."""
    return read_notebook(root / "notebooks" / f"{study}.ipynb").metadata.get("compendium", {}).get("parent")


def canonical(notebook: NotebookNode) -> str:
    """Source alone: no outputs, counts, random ids or editor's metadata. Equal text means equal notebook."""
    cells = []
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        kept = {"cell_type": cell.cell_type, "id": f"cell-{number}", "source": cell.source}
        kept["metadata"] = {"tags": tags} if tags else {}
        cells.append(kept | ({"outputs": [], "execution_count": None} if cell.cell_type == "code" else {}))
    return _dump({"cells": cells, "metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5})


def scrubbed(notebook: NotebookNode, stamp: dict[str, object]) -> str:
    """An executed notebook without times, ids, progress and check, with `stamp` as first cell and in its metadata.

    What was printed to standard error goes to the terminal alone: progress, estimates and warnings differ by run.
    """
    cells = []
    kept = [cell for cell in notebook.cells if CHECK not in cell.metadata.get("tags", [])]
    for number, cell in enumerate(kept):
        cell = NotebookNode(cell, id=f"cell-{number}", metadata={"tags": cell.metadata.get("tags", [])})
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for out in cell.outputs:
                out.get("metadata", {}).clear()
        cells.append(cell)
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in stamp.items())
    note = f"*Executed copy; edit the source, not this file.*\n\n| made with | |\n|---|---|\n{rows}"
    cells.insert(0, nbformat.v4.new_markdown_cell(note, id="stamp"))
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "compendium": stamp}
    return _dump({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def notebook_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def code_cells(notebook: NotebookNode, name: str = "notebook") -> list[str]:
    """Sources of the code cells as plain Python: IPython's magics become the calls they stand for.

    Raises `UserError` at a cell that is no Python; `name` is the notebook's, for the message.
    """
    sources = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            try:
                sources.append(_plain(cell.source))
            except SyntaxError as error:
                raise UserError(f"{name}: cell {number}, line {error.lineno}, is not Python: {error.msg}") from error
    return sources


def _plain(source: str) -> str:
    try:
        ast.parse(source)
    except SyntaxError:  # a cell with magics; IPython takes a while to load, and few cells have any
        from IPython.core.inputtransformer2 import TransformerManager

        source = TransformerManager().transform_cell(source)
        ast.parse(source)
    return source


def _dump(notebook: dict) -> str:
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def check_parameters(notebook: NotebookNode, section: object, where: str, name: str) -> None:
    """Raise `UserError` where the names in a scale's section and in a notebook don't fit each other.

    Unknown, missing and unused parameters are named with what is allowed. Nothing is imported; of types and values
    `with_check` sees to it that they are checked where they are used.
    """
    if not isinstance(section, dict):
        raise UserError(f"{where}: there is no section for {name}")
    names = parameter_names(parameters_cell(notebook, name), name)
    problems = [f"{key} is no parameter of {name}; allowed: {', '.join(names)}" for key in section if key not in names]
    problems += [f"{key} is missing; {name} needs it" for key in names if key not in section]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    used = {
        node.id
        for cell, source in zip(cells, code_cells(notebook, name), strict=True)
        if "parameters" not in cell.metadata.get("tags", [])
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    problems += [f"{key} is a parameter that {name} never uses" for key in names if key not in used]
    if problems:
        raise UserError(f"{where}: {'; '.join(problems)}")


def with_check(notebook: NotebookNode, path: Path, scale: str, name: str) -> NotebookNode:
    """A notebook that checks types and values of its parameters once they are set, and before all else.

    Types come from libraries that take seconds to load: they are loaded where the notebook needs them anyway. `path` is
    where the notebook lies. Executed copies lose the cell again (see `scrubbed`).
    """
    call = f"from common.signature import check_values\n\ncheck_values({str(path)!r}, {scale!r}, {name!r})"
    cell = nbformat.v4.new_code_cell(call, metadata={"tags": [CHECK]}, id=CHECK)
    at = next(n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    return NotebookNode(notebook, cells=[*notebook.cells[: at + 1], cell, *notebook.cells[at + 1 :]])
