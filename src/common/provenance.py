"""What a result was made with: the code that was imported, the versions, the machine.

The digest of code reads the syntax tree without comments, docstrings and positions, so that rewording a
comment reruns nothing, and follows every `import` inside the package, so that changing a module reruns
what uses it and nothing else. Imports made by `importlib` are not seen; the package has none.
"""

import ast
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from common.environment import DEVICE

PACKAGE = "common"
SOURCE = Path(__file__).resolve().parents[1]
NO_GPU = "no GPU"  # the last word on hardware without one
NUMERICAL = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "scipy", "pandas")


def module_file(name: str, source: Path = SOURCE) -> Path | None:
    """The file of module `name` under `source`, or None where the name is no module of it."""
    path = source.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports(tree: ast.AST, package: str = "") -> set[str]:
    """Dotted names that a syntax tree imports; `package` is what relative imports start from."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1] + ([base] if base else []))
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


@cache
def _imported(code: str, package: str = "") -> frozenset[str]:
    """What source imports; by its text, as a notebook asks for the same modules at each of its sweeps."""
    return frozenset(imports(ast.parse(code), package))


def _canonical(node: object) -> object:
    """A syntax tree as nested tuples, without positions, empty fields and docstrings."""
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if name not in {"type_comment", "kind"}}
        body = fields.get("body")
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                fields["body"] = body[1:]
        # Python versions differ in which empty fields they add; leaving all of them out makes digests agree.
        kept = ((name, _canonical(value)) for name, value in fields.items() if value not in (None, []))
        return (type(node).__name__, *kept)
    if isinstance(node, list):
        return tuple(_canonical(item) for item in node)
    return repr(node)


@cache
def source_digest(code: str) -> str:
    """SHA-256 of Python source up to comments, docstrings and layout."""
    return hashlib.sha256(repr(_canonical(ast.parse(code))).encode()).hexdigest()


def import_closure(
    code: Iterable[str], source: Path = SOURCE, read: Callable[[Path], str] = Path.read_text
) -> dict[str, str]:
    """Digest of each module of the package that pieces of source import, directly or through others.

    `read` gives a file's text.
    """
    waiting = {name for piece in code for name in _imported(piece)}
    digests: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        # Importing a.b.c runs a/__init__ and a/b/__init__ too.
        waiting.update(".".join(parts[:n]) for n in range(1, len(parts)) if ".".join(parts[:n]) not in digests)
        file = module_file(name, source)
        if file is None or name in digests:
            continue
        text = read(file)
        digests[name] = source_digest(text)
        package = name if file.name == "__init__.py" else ".".join(parts[:-1])
        waiting.update(_imported(text, package) - digests.keys())
    return dict(sorted(digests.items()))


def code_digest(name: str, code: str, source: Path = SOURCE, read: Callable[[Path], str] = Path.read_text) -> str:
    """Digest of a function of that name in a module's source, and of every module of the package that it imports."""
    parts = [name, source_digest(code), *import_closure([code], source, read).items()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of the libraries that numbers depend on, without build tags such as `+cpu`; read once."""
    found = {name: importlib.metadata.version(name).partition("+")[0] for name in NUMERICAL}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def hardware() -> str:
    """The class of this machine: architecture, cores, kernels of torch and BLAS, accelerator unless held to the CPU.

    Other kernels may give other last bits.
    """
    import torch
    from threadpoolctl import threadpool_info

    blas = {f"{each['internal_api']} {each['architecture']}" for each in threadpool_info() if "architecture" in each}
    kernels = ", ".join([torch.backends.cpu.get_cpu_capability(), *sorted(blas)])
    used = torch.cuda.is_available() and os.environ.get(DEVICE) != "cpu"
    accelerator = torch.cuda.get_device_name() if used else NO_GPU
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {kernels}, {accelerator}"
