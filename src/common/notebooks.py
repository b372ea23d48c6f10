"""Notebooks as programs: canonical source, parameters, and an executed copy that is the same each time."""

import ast
import hashlib
import json
import typing
from collections.abc import Callable
from pathlib import Path

import nbformat
import pydantic
from nbformat import NotebookNode

from common.errors import UserError

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read_notebook(path: Path) -> NotebookNode:
    """The notebook at `path`; `UserError` where there is none or it can't be read."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise UserError(f"there is no notebook {path}") from error
    except (ValueError, TypeError, AttributeError, nbformat.ValidationError) as error:
        raise UserError(f"{path} is not a notebook: {str(error).splitlines()[0]}") from error


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
    """An executed notebook without times, ids and progress, with `stamp` as its first cell and in its metadata.

    What was printed to standard error goes to the terminal alone: progress, estimates and warnings differ by run.
    """
    cells = []
    for number, cell in enumerate(notebook.cells):
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


def code_cells(notebook: NotebookNode) -> list[str]:
    """Sources of the code cells as plain Python: IPython's magics become the calls they stand for."""
    sources = []
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "code":
            try:
                sources.append(_plain(cell.source))
            except SyntaxError as error:
                raise UserError(f"cell {number}, line {error.lineno}, is not Python: {error.msg}") from error
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


def parameters_cell(notebook: NotebookNode, name: str) -> str:
    """Source of the one cell tagged `parameters`."""
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise UserError(f"{name}: {len(tagged)} cells are tagged `parameters`, allowed: one")
    return tagged[0]


def parameter_types(notebook: NotebookNode, name: str) -> dict[str, object]:
    """Parameters of a notebook and their types, from the annotations of its `parameters` cell.

    The cell holds imports and lines `name: type = value` and nothing else, so reading it runs no work.
    """
    tree = ast.parse(parameters_cell(notebook, name))
    namespace: dict[str, object] = {}
    types: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            _say_where(name, lambda node=node: exec(compile(ast.Module([node], []), name, "exec"), namespace))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = compile(ast.Expression(node.annotation), name, "eval")
            types[node.target.id] = _say_where(name, lambda annotation=annotation: eval(annotation, namespace))
        else:
            raise UserError(f"{name}: the parameters cell holds `{ast.unparse(node)}`, allowed: name: type = value")
    return types


def _say_where(name: str, run: Callable[[], object]) -> object:
    try:
        return run()
    except (ImportError, NameError, TypeError) as error:
        raise UserError(f"{name}: the parameters cell: {type(error).__name__}: {error}") from error


def default_parameters(notebook: NotebookNode, name: str) -> dict[str, object]:
    """Values that the `parameters` cell itself gives, as they stand there."""
    tree = ast.parse(parameters_cell(notebook, name))
    return {
        node.target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    }


def check_parameters(notebook: NotebookNode, section: object, where: str, name: str) -> None:
    """Raise `UserError` where a scale's section and a notebook don't fit each other.

    Unknown, missing and unused parameters, wrong types and impossible values: each is named with what is allowed.
    """
    if not isinstance(section, dict):
        raise UserError(f"{where}: there is no section for {name}")
    types = parameter_types(notebook, name)
    problems = [f"{key} is no parameter of {name}; allowed: {', '.join(types)}" for key in section if key not in types]
    problems += [f"{key} is missing; {name} needs it" for key in types if key not in section]
    used = {
        node.id
        for cell in notebook.cells
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])
        for source in code_cells(NotebookNode(cells=[cell]))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    problems += [f"{key} is a parameter that {name} never uses" for key in types if key not in used]
    for key, kind in types.items():
        if key in section:
            problems += _mistakes(key, kind, section[key])
    if problems:
        raise UserError(f"{where}: {'; '.join(problems)}")


def _mistakes(key: str, kind: object, value: object) -> list[str]:
    try:
        # Strict, but in JSON's sense: a list stands for a tuple, a whole number for a float.
        pydantic.TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except pydantic.ValidationError as error:
        found = []
        for mistake in error.errors():
            place = ".".join([key, *(str(part) for part in mistake["loc"])])
            found.append(f"{place} is {mistake['input']!r}: {mistake['msg']} (allowed: {_allowed(kind)})")
        return found
    except UserError as error:
        return [f"{key}: {error}"]
    return []


def _allowed(kind: object) -> str:
    if typing.get_origin(kind) is typing.Annotated:
        base, *limits = typing.get_args(kind)
        return f"{_allowed(base)} with {', '.join(str(limit) for limit in limits)}"
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")
