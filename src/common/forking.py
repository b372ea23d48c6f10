"""A study becomes the start of another: its notebook, knobs, plots, analysis and rows, under a new name.

Runs don't know which study asks for them, so a fork finds every run of its parent until it asks for another one: in
the machine's cache by key, and in git by the parent's rows, of which it takes a copy.
"""

import keyword
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import yaml

from common import git
from common.errors import UserError
from common.files import write_atomic
from common.notebooks import forked_from, read_notebook
from common.overview import readme
from common.project import ROOT
from common.scales import read_sections, studies

LONGEST = 20  # characters of a name: lines that hold it may not grow too long
ROWS = ("runs.csv", "timing.csv", "tables/*")  # what stands for runs in git; figures and claims are a study's own
TEST = '''"""The study of {new}, a fork of {study}, from a clone to figures at the tiny scale."""

import pytest

from pipeline import MAKE, keeps_contract, rows_of, stamped_and_clean

STUDY = "{new}"


@pytest.fixture(scope="module", autouse=True)
def made(checkout):
    checkout.ok(*MAKE, f"STUDY={{STUDY}}")


def test_results_keep_the_contract(checkout):
    rows = rows_of(checkout.root / "results/tiny" / STUDY)
    keeps_contract(checkout, STUDY, len(rows))  # better: the number of runs that you expect
    stamped_and_clean(checkout, STUDY)
'''


def fork(study: str, new: str, root: Path = ROOT) -> list[Path]:
    """Make the study `new` out of `study`; the files that were made or changed, relative to `root`.

    Nothing is written where the name is no name, is taken, or a file, the README among them, can't be read; a failed
    write leaves nothing.
    """
    check_name(study, new, root)
    contents = sources(study, new, root) | _rows(study, new, root) | _entries(study, new, root)
    contents[root / "tests" / f"test_{new}_study.py"] = TEST.format(new=new, study=study)
    contents[root / "README.md"] = readme([*studies(root), new], root)  # which lists it as not run yet
    before = {path: path.read_text() if path.exists() else None for path in contents}
    folders = {folder for path in contents for folder in path.parents if not folder.exists()}
    try:
        for path, text in contents.items():
            write_atomic(path, text)
    except BaseException:
        _undo(before, folders)
        raise
    return [path.relative_to(root) for path in contents]


def _undo(before: dict[Path, str | None], folders: set[Path]) -> None:
    """Have files as they were, and none of the folders that were made: an empty one would count as a name taken."""
    for path, text in before.items():
        if text is None:
            path.unlink(missing_ok=True)
        elif path.read_text() != text:
            write_atomic(path, text)
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        if folder.is_dir():
            folder.rmdir()


def check_name(study: str, new: str, root: Path = ROOT) -> None:
    """Raise `UserError` where there is no `study`, or where `new` can't be the name of one or is taken."""
    if study not in studies(root):
        raise UserError(f"there is no study {study!r}; allowed: {', '.join(studies(root))}")
    word = keyword.iskeyword(new) or yaml.safe_load(new) != new if re.fullmatch(r"[a-z][a-z0-9_]*", new) else True
    if word or len(new) > LONGEST:
        allowed = f"up to {LONGEST} small letters, digits and _, a letter first, no word of Python's or YAML's"
        raise UserError(f"{new!r} can't be the name of a study; allowed: {allowed}")
    if new in studies(root):
        raise UserError(f"there is a study {new!r} already; choose another name")
    modules = [f"src/common/{room}/{new}{end}" for room in ("plots", "analysis") for end in ("", ".py")]
    places = [f"notebooks/{new}.ipynb", f"tests/test_{new}_study.py", *modules]
    taken = [place for place in places if (root / place).exists()]
    taken += [str(path.relative_to(root)) for part in ("results", "figures") for path in root.glob(f"{part}/*/{new}")]
    taken += [f"a section in scales/{path.name}" for path in _scales(root) if new in read_sections(path)]
    if taken:
        raise UserError(f"{new!r} is taken, nothing is overwritten: there is {', '.join(taken)}")


def parent_of(new: str, root: Path = ROOT) -> str:
    """The study that `new` was forked from; `UserError` where it is no fork or there is no such study any more."""
    parent = forked_from(new, root)
    if not parent:
        raise UserError(f"{new} is no fork: notebooks/{new}.ipynb names no parent")
    if not (root / "notebooks" / f"{parent}.ipynb").exists():
        raise UserError(f"{new} was forked from {parent}, of which there is no notebook any more")
    return parent


def own_modules(study: str, root: Path = ROOT) -> list[Path]:
    """Files of the study's plots and analysis."""
    found = []
    for room in (root / "src/common/plots", root / "src/common/analysis"):
        found += [room / f"{study}.py", *sorted((room / study).rglob("*.py"))]
    return [path for path in found if path.is_file()]


def sources(study: str, new: str, root: Path = ROOT) -> dict[Path, str]:
    """Notebook, plots and analysis that a fork starts with, by their places."""
    notebook = read_notebook(root / "notebooks" / f"{study}.ipynb")
    for cell in notebook.cells:
        cell.source = _renamed(cell.source, study, new)
    notebook.metadata["compendium"] = {"parent": study}
    copies = {root / "notebooks" / f"{new}.ipynb": nbformat.writes(notebook) + "\n"}
    copies |= {
        _moved(path, study, new, root): _renamed(path.read_text(), study, new) for path in own_modules(study, root)
    }
    return _formatted(copies, root)


def _renamed(text: str, study: str, new: str) -> str:
    """Source of a study as that of its fork: the modules of its own, and its name."""
    for old, replacement in (
        (rf"\bcommon\.(analysis|plots)\.{study}\b", rf"common.\1.{new}"),
        (rf"\bfrom common\.(analysis|plots) import {study}\b", rf"from common.\1 import {new}"),
        (rf"\bStudy\((['\"]){study}\1\)", rf"Study(\1{new}\1)"),
        (rf"\bsection `{study}`", f"section `{new}`"),
    ):
        text = re.sub(old, replacement, text)
    return text


def _moved(path: Path, study: str, new: str, root: Path) -> Path:
    """Where a fork has what its parent has at `path`."""
    parts = [{study: new, f"{study}.py": f"{new}.py"}.get(part, part) for part in path.relative_to(root).parts]
    return root.joinpath(*parts)


def _formatted(texts: dict[Path, str], root: Path) -> dict[Path, str]:
    """The same laid out anew, since a longer name makes longer lines; where ruff is not installed, as it is."""
    with tempfile.TemporaryDirectory() as folder:
        drafts = {path: Path(folder) / path.relative_to(root) for path in texts}
        for path, draft in drafts.items():
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(texts[path])
        ruff = [sys.executable, "-m", "ruff", "format", "--quiet", "--config", str(root / "pyproject.toml"), folder]
        subprocess.run(ruff, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return {path: draft.read_text() for path, draft in drafts.items()}


def _rows(study: str, new: str, root: Path) -> dict[Path, str]:
    """The rows by which git stands for the study's runs, for the fork."""
    patterns = [f"results/*/{study}/{name}" for name in ROWS]
    listed = git.told(root, "ls-files", "--", *patterns).split("\n")
    rows = [root / name for name in listed if name and (root / name).is_file()]
    return {_moved(path, study, new, root): path.read_text() for path in rows}


def _entries(study: str, new: str, root: Path) -> dict[Path, str]:
    """Files that name studies, with `new` among them; comments stay."""
    changed = {root / "params.yaml": _listed((root / "params.yaml").read_text(), new)}
    for path in [path for path in _scales(root) if study in read_sections(path)]:
        text = path.read_text()
        changed[path] = f"{text.rstrip()}\n\n{new}{_section_text(text, study, path.name)}\n"
    for path, text in changed.items():
        old, now = yaml.safe_load(path.read_text()), yaml.safe_load(text)
        added = {"studies": [*old["studies"], new]} if path.name == "params.yaml" else {new: old[study]}
        if now != old | added:
            raise UserError(f"{path.relative_to(root)} is written in a way that can't be added to: add {new!r} by hand")
    return changed


def _scales(root: Path) -> list[Path]:
    return sorted((root / "scales").glob("*.yaml"))


def _listed(params: str, new: str) -> str:
    """`params.yaml` with one study more at the end of its list."""
    items = list(re.finditer(r"(?m)^( *)- *\w+.*$", params))
    if not items:
        raise UserError("params.yaml: studies must be a list, a line `- name` for each")
    last = items[-1]
    return f"{params[: last.end()]}\n{last[1]}- {new}{params[last.end() :]}"


def _section_text(scale: str, study: str, name: str) -> str:
    """What stands in a scale's text from the colon after the study's name to the end of its section."""
    found = re.search(rf"(?ms)^{study}(:.*?)(?=^[^\s#]|\Z)", scale)
    if not found:
        raise UserError(f"scales/{name} has no section {study!r}")
    return re.sub(r"(\n+#[^\n]*)*\s*\Z", "", found[1])  # comments at the margin belong to the section that follows
