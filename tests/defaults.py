"""What a notebook's parameters cell gives itself."""

import ast


def default_parameters(cell: str) -> dict[str, object]:
    """Values by name, as they stand there."""
    lines = [node for node in ast.parse(cell).body if isinstance(node, ast.AnnAssign)]
    return {node.target.id: ast.literal_eval(node.value) for node in lines if node.value is not None}
