"""Bytes of tensors that are alive at once, a count that no machine's load can change; and the
growth of a process as the kernel sees it.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reasontrain.metrics.memory import PROCESS, sizes


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


class GrowthOfMemory:
    """By how many bytes the private memory of this process grew inside the block, at most.

    Pages of files that it maps are not private: processes share them.

    Attributes:
        peak: the growth, after the block.
    """

    INTERVAL_S = 0.002
    MMAP_THRESHOLD = (-3, 65536)
    """glibc's option, which it changes by itself unless it is set: larger blocks are given back."""

    def __enter__(self) -> GrowthOfMemory:
        ctypes.CDLL(None).mallopt(*self.MMAP_THRESHOLD)
        self._start = self._now()
        self._most = self._start
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.peak = max(self._most, self._now()) - self._start

    def _watch(self) -> None:
        while not self._ended.wait(self.INTERVAL_S):
            self._most = max(self._most, self._now())

    @staticmethod
    def _now() -> int:
        return sizes(PROCESS)["RssAnon"]
