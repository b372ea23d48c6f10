"""Weights of a model's folder, read and written one tensor at a time."""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from common.errors import UserError
from common.files import write_atomic

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"} | {
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"
}  # fmt: skip
SHARD = 5 * 10**9
"""Bytes, as transformers has it by default, more or less: files of this size are easy to move."""


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a folder by name, mapped into memory when asked for and let go with their last use.

    `shapes` and `dtypes` are known beforehand. Raises `UserError` where the weights are no safetensors or broken.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._files = _files(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        known = {name: dtype for dtype, name in DTYPES.items()}
        for path in sorted({*self._files.values()}):
            with _open(path) as file:
                for name in {name for name, place in self._files.items() if place == path} & set(file.keys()):
                    view = file.get_slice(name)
                    if view.get_dtype() not in known:
                        raise UserError(f"{name} in {path} is {view.get_dtype()}, allowed: {', '.join(known)}")
                    self.shapes[name], self.dtypes[name] = tuple(view.get_shape()), known[view.get_dtype()]
        for name in self._files.keys() - self.shapes.keys():
            raise UserError(f"{name} is not in {self._files[name]}, though {INDEX} says so")

    def __getitem__(self, name: str) -> Tensor:
        with _open(self._files[name]) as file:
            return file.get_tensor(name)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _files(folder: Path) -> dict[str, Path]:
    """Which file each tensor is in."""
    if (folder / INDEX).is_file():
        try:
            places = json.loads((folder / INDEX).read_text())["weight_map"]
            if not all(Path(place).name == place for place in places.values()):
                raise ValueError("a file outside the folder")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder / INDEX} cannot be read: {error}") from error
        return {name: folder / place for name, place in places.items()}
    if (folder / SINGLE).is_file():
        with _open(folder / SINGLE) as file:
            return dict.fromkeys(file.keys(), folder / SINGLE)
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds an adapter: merge it into its model first (merge_and_unload of peft)")
    others = sorted(path.name for kind in ("bin", "pt", "pth", "gguf") for path in folder.glob(f"*.{kind}"))
    raise UserError(f"{folder} holds no {SINGLE}{f', only {others[0]}' if others else ''}")


def _open(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def write_shards(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, torch.dtype],
    tensor: Callable[[str], Tensor],
    limit: int = SHARD,
) -> None:
    """Write tensors, each made by `tensor(name)` when its turn comes and kept no longer, as transformers reads them.

    Shapes and types are told beforehand, as the head of a file comes before its tensors. A file has at most `limit`
    bytes, but for a tensor that is larger. Raises `UserError` with the tensor's name where it cannot be written.
    """
    sizes = {name: dtypes[name].itemsize * torch.Size(shape).numel() for name, shape in shapes.items()}
    shards = _split(sizes, limit)
    files = [SINGLE]
    if len(shards) > 1:
        files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
        places = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(places.items()))}
        write_atomic(folder / INDEX, json.dumps(index, indent=2) + "\n")
    for file_name, shard in zip(files, shards, strict=True):
        # Wide types first: each tensor then starts at a multiple of its elements' size.
        shard.sort(key=lambda name: -dtypes[name].itemsize)
        head, end = {"__metadata__": {"format": "pt"}}, 0
        for name in shard:
            place = [end, end := end + sizes[name]]
            head[name] = {"dtype": DTYPES[dtypes[name]], "shape": list(shapes[name]), "data_offsets": place}
        text = json.dumps(head, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        name = shard[0]
        try:
            with (folder / file_name).open("wb", buffering=0) as file:
                _write(file, struct.pack("<Q", len(text)) + text)
                for name in shard:
                    made = tensor(name)
                    if (made.dtype, tuple(made.shape)) != (dtypes[name], shapes[name]):
                        raise RuntimeError(f"{name} became {made.dtype} {tuple(made.shape)}")
                    _write(file, made.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        except OSError as error:
            raise UserError(f"cannot write {name}: {error.strerror}") from error


def _split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    shards, room = [], 0
    for name, size in sizes.items():
        if not shards or size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards


def _write(file: BinaryIO, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
