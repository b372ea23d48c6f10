"""A GPU that this machine does not have: tensors that say they are there, computed on the CPU.

As on a GPU, an operation on tensors of both devices raises, save for CPU tensors of no dimension and CPU indices, and
what is there has no `.numpy()`. So code that forgets where its tensors are fails here as it would there. `waited.WAITS`
tells where the host would have waited for a GPU. What a GPU computes by other kernels, in other precisions or out of
order, this cannot tell, nor whether random numbers are drawn where they are wanted; nor does it take 4-bit weights,
which bitsandbytes moves itself, or layers that are computed again in the backward pass.

In a process of its own: PyTorch takes one device of its users' making.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

import safetensors.torch
import torch
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from common.machine import DEVICE
from waited import note, tensors_in


class Backend(_DummyBackendModule):
    """What PyTorch asks of a device's module wherever there is one: random numbers are the CPU's."""

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        pass


_setup_privateuseone_for_python_backend("pretended", backend_module=Backend())
GPU = torch.device("pretended", 0)
MOVES = ("_to_copy.default", "copy_.default")
INDEXES = ("index.Tensor", "index_put.default", "index_put_.default", "_index_put_impl_.default")


class There(Tensor):
    """A tensor on the pretended GPU, whose values `held` has."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "There":
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=GPU,
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})

    # What else reaches into a tensor's memory.

    @property
    def data(self) -> "There":
        return There(self.held.data)

    @data.setter
    def data(self, value: "There") -> None:
        self.held = value.held.detach()

    def __deepcopy__(self, memo: dict) -> "There":
        if id(self) not in memo:
            made = There(self.held.detach().clone())
            made = torch.nn.Parameter(made) if getattr(self, "_is_param", False) else made
            memo[id(self)] = made.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __repr__(self, **_: object) -> str:
        return f"There({self.held!r})"

    def tolist(self) -> list:
        return self.cpu().tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()


class Generator(torch.Generator):
    """Random numbers, for whatever device: of the CPU."""

    def __new__(cls, device: object = "cpu") -> "Generator":
        return super().__new__(cls, "cpu")


class Machine(TorchDispatchMode):
    """Sends there what is made there."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return _run(operation, args, kwargs or {})


@contextmanager
def pretended() -> Iterator[None]:
    """A machine with a GPU, which accelerate finds."""
    AcceleratorState._reset_state(reset_partial_state=True)
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    flatten = safetensors.torch._flatten_as_ptr

    def written(tensors: Mapping[str, Tensor], *more: object) -> object:
        return flatten({name: getattr(tensor, "held", tensor) for name, tensor in tensors.items()}, *more)

    try:
        with patch.dict(os.environ):
            os.environ.pop(DEVICE, None)
            PartialState()
            PartialState._shared_state["device"] = GPU
            with (
                patch("torch.Generator", Generator),
                patch("safetensors.torch._flatten_as_ptr", written),
                patch("peft.utils.save_and_load.safe_load_file", lambda path, device=None: load_file(path)),
                Machine(),
            ):
                yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)
        AcceleratorState._reset_state(reset_partial_state=True)


def _run(operation: Callable, args: tuple, kwargs: dict) -> object:
    name = operation.__name__
    note(name, args, kwargs)
    tensors = tensors_in((args, kwargs))
    there = [each for each in tensors if isinstance(each, There)]
    device = kwargs.get("device")
    goes = bool(there) if device is None else torch.device(device).type == GPU.type
    if device is not None and goes:
        kwargs = kwargs | {"device": torch.device("cpu")}
    if there and name not in MOVES:
        here = [each for each in tensors if not isinstance(each, There) and each.dim()]
        if name in INDEXES and isinstance(args[0], There):
            here = [each for each in here if each.is_floating_point()]
        if here:
            shapes = ", ".join(str(tuple(each.shape)) for each in here)
            raise RuntimeError(f"{name}: expected all tensors to be on one device, on the CPU are {shapes}")
    bare_args, bare_kwargs = tree_map_only(There, lambda each: each.held, (args, kwargs))
    found = ABSENT.get(name, operation)(*bare_args, **bare_kwargs)
    if name == "copy_.default":
        return args[0]
    known = {id(each.held): each for each in there}  # what was changed in place is what it was

    def placed(tensor: Tensor) -> There:
        return known[id(tensor)] if id(tensor) in known else There(tensor)

    return tree_map_only(Tensor, placed, found) if goes else found


def _lstm_cell(given: Tensor, hidden: Tensor, cell: Tensor, *biases: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    gates = sum((bias for bias in biases if bias is not None), given + hidden)
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    new = f * cell + i * g
    return o * new.tanh(), new, torch.cat([i, f, g, o], 1)


def _lstm_cell_backward(
    by_hidden: Tensor | None, by_new: Tensor | None, cell: Tensor, new: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    i, f, g, o = gates.chunk(4, 1)
    by_hidden, by_new = (torch.zeros_like(cell) if each is None else each for each in (by_hidden, by_new))
    by_cell = by_new + by_hidden * o * (1 - new.tanh() ** 2)
    parts = (
        by_cell * g * i * (1 - i),
        by_cell * cell * f * (1 - f),
        by_cell * i * (1 - g**2),
        by_hidden * new.tanh() * o * (1 - o),
    )
    by_gates = torch.cat(parts, 1)
    return by_gates, by_cell * f, by_gates.sum(0) if has_bias else None


ABSENT = {
    "_thnn_fused_lstm_cell.default": _lstm_cell,
    "_thnn_fused_lstm_cell_backward_impl.default": _lstm_cell_backward,
}
"""What PyTorch asks of a GPU and the CPU has no kernel for."""


def _empty(size: list[int], *, dtype: torch.dtype | None = None, **_: object) -> There:
    with torch._C._DisableTorchDispatch():
        return There(torch.empty(size, dtype=dtype))


def _empty_strided(size: list[int], stride: list[int], *, dtype: torch.dtype | None = None, **_: object) -> There:
    with torch._C._DisableTorchDispatch():
        return There(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: There, non_blocking: bool = False) -> There:
    note("copy_", (target, source, non_blocking), {})
    target.held.copy_(source)
    return target


# `torch.tensor(..., device=…)` asks for these, below all modes.
LIBRARY = torch.library.Library("aten", "IMPL")
LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
LIBRARY.impl("empty.memory_format", _empty, "PrivateUse1")
LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")
