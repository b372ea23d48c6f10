"""Everything that a study's result rests on, as digests."""

import json
from collections.abc import Callable
from pathlib import Path

from common.files import digest
from common.notebooks import canonical, code_cells, notebook_digest, read_notebook
from common.project import BUILD, ROOT
from common.provenance import import_closure
from common.scales import section

DIGITS = 16  # of a digest, in a stamp


def code_of_study(study: str, root: Path = ROOT) -> str:
    """Digest of each module that a study's notebook imports, directly or through others, as JSON."""
    source = read_notebook(root / "notebooks" / f"{study}.ipynb")
    return json.dumps(import_closure(code_cells(source, study), root / "src"), indent=1) + "\n"


def sources(study: str, scale: str, root: Path = ROOT) -> dict[str, str]:
    """Digests of what people write: notebook, code, parameters. They can be had without data."""
    return {
        "notebook": notebook_digest(canonical(read_notebook(root / "notebooks" / f"{study}.ipynb"))),
        "code": notebook_digest(code_of_study(study, root)),
        "parameters": notebook_digest(json.dumps(section(scale, study, root), sort_keys=True)),
    }


def outdated(study: str, scale: str, noted: Callable[[str], object], root: Path = ROOT) -> list[str]:
    """Which sources are not those that results were made with; `noted` gives the digest in their stamp by its name."""
    return [name for name, value in sources(study, scale, root).items() if noted(name) != value[:DIGITS]]


def fingerprint(study: str, scale: str) -> dict[str, str]:
    """Digests of sources, of the data tables that the study names, and of the token streams."""
    tables = (BUILD / "tables" / scale / f"{study}.json").read_text()
    data = {"data": notebook_digest(tables), "tokens": digest(BUILD / "tokens" / scale)}
    return sources(study, scale) | data
