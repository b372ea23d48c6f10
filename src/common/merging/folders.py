"""Merging models in folders, as a mergekit file says, into a folder that transformers opens."""

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import atomic_folder
from common.merging import companions
from common.merging.checkpoints import Checkpoint, write_shards
from common.merging.config import Config, read_config
from common.merging.settings import depths, layer_of
from common.merging.states import HEAD, check_alike, merge_named, tied_embedding


def merge_folders(config_file: Path, out: Path, seed: int | None = None) -> None:
    """Merge as the file says into the folder `out`, which must not be there yet.

    One tensor of each model is in work at a time. `seed` is for methods that draw at random. Raises `UserError`, one
    line, where something does not fit; then there is no `out`.
    """
    config = read_config(config_file, seed)
    if out.exists():
        raise UserError(f"{out} is there already: name a new folder")
    folders = {name: _folder(name) for name in config.names}
    source = config.tokenizer_source or config.donor
    sources = folders | {source: folders.get(source) or _folder(source)}
    _check_tokenizers(config, source, sources)
    configurations = {name: companions.read_configuration(folder) for name, folder in sources.items()}
    companions.check_configurations(configurations)
    checkpoints = {name: Checkpoint(folder) for name, folder in folders.items()}
    tied = tied_embedding(list(checkpoints.values()))
    _check_weights(checkpoints, configurations, tied, config)
    stored = checkpoints[config.donor].shapes
    depth = depths(stored)
    dtypes = {
        name: _dtype(config, [each.dtypes[tied if tied and name == HEAD else name] for each in checkpoints.values()])
        for name in stored
    }
    _rehearse(config, {name: depth[name] for name in stored if not tied or name != HEAD}, dtypes)
    sizes = {name: torch.Size(stored[name]).numel() * dtype.itemsize for name, dtype in dtypes.items()}
    # Used for one tensor after the other: fresh memory for each would cost about as much as the arithmetic.
    buffer = torch.empty(max(sizes.values()), dtype=torch.uint8)

    def room(name: str) -> Tensor:
        return buffer[: sizes[name]].view(dtypes[name]).view(stored[name])

    def merged(name: str) -> Tensor:
        name = tied if tied and name == HEAD else name
        tensors = {label: checkpoint[name] for label, checkpoint in checkpoints.items()}
        try:
            return merge_named(config.recipe, name, depth[name], tensors, room(name))
        except ValueError as error:
            raise UserError(str(error)) from error

    with atomic_folder(out) as folder:
        write_shards(folder, stored, dtypes, merged)
        largest = max(stored, key=lambda name: torch.Size(stored[name]).numel())
        companions.write_configuration(folder, configurations[config.donor], configurations[source], dtypes[largest])
        companions.copy_tokenizer(sources[source], folder)
        companions.write_card(folder, out.name, config)


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    # Not above: it imports transformers, which takes longer than many a merge of folders.
    from common.zoo import locate

    model, _, revision = name.partition("@")
    return locate(model, revision=revision or None)


def _check_tokenizers(config: Config, source: str, folders: Mapping[str, Path]) -> None:
    """Models may all come without a tokenizer, unless the file asks for one."""
    found = companions.with_tokenizer(folders)
    if source not in found and (config.tokenizer_source or found):
        allowed = f"; tokenizer_source may be {', '.join(found)}" if found else ""
        raise UserError(f"{source} has no tokenizer{allowed}")
    companions.check_vocabularies(found)


def _check_weights(
    checkpoints: Mapping[str, Checkpoint],
    configurations: Mapping[str, dict[str, Any]],
    tied: str | None,
    config: Config,
) -> None:
    try:
        check_alike({name: checkpoint.shapes for name, checkpoint in checkpoints.items()}, tied)
    except ValueError as error:
        raise UserError(str(error)) from error
    for name, checkpoint in checkpoints.items():
        if HEAD not in checkpoint and configurations[name].get("tie_word_embeddings") is False:
            raise UserError(f"{HEAD} is not in {name}, whose configuration does not tie it to the embedding")
        layers = 1 + max((layer for layer in map(layer_of, checkpoint) if layer is not None), default=-1)
        if config.layers not in (None, layers):
            raise UserError(f"layer_range ends at {config.layers}, {name} has {layers} layers: models are merged whole")


def _rehearse(config: Config, depth: Mapping[str, float], dtypes: Mapping[str, torch.dtype]) -> None:
    """Refuse a parameter that makes no sense for any tensor before the first one is read."""
    for name, place in depth.items():
        nothing = torch.empty(0, dtype=dtypes[name])
        try:
            merge_named(config.recipe, name, place, dict.fromkeys(config.names, nothing), nothing)
        except ValueError as error:
            raise UserError(str(error)) from error


def _dtype(config: Config, found: Sequence[torch.dtype]) -> torch.dtype:
    if not all(dtype.is_floating_point for dtype in found):
        return found[0]
    return config.dtype or reduce(torch.promote_types, found)
