"""Where given models are: folders, pinned packages, and the hub at a commit."""

from pathlib import Path

from common.bases.checking import check_given
from common.bases.dressing import dressed
from common.bases.given import Given
from common.converted import converted_model
from common.errors import UserError
from common.hub import item, items
from common.packaged import LISTED
from common.project import ROOT
from common.sources import load_sources
from common.zoo import locate


def located(given: Given, scale: str) -> Path:
    """The folder of a given model, fetched and converted the first time where it lies in none; checked.

    Raises `UserError`, one line, where it cannot be had or is none to start from (see `check_given`).
    """
    adds = item(scale, given.model, "model").adds if given.model in items(scale) else ()
    folder = dressed(given.model, _folder(given.model, scale), adds)
    check_given(folder, given.context)
    return folder


def _folder(name: str, scale: str) -> Path:
    if item := items(scale).get(name):
        if item.kind != "model":
            raise UserError(f"scales/{scale}.yaml: hub.{name} is a {item.kind}, wanted: a model")
        if item.folder is not None:
            return locate(item.folder, root=ROOT)
        return locate(item.id, revision=item.revision)
    if name in load_sources(LISTED):
        return converted_model(name)
    if (ROOT / name).is_dir():
        return ROOT / name
    owned, _, commit = name.partition("@")
    return locate(owned, revision=commit or None)
