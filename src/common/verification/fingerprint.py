"""Everything that a study's result rests on, as digests."""

import json
from collections.abc import Callable
from pathlib import Path

from common.files import digest
from common.hub import given
from common.notebooks import canonical, code_cells, notebook_digest, read_notebook
from common.project import BUILD, ROOT
from common.provenance import import_closure
from common.scales import section

DIGITS = 16  # of a digest, in a stamp
MODELS = "models"  # of others, and their data; a study that names none has no digest of them


def code_of_study(study: str, root: Path = ROOT) -> str:
    """Digest of each module that a study's notebook imports, directly or through others, as JSON."""
    source = read_notebook(root / "notebooks" / f"{study}.ipynb")
    return json.dumps(import_closure(code_cells(source, study), root / "src"), indent=1) + "\n"


def sources(study: str, scale: str, root: Path = ROOT) -> dict[str, str]:
    """Digests of what people write: notebook, code, parameters, others' models. They can be had without data."""
    found = {
        "notebook": notebook_digest(canonical(read_notebook(root / "notebooks" / f"{study}.ipynb"))),
        "code": notebook_digest(code_of_study(study, root)),
        "parameters": notebook_digest(json.dumps(section(scale, study, root), sort_keys=True)),
    }
    others = given(study, scale, root)
    return found | ({MODELS: notebook_digest(json.dumps(others, sort_keys=True))} if others else {})


def listing(tables: dict[str, object]) -> str:
    """Hashes of a study's tables and, where it names some, others' models, as the pipeline keeps them."""
    return json.dumps(tables, indent=1) + "\n"


def outdated(study: str, scale: str, noted: Callable[[str], object], root: Path = ROOT) -> list[str]:
    """Which sources are not those that results were made with; `noted` gives the digest in their stamp by its name."""
    return [name for name, value in sources(study, scale, root).items() if noted(name) != value[:DIGITS]]


def fingerprint(study: str, scale: str) -> dict[str, str]:
    """Digests of sources, of the data tables that the study names, and of the token streams."""
    tables = json.loads((BUILD / "tables" / scale / f"{study}.json").read_text())
    tables.pop(MODELS, None)  # which are sources
    data = {"data": notebook_digest(listing(tables)), "tokens": digest(BUILD / "tokens" / scale)}
    return sources(study, scale) | data
