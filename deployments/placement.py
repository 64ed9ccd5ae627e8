"""Where a model's networks lie on its GPU, job by job, as the memory plan says.

What the backends share: the CPU needs none of it, and there every question is answered by "stay".
torch is imported inside methods only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deployments.core import memory
from deployments.core.errors import InsufficientVram
from deployments.core.memory_fit import nearest_to
from deployments.core.networks.model import Clip, ModelFigures
from deployments.core.spec import ModelCard, VideoSpec
from deployments.device_memory import DeviceMemory


class Placer:
    """The networks of one loaded model.

    Args:
        model: the name that a refusal gives.
        device: "cpu", or "cuda" for the first GPU that this process sees.
        text_parts: which of the parts encode text; they stay on the CPU when memory is short.
        device_memory: None where it is not planned, and everything stays where it is.
    """

    def __init__(
        self,
        model: str,
        device: str,
        text_parts: tuple[str, ...],
        device_memory: DeviceMemory | None,
    ) -> None:
        self._model, self._device, self._text_parts = model, device, text_parts
        self._memory = device_memory
        self._figures: ModelFigures
        self._has_left = False
        self.mode = memory.MODES[0]

    def plan(self, figures: ModelFigures, largest: Clip) -> None:
        """Decide on `mode` for this GPU and these networks, so that the `largest` clip fits."""
        self._figures = figures
        if self._memory is not None:
            self._memory.limit()
            self.mode = memory.fastest_mode(figures, largest, self._memory.available_gb())

    def placement(self) -> memory.Placement | None:
        """Return the mode and the GPU's memory as they are now; None on the CPU."""
        if self._memory is None:
            return None
        return memory.Placement(
            mode=self.mode,
            available_gb=self._memory.available_gb(),
            total_gb=self._memory.total_gb(),
        )

    @property
    def on_cpu(self) -> set[str]:
        """The parts that are not on the GPU between jobs: the card may be shared."""
        if self._memory is None:
            return set()
        on_cpu = set() if self.mode.text_on_gpu else set(self._text_parts)
        return on_cpu | ({"transformer", "vae"} if self.mode.take_turns else set())

    def need_gb(self, clip: Clip, *, low_vram: bool, conditioned: bool = False) -> float:
        """Return the most GPU memory that a video takes here, in GB; see `memory.phases`."""
        return memory.peak_gb(
            self._figures, clip, self.mode, low_vram=low_vram, conditioned=conditioned
        )

    @contextmanager
    def job(self, spec: VideoSpec, card: ModelCard, parts: Any) -> Iterator[None]:
        """Refuse a video that does not fit, and say what would; say that it does not in the same
        words if memory runs out on the way; and leave the GPU as it was.

        Args:
            card: the model's own.
            parts: the networks by name, as attributes.

        Raises: InsufficientVram.
        """
        import torch

        need_gb = self.need_gb(
            Clip.of(spec),
            low_vram=spec.low_vram,
            conditioned=spec.conditioned or spec.segments > 1,
        )
        available_gb = need_gb if self._memory is None else self._memory.available_gb()
        if need_gb > available_gb:
            nearest = nearest_to(spec, card, self._figures, self.mode, available_gb)
            raise InsufficientVram(self._model, need_gb, available_gb, nearest.sentence)
        try:
            self._come_back(parts)
            self.step_aside(parts.vae, low_vram=spec.low_vram)
            yield
        except torch.OutOfMemoryError as error:
            left_gb = 0.0 if self._memory is None else self._memory.available_gb()
            raise InsufficientVram(self._model, need_gb, left_gb) from error
        finally:
            self._rest(parts)

    def take(self, network: Any) -> Any:
        """Return the network, now where it can work."""
        return network.to(self._device)

    def step_aside(self, network: Any, *, low_vram: bool) -> None:
        """Make room for the next phase, where the networks take turns."""
        if self._memory is not None and (low_vram or self.mode.take_turns):
            network.to("cpu")

    def held_gb(self) -> float:
        """Return what this process's tensors take of the GPU, in GB; 0 on the CPU."""
        return 0.0 if self._memory is None else self._memory.held_gb()

    def release(self) -> None:
        """Give back the memory of the GPU that no tensor needs any more."""
        if self._memory is not None:
            self._memory.release()

    def leave(self, parts: Any) -> None:
        """Move the weights to the CPU and give the GPU's memory back; the next `job` brings them
        back. Nothing on the CPU."""
        if self._memory is None:
            return
        for name in (*self._text_parts, "transformer", "vae"):
            getattr(parts, name).to("cpu")
        self._memory.release()
        self._has_left = True

    def _come_back(self, parts: Any) -> None:
        if self._has_left:
            for name in {*self._text_parts, "transformer", "vae"} - self.on_cpu:
                getattr(parts, name).to(self._device)
            self._has_left = False

    def _rest(self, parts: Any) -> None:
        if self._memory is None:
            return
        for name in ("transformer", "vae"):
            getattr(parts, name).to("cpu" if name in self.on_cpu else self._device)
        self._memory.release()


def use_threads(cpu_threads: int) -> None:
    """Let a model on the CPU use `cpu_threads` threads, 0 for all cores.

    Ray sets OMP_NUM_THREADS to the replica's share of the CPUs, which is a fraction.
    """
    import torch

    torch.set_num_threads(cpu_threads or len(os.sched_getaffinity(0)))
