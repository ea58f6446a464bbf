"""Bytes of tensors that are alive at once: a count that no machine's load can change."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """The most bytes of storages, made inside the block, that were alive at one time.

    Attributes:
        most: the peak so far.
        shapes: the shape of every tensor that an operation returned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.most = 0
        self.shapes: set[tuple[int, ...]] = set()
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        arguments: tuple[object, ...] = (),
        options: Mapping[str, object] | None = None,
    ) -> object:
        # Views and results in place have storages that are no new bytes.
        before = {
            each.untyped_storage()._cdata
            for each in tree_leaves((arguments, options))
            if isinstance(each, Tensor)
        }
        result = function(*arguments, **(options or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self.shapes.add(tuple(each.shape))
                self._count(each.untyped_storage(), before)
        return result

    def _count(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        """Count a storage until it is freed."""
        key = storage._cdata
        if key in before or key in self._known:
            return
        self._known.add(key)
        num_bytes = storage.nbytes()
        self.alive += num_bytes
        self.most = max(self.most, self.alive)

        def freed() -> None:
            self._known.discard(key)
            self.alive -= num_bytes

        weakref.finalize(storage, freed)
