"""The most bytes that tensors take at once while something runs: of real ones, or of those without data."""

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """A context in which `most` comes to be that number, each storage counted once, as long as it lives.

    What an operation takes or gives counts, but for the storages of `aside`. What lives inside a single operation, such
    as a kernel's workspace, is not seen.
    """

    def __init__(self, aside: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.most = self._now = 0
        self._aside = [tensor.untyped_storage() for tensor in aside]  # held, so that none takes another's place
        self._known = {storage._cdata for storage in self._aside}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, given)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self._note(leaf.untyped_storage())
        return given

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
