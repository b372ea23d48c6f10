"""A notebook's parameters: their names, types and defaults, from the source of the cell that lists them."""

import ast
import json
import typing
from collections.abc import Callable
from pathlib import Path

import pydantic

from common.errors import UserError
from common.scales import section


def parameters_cell(notebook: dict, name: str) -> str:
    """Source of the one cell tagged `parameters`."""
    tagged = [cell["source"] for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise UserError(f"{name}: {len(tagged)} cells are tagged `parameters`, allowed: one")
    return tagged[0]


def parameter_names(source: str, name: str) -> list[str]:
    """Names of the parameters. The cell holds imports and lines `name: type = value` and nothing else: no work."""
    return [node.target.id for node in _lines(source, name) if isinstance(node, ast.AnnAssign)]


def parameter_types(source: str, name: str) -> dict[str, object]:
    """Type of each parameter. What the cell imports is imported."""
    namespace: dict[str, object] = {}
    types: dict[str, object] = {}
    for node in _lines(source, name):
        if isinstance(node, ast.AnnAssign):
            annotation = compile(ast.Expression(node.annotation), name, "eval")
            types[node.target.id] = _say_where(name, lambda annotation=annotation: eval(annotation, namespace))
        else:
            _say_where(name, lambda node=node: exec(compile(ast.Module([node], []), name, "exec"), namespace))
    return types


def check_values(path: str, scale: str, name: str) -> None:
    """Raise `UserError` where a value in a scale's section has a type, or is one, that the notebook `path` refuses.

    It names each with what is allowed. A notebook calls it, with its types imported already (see
    `common.notebooks.with_check`): so `path` is read without the libraries that read notebooks.
    """
    types = parameter_types(parameters_cell(json.loads(Path(path).read_text()), name), name)
    problems = mistakes(types, section(scale, name))
    if problems:
        raise UserError(f"scales/{scale}.yaml: {'; '.join(problems)}")


def mistakes(types: dict[str, object], values: dict[str, object]) -> list[str]:
    """What is wrong with the values of parameters, a line for each mistake."""
    return [line for key, kind in types.items() if key in values for line in _mistakes(key, kind, values[key])]


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
        told = [str(part) for limit in limits for part in getattr(limit, "metadata", [limit])]
        return f"{_allowed(base)} with {', '.join(told)}"
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")


def _lines(source: str, name: str) -> list[ast.Import | ast.ImportFrom | ast.AnnAssign]:
    nodes = ast.parse(source).body
    for node in nodes:
        named = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if not named and not isinstance(node, ast.Import | ast.ImportFrom):
            raise UserError(f"{name}: the parameters cell holds `{ast.unparse(node)}`, allowed: name: type = value")
    return nodes


def _say_where(name: str, run: Callable[[], object]) -> object:
    try:
        return run()
    except (ImportError, NameError, TypeError) as error:
        raise UserError(f"{name}: the parameters cell: {type(error).__name__}: {error}") from error
