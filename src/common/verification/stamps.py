"""What an executed notebook says it was made with, and how two of them differ, the gravest first."""

import ast
import importlib.metadata
from collections.abc import Mapping

from nbformat import NotebookNode

from common.provenance import versions

CODE = "other code"
SOURCES = ("code", "notebook", "parameters", "models", "data", "tokens")  # by how much they explain


# Classifiers of text, QLoRA's base, what draws. Keys of runs do not hold them: there they would have all done anew.
BESIDE_KEYS = ("scikit-learn", "bitsandbytes", "matplotlib")


def versions_stamped() -> dict[str, str]:
    """Versions that a stamp notes: those that keys of runs hold, and some beside."""
    return versions() | {name: importlib.metadata.version(name) for name in BESIDE_KEYS}


def versions_apart(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Libraries of which both note a version, and not the same one; older stamps note fewer."""
    return [name for name, version in one.items() if other.get(name, version) != version]


def versions_text(noted: Mapping[str, str]) -> str:
    """Versions as a stamp has them; `versions_of` reads them."""
    return ", ".join(f"{name} {version}" for name, version in noted.items())


def versions_of(stamp: Mapping[str, str]) -> dict[str, str]:
    """Versions that a stamp notes, by library; none where it notes none."""
    return dict(entry.split(" ", 1) for entry in stamp.get("versions", "").split(", ") if " " in entry)


def stamp_of(executed: NotebookNode) -> dict[str, str]:
    return dict(executed.metadata.get("compendium", {}))


def parameters_of(executed: NotebookNode) -> dict[str, object]:
    """Values that the pipeline gave the notebook."""
    for cell in executed.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            lines = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
            return {node.targets[0].id: ast.unparse(node.value) for node in lines}
    return {}


def differences(old: NotebookNode, new: NotebookNode) -> list[str]:
    """How two makings differ, by severity: sources, torch, the CPU's kernels, other versions, hardware."""
    one, other = stamp_of(old), stamp_of(new)
    found = []
    for name in SOURCES:
        key = f"{name} digest"
        if one.get(key) != other.get(key):
            found.append(_parameters(old, new) if name == "parameters" else f"other {name}")
    before, after = (versions_of(stamp) for stamp in (one, other))
    lines = {name: f"{name} {before[name]} → {after[name]}" for name in versions_apart(before, after)}
    if "torch" in lines:
        found.append(lines.pop("torch"))
    found += [f"CPU kernels {x} → {y}" for x, y in _both(one, other, "cpu capability")]
    found += lines.values()
    return found + [f"hardware {x} → {y}" for x, y in _both(one, other, "hardware")]


def _parameters(old: NotebookNode, new: NotebookNode) -> str:
    before, after = parameters_of(old), parameters_of(new)
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return f"other parameters: {', '.join(names) or 'not said which'}"


def _both(one: dict[str, str], other: dict[str, str], key: str) -> list[tuple[str, str]]:
    before, after = one.get(key, "not noted"), other.get(key, "not noted")
    return [(before, after)] if before != after else []
