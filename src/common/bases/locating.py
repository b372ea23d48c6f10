"""Where given models are: folders, pinned packages, and the hub at a commit."""

from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig

from common.bases.checking import check_given
from common.bases.dressing import dressed
from common.bases.given import Given
from common.converted import converted_folder, converted_model, known_config
from common.errors import UserError
from common.hub import is_cached, item, items
from common.packaged import LISTED
from common.project import ROOT
from common.sources import load_sources
from common.zoo import COMMIT, HUB_ID, locate


def located(given: Given, scale: str) -> Path:
    """The folder of a given model, fetched and converted the first time where it lies in none; checked.

    Raises `UserError`, one line, where it cannot be had or is none to start from (see `check_given`).
    """
    adds = item(scale, given.model, "model").adds if given.model in items(scale) else ()
    folder = dressed(given.model, folder_of(given.model, scale), adds)
    check_given(folder, given.context)
    return folder


def config_of(given: Given, scale: str) -> PretrainedConfig:
    """Kind and sizes of a given model, with its `context`, in float32, as studies train; no weights are fetched.

    Of a package they are known, of a model on the hub its configuration alone is asked for. `UserError` as `located`.
    """
    config = named_config(given.model, scale)
    config.max_position_embeddings, config.dtype = given.context, torch.float32
    return config


def named_config(name: str, scale: str) -> PretrainedConfig:
    """The configuration of a model by its name, as it is; errors as `config_of`."""
    place, commit = _place(name, scale)
    if _packaged(place):
        return known_config(place)
    pinned = commit is not None and COMMIT.fullmatch(commit)
    folder = place if pinned else locate(place, revision=commit)
    try:
        return AutoConfig.from_pretrained(folder, revision=commit, trust_remote_code=False)
    except Exception as error:  # the hub's library has errors of its own
        told = " ".join(str(error).split())[:160]
        raise UserError(f"the configuration of {name} cannot be had: {told}") from error


def folder_of(name: str, scale: str) -> Path:
    """The folder of a model by its name, as it is; fetched as by `located`, not checked."""
    place, commit = _place(name, scale)
    return converted_model(place) if _packaged(place) else locate(place, revision=commit)


def is_here(name: str, scale: str) -> bool:
    """Whether the folder of a model by its name needs no fetching; errors of what it is none of are `folder_of`'s."""
    place, commit = _place(name, scale)
    if _packaged(place):
        return converted_folder(place).is_dir()
    fetched = commit is not None and COMMIT.fullmatch(commit) and HUB_ID.fullmatch(place)
    return not fetched or is_cached(place, commit)


def _packaged(place: str) -> bool:
    return place in load_sources(LISTED)


def _place(name: str, scale: str) -> tuple[str, str | None]:
    """A package, a folder or a model on the hub, and the commit of that."""
    if name in items(scale):
        found = item(scale, name, "model")
        return (found.id, found.revision) if found.place is None else (str(found.place), None)
    if _packaged(name):
        return name, None
    if (ROOT / name).is_dir():
        return str(ROOT / name), None
    owned, _, commit = name.partition("@")
    return owned, commit or None
