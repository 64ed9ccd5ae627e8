"""A model's stay on its GPU: it works in turn with its neighbours, gives the card back while it has
nothing to do, and is looked after when a job is over.

Everything here runs on the model's thread. Knows no torch and no ray. On the CPU there is nothing
to share, and a job goes straight to the backend.
"""

import time
from collections.abc import Callable, Iterator

from deployments.backend import Backend
from deployments.core import gpu
from deployments.core.errors import Cancelled
from deployments.core.events import BackendEvent, PhaseBegan, Waiting
from deployments.core.spec import VideoSpec
from deployments.device_memory import prepare_cuda
from deployments.gpu_turn import GpuTurn

# How much more than at first may be held after a job. The first one brings the workspaces of cuBLAS
# and cuBLASLt, which count as tensors: 32 MiB each on Hopper, for each stream that multiplies
# (pytorch/pytorch#120925); and small tables are kept between jobs. What a job leaves behind by
# mistake is a network or activations, and those are larger.
KEPT_GB = 0.25
# A job counts as stalled when its row does not change for long; one that waits for its turn is not.
TELL_EVERY_S = 60.0


class Residency:
    """The stay of one model.

    Args:
        device: "cpu", or "cuda" for the first GPU that this process sees.

    Attributes:
        on_gpu: False from `leave` on, until a job brings the weights back.
    """

    def __init__(self, backend: Backend, device: str) -> None:
        self._backend, self._device = backend, device
        # Without a name of the GPU, as where the driver does not tell, there is no queue for it.
        gpus = () if device == "cpu" else gpu.gpus()
        self._turn = GpuTurn(gpus[0].uuid) if gpus else None
        self._rest_gb = 0.0
        self.on_gpu = True

    def load(self, stopped: Callable[[], bool], *, leave: bool = False) -> None:
        """Load the model in its turn: what it can have of the card is known only while no neighbour
        computes, and it chooses then how its weights lie there.

        Args:
            stopped: asked once a second while it waits.
            leave: as `leave`, before a neighbour has the turn, which plans with what is free then.

        Raises:
            Cancelled: it was stopped.
            Exception: whatever the backend raises.
        """
        try:
            for _ in self._wait():
                if stopped():
                    raise Cancelled("stopped before it was loaded")
            if self._device != "cpu":
                prepare_cuda()
            self._backend.load()
            self._rest_gb = self._backend.held_gb()
            if leave:
                self.leave()
        finally:
            self._give_back()

    def generate(self, spec: VideoSpec, image: bytes | None) -> Iterator[BackendEvent]:
        """Make the video in its turn, which is had until `settle`: only then does the backend look
        what memory there is, and brings its weights back."""
        yield from self._wait()
        work = self._backend.generate(spec, image)
        try:
            for event in work:
                self.on_gpu = True
                yield event
        finally:
            close(work)

    def settle(self, *, leave: bool) -> float:
        """Look, after a job, how much more memory is held than before the first one, in GB; what
        has to be expected is 0. Then let the next one have the turn.

        Args: leave: as `leave`, before a neighbour has the turn.
        Raises: RuntimeError: the GPU does not work any more.
        """
        try:
            left_gb = self._left_behind_gb()
            if leave:
                self.leave()
            return left_gb
        finally:
            self._give_back()

    def leave(self) -> None:
        """Let others have the card; nothing on the CPU.

        Raises: RuntimeError: the GPU does not work any more.
        """
        if self.on_gpu and self._device != "cpu":
            self._backend.leave_gpu()
            self.on_gpu = False

    def _wait(self) -> Iterator[PhaseBegan | Waiting]:
        if self._turn is None:
            return
        told_at = time.monotonic()
        for waiting in self._turn.wait():
            yield waiting
            if time.monotonic() - told_at >= TELL_EVERY_S:
                yield PhaseBegan("loading")
                told_at = time.monotonic()

    def _give_back(self) -> None:
        if self._turn is not None:
            self._turn.give_back()

    def _left_behind_gb(self) -> float:
        if self._backend.held_gb() - self._rest_gb > KEPT_GB:
            self._backend.release()
        left_gb = self._backend.held_gb() - self._rest_gb
        return left_gb if left_gb > KEPT_GB else 0.0


def close(work: Iterator[BackendEvent]) -> None:
    """Stop the work of a job where it is."""
    closing = getattr(work, "close", None)
    if closing is not None:
        closing()
