"""A study's published files, as they lie here or as a commit holds them."""

import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from common.errors import UserError
from common.verification.fingerprint import code_of_study

PARTS = ("results", "figures")
UNCOMPARED = {"timing.csv"}  # differs from run to run

Snapshot = dict[str, bytes]  # by path from the study's own folders on, `results/runs.csv`


def present(scale: str, study: str, root: Path) -> Snapshot:
    """Files of a study in the work tree."""
    found = {}
    for part in PARTS:
        folder = root / part / scale / study
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in UNCOMPARED and not path.name.startswith("."):
                found[f"{part}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return found


def committed(scale: str, study: str, commit: str, root: Path) -> Snapshot:
    """Files of a study in a commit; none where it holds none."""
    places = [f"{part}/{scale}/{study}" for part in PARTS]
    there = [place for place in places if _git(root, "ls-tree", "--name-only", commit, f"{place}/")]
    if not there:
        return {}
    found = {}
    with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", commit, *there))) as archive:
        for member in archive:
            part, _, _, name = (member.name.split("/", 3) + [""] * 3)[:4]
            if member.isfile() and Path(name).name not in UNCOMPARED:
                found[f"{part}/{name}"] = archive.extractfile(member).read()
    return found


def changed_modules(study: str, commit: str, root: Path) -> list[str]:
    """Modules that the notebook of a study imports and that are not what they were in a commit."""
    there = [name for name in ("src/common", f"notebooks/{study}.ipynb") if _git(root, "ls-tree", commit, name)]
    if len(there) < 2:
        return []
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", commit, *there))) as archive:
            archive.extractall(folder, filter="data")
        before, after = (json.loads(code_of_study(study, tree)) for tree in (Path(folder), root))
    return [name for name in sorted(before | after) if before.get(name) != after.get(name)]


def commit_of(ref: str, root: Path) -> str:
    """The commit that `ref` names; `UserError` where git knows none."""
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
    except UserError as error:
        raise UserError(f"--against {ref}: git knows no such commit") from error


def _git(root: Path, *arguments: str) -> bytes:
    try:
        ended = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True)
    except FileNotFoundError as error:
        raise UserError("git is not there; results are compared with those that it holds") from error
    except subprocess.CalledProcessError as error:
        raise UserError(f"git {arguments[0]}: {error.stderr.decode().strip() or 'failed'}") from error
    return ended.stdout
