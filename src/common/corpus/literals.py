"""Data that a Python file holds as a literal: its syntax is read, nothing of it runs."""

import ast
from typing import Any

from common.errors import UserError


def assigned(file: str, content: bytes, name: str) -> ast.Dict:
    """The syntax of the dictionary that `file`, a module with this `content`, assigns to `name` at its top level.

    Raises `UserError` where the module is no Python or assigns no such dictionary.
    """
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{file}: line {getattr(error, 'lineno', None) or 1}: not Python ({error})") from error
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            if isinstance(value := getattr(node, "value", None), ast.Dict):
                return value
            raise UserError(f"{file}: line {node.lineno}: {name} is not a dictionary")
    raise UserError(f"{file}: assigns nothing to {name}")


def literal(node: ast.AST) -> Any:
    """The value of a literal. Raises `ValueError` for anything that would have to be run."""
    try:
        return ast.literal_eval(node)
    except (TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a literal ({error})") from error
