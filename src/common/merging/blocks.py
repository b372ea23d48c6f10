"""Arithmetic in float32 on tensors of any float type, a block at a time."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 18
"""Elements that are in work at once: a handful of float32 buffers of this size stays in a processor's cache."""


def blocks(tensors: Sequence[Tensor], spare: int = 0) -> Iterator[tuple[slice, list[Tensor]]]:
    """Go through flat tensors of one shape, yielding a place and float copies of what is there, and `spare` buffers.

    The buffers are the same in each round and may be overwritten. They are float32, or float64 where a tensor is.
    Raises `ValueError` on shapes that differ and on tensors without a fraction.
    """
    first = tensors[0]
    for tensor in tensors:
        if tensor.shape != first.shape:
            raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"{tensor.dtype} has no values between two others")
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    precise = any(tensor.dtype == torch.float64 for tensor in tensors)
    size = min(BLOCK, first.numel())
    buffers = torch.empty(
        len(flat) + spare, size, dtype=torch.float64 if precise else torch.float32, device=first.device
    )
    for start in range(0, first.numel(), BLOCK):
        place = slice(start, min(start + BLOCK, first.numel()))
        used = list(buffers[:, : place.stop - start])
        for buffer, tensor in zip(used, flat, strict=False):
            buffer.copy_(tensor[place])
        yield place, used


def blockwise(kernel: Callable[..., Tensor], tensors: Sequence[Tensor], out: Tensor | None, spare: int = 0) -> Tensor:
    """What `kernel` makes of the `blocks` of `tensors`, in their shape, rounded once to the type of `out`.

    `out` is contiguous, takes the result and is returned; by default it is new and has the type to which torch promotes
    those of the tensors.
    """
    if out is None:
        out = torch.empty(tensors[0].shape, dtype=promoted(tensors), device=tensors[0].device)
    elif out.shape != tensors[0].shape:
        raise ValueError(f"shapes differ: {tuple(tensors[0].shape)} and {tuple(out.shape)} of the result")
    flat = out.view(-1)
    for place, buffers in blocks(tensors, spare):
        flat[place] = kernel(*buffers)
    return out


def promoted(tensors: Sequence[Tensor]) -> torch.dtype:
    """The smallest type that holds the values of all tensors."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
