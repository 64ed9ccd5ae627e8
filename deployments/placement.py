"""Where a model's networks lie on its GPU, job by job, as the memory plan says.

What the backends share: the CPU needs none of it, and there every question is answered by "stay".
torch is imported inside methods only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deployments.core import memory
from deployments.core.config import Weights
from deployments.core.errors import InsufficientVram
from deployments.core.events import Notice
from deployments.core.memory_fit import Nearest, nearest_to
from deployments.core.networks.model import Clip, ModelFigures
from deployments.core.spec import ModelCard, VideoSpec
from deployments.device_memory import DeviceMemory
from deployments.loras import Loras
from deployments.placed_job import PlacedJob

# A job whose memory ran out took more than planned: what is named in its place takes less by this.
PLAN_MARGIN = 0.1


class Placer:
    """The networks of one loaded model.

    Args:
        model: the name that a refusal gives.
        device: "cpu", or "cuda" for the first GPU that this process sees.
        text_parts: which of the parts encode text; they stay on the CPU when memory is short.
        device_memory: None where it is not planned, and everything stays where it is.
        loras: the model's LoRA files, which take memory in the jobs that ask for them.
        weights: how the transformer is stored; "auto" takes the fastest way that fits.
    """

    def __init__(
        self,
        model: str,
        device: str,
        text_parts: tuple[str, ...],
        device_memory: DeviceMemory | None,
        loras: Loras | None = None,
        weights: Weights = "auto",
    ) -> None:
        self._model, self._memory, self._loras = model, device_memory, loras or Loras("")
        self._weights = weights
        self._figures: ModelFigures
        self._device, self._text_parts = device, text_parts
        self.mode = memory.Mode(transformer="resident" if weights == "auto" else weights)

    def plan(self, figures: ModelFigures, largest: Clip) -> None:
        """Decide on `mode` for this GPU and these networks, so that the `largest` clip fits."""
        self._figures = figures
        if self._memory is not None:
            self._memory.limit()
            available_gb = self._memory.available_gb()
            self.mode = memory.fastest_mode(figures, largest, available_gb, self._weights)

    def placement(self) -> memory.Placement | None:
        """Return the mode and the GPU's memory as they are now; None on the CPU."""
        if self._memory is None:
            return None
        return memory.Placement(
            mode=self.mode,
            available_gb=self._memory.available_gb(),
            total_gb=self._memory.total_gb(),
        )

    def held_gb(self) -> float:
        """Return what this process's tensors take of the GPU, in GB; 0 on the CPU."""
        return 0.0 if self._memory is None else self._memory.held_gb()

    def release(self) -> None:
        """Give back the memory of the GPU that no tensor needs any more."""
        if self._memory is not None:
            self._memory.release()

    def leave(self, parts: Any) -> None:
        """Move the weights to the CPU and give the GPU's memory back; the next job brings each
        network back as it needs it. Nothing on the CPU."""
        from deployments.models.weight_modes import move

        if self._memory is not None:
            for name in self._places:
                move(getattr(parts, name), "cpu")
            self._memory.release()

    @property
    def _places(self) -> dict[str, str]:
        """Where each network lies between jobs."""
        names = ("transformer", "vae", *self._text_parts)
        return {name: "cpu" if name in self.on_cpu else self._device for name in names}

    @property
    def on_cpu(self) -> set[str]:
        """The parts that are not on the GPU between jobs: the card may be shared."""
        if self._memory is None:
            return set()
        on_cpu = set() if self.mode.text_on_gpu else set(self._text_parts)
        return on_cpu | ({"transformer", "vae"} if self.mode.take_turns else set())

    def notices(self) -> Iterator[Notice]:
        """Yield what a job has to say of how its networks are stored."""
        if not self.mode.is_exact:
            stored = memory.STORED[self.mode.transformer]
            yield Notice(f"The transformer's weights are {stored}, which changes the frames.")

    def need_gb(self, spec: VideoSpec) -> float:
        """Return the most GPU memory that a video takes here, in GB."""
        return memory.need_gb(self._figures_with(spec), spec, self.mode)

    @contextmanager
    def job(
        self, spec: VideoSpec, card: ModelCard, parts: Any, stand_in: Any = None
    ) -> Iterator[PlacedJob]:
        """Refuse a video that does not fit, and say what would; else yield the job that makes it,
        and leave the GPU as it was.

        Args:
            card: the model's own.
            parts: the networks by name, as attributes.
            stand_in: a transformer no larger than that of `parts`, to work in its place.

        Raises: InsufficientVram.
        """
        need_gb = self.need_gb(spec)
        available_gb = need_gb if self._memory is None else self._memory.available_gb()
        if need_gb > available_gb:
            nearest = self._nearest_to(spec, card, available_gb)
            raise InsufficientVram(self._model, need_gb, available_gb, nearest.sentence)
        job = PlacedJob(
            parts,
            self._places,
            self._device,
            self.mode,
            self._memory,
            stand_in=stand_in,
            low_vram=spec.low_vram,
            refusal=lambda: self._ran_out(spec, card, need_gb),
        )
        try:
            yield job
        finally:
            job.end()

    def _nearest_to(self, spec: VideoSpec, card: ModelCard, available_gb: float) -> Nearest:
        return nearest_to(spec, card, self._figures_with(spec), self.mode, available_gb)

    def _figures_with(self, spec: VideoSpec) -> ModelFigures:
        return self._loras.counted(self._figures, spec.loras)

    def _ran_out(self, spec: VideoSpec, card: ModelCard, need_gb: float) -> InsufficientVram:
        """Return the error of a job whose memory ran out on the way, on every rung."""
        available_gb = 0.0 if self._memory is None else self._memory.available_gb()
        fits_gb = min(available_gb, (1 - PLAN_MARGIN) * need_gb)
        nearest = self._nearest_to(spec, card, fits_gb)
        # More than planned, where the plan fits into what there is.
        need_gb = max(need_gb, available_gb)
        return InsufficientVram(self._model, need_gb, available_gb, nearest.sentence)
