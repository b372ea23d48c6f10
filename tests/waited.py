"""Which operations make the host wait for a GPU, and who asked for them."""

import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

READS = {
    "_local_scalar_dense", "_unique2", "allclose", "bincount", "equal", "masked_select", "multinomial", "nonzero",
    "repeat_interleave", "unique_consecutive", "unique_dim",
}  # fmt: skip
"""Operations of which the host reads a result or its size."""

WAITS: Counter[str] = Counter()
"""Waits so far, by operation and the function that asked for it."""


def note(name: str, args: tuple, kwargs: dict) -> None:
    """Count an operation of aten, where the host would wait for it."""
    kind = name.partition(".")[0]
    if not _waits(kind, args, kwargs):
        return
    frame = sys._getframe(1)
    while frame and frame.f_globals["__name__"].partition(".")[0] in ("pretended", "torch"):
        frame = frame.f_back
    by = f"{frame.f_code.co_name}, {Path(frame.f_code.co_filename).name}" if frame else "autograd"  # in its own thread
    WAITS[f"{kind} in {by}"] += 1


def tensors_in(value: object) -> list[Tensor]:
    return [each for each in tree_leaves(value) if isinstance(each, Tensor)]


def _waits(kind: str, args: tuple, kwargs: dict) -> bool:
    """Whether PyTorch 2.13 waits in it on CUDA."""
    at_once = kwargs.get("non_blocking", False)
    if kind == "_to_copy":
        return _moves(args[0], torch.device(kwargs.get("device") or args[0].device), at_once)
    if kind == "copy_":
        return _moves(args[1], args[0].device, at_once or any(args[2:]))
    there = [_there(each) for each in tensors_in(args)]
    if kind in ("index", "index_put", "index_put_", "_index_put_impl_"):
        # A mask's places are counted, and indices that are here are copied there.
        indices = tensors_in(args[1])
        return there[0] and any(each.dtype in (torch.bool, torch.uint8) or not _there(each) for each in indices)
    if kind == "where":  # a number that is here is copied there
        return any(there) and not all(there)
    if kind in ("masked_fill", "masked_fill_"):
        return isinstance(args[2], Tensor) and _there(args[2])
    return kind in READS and any(there) and kwargs.get("output_size") is None


def _moves(source: Tensor, target: torch.device, at_once: bool) -> bool:
    across = (target.type != "cpu") != _there(source)
    return across and source.numel() > 0 and not (at_once and target.type != "cpu")


def _there(tensor: Tensor) -> bool:
    return tensor.device.type != "cpu"
