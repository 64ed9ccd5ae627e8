"""A GPU's allocator, pretended on the CPU: it counts what is alive and can run out of memory."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deployments.core.checkpoints import Checkpoint
from deployments.core.config import ModelConfig
from deployments.core.events import BackendEvent
from deployments.core.memory import GIB, OVERHEAD_GB
from deployments.core.spec import VideoSpec
from deployments.device_memory import DeviceMemory
from deployments.placement import Placer

At = Callable[[BackendEvent], bool]


class AllocatorLimit(TorchDispatchMode):
    """Counts the tensors that operations under it return, for as long as they live, and raises
    `torch.OutOfMemoryError` where they would be more than `limit_bytes`, or where told to.

    Attributes:
        taken_bytes: of all tensors alive that were made under it.
        peak_bytes: the most of that.
    """

    def __init__(self, limit_bytes: int = 2**40) -> None:
        super().__init__()
        self.limit_bytes = limit_bytes
        self.taken_bytes = self.peak_bytes = 0
        self._sizes: dict[int, int] = {}
        self._at: At | None = None
        self._every = self._until_failure = self._failures = 0

    def fail(self, at: At, *, allocation: int = 1, times: int = 1) -> None:
        """Run out of memory after the first event that `at` is true of.

        Args:
            allocation: which one from there fails; counted anew after each failure.
            times: how often.
        """
        self._at, self._every, self._failures = at, allocation, times
        self._until_failure = 0

    def around(self, events: Iterator[BackendEvent]) -> Iterator[BackendEvent]:
        """Yield `events`, and have what happens between them counted."""
        while True:
            with self:
                event = next(events, None)
            if event is None:
                return
            if self._at is not None and self._at(event):
                self._at, self._until_failure = None, self._every
            yield event

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        if self._fails_now() or self.taken_bytes + storage.nbytes() > self.limit_bytes:
            raise torch.OutOfMemoryError(f"no room for {storage.nbytes()} bytes")
        self._sizes[key] = storage.nbytes()
        self.taken_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self.taken_bytes)
        weakref.finalize(storage, self._let_go, key)

    def _fails_now(self) -> bool:
        if not self._failures or not self._until_failure:
            return False
        self._until_failure -= 1
        if self._until_failure:
            return False
        self._until_failure, self._failures = self._every, self._failures - 1
        return True

    def _let_go(self, key: int) -> None:
        self.taken_bytes -= self._sizes.pop(key)


class LimitedMemory:
    """The `DeviceMemory` whose figures are those of an `AllocatorLimit`. The card has, beside the
    tensors, what CUDA's libraries take."""

    def __init__(self, allocator: AllocatorLimit) -> None:
        self._allocator = allocator

    def limit(self) -> None:
        """All of the card is the process's own."""

    def available_gb(self) -> float:
        return self._allocator.limit_bytes / GIB + OVERHEAD_GB

    def total_gb(self) -> float:
        return self.available_gb()

    def held_gb(self) -> float:
        return self._allocator.taken_bytes / GIB

    def release(self) -> None:
        gc.collect()


def on_limited_gpu(backend: Any, text_parts: tuple[str, ...], allocator: AllocatorLimit) -> Any:
    """Return the backend's class, with what it computes counted as a GPU's: its memory is planned
    by the allocator's figures, while everything lies on the CPU."""
    memory: DeviceMemory = LimitedMemory(allocator)

    class OnLimitedGpu(backend):  # type: ignore[misc]
        def __init__(self, config: ModelConfig, checkpoint: Checkpoint, device: str) -> None:
            super().__init__(config, checkpoint, "cpu")
            weights = config.weights
            self._placer = Placer(config.name, "cpu", text_parts, memory, weights=weights)

        def generate(self, spec: VideoSpec, image: bytes | None = None) -> Iterator[BackendEvent]:
            yield from allocator.around(super().generate(spec, image))

    return OnLimitedGpu
