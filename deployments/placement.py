"""Where a model's networks lie on its GPU, job by job, as the memory plan says.

What the backends share: the CPU needs none of it, and there every question is answered by "stay".
torch is imported inside methods only.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from deployments.core import memory
from deployments.core.config import Weights
from deployments.core.errors import InsufficientVram
from deployments.core.events import Notice
from deployments.core.log import logger
from deployments.core.memory_fit import Nearest, nearest_to
from deployments.core.networks.model import Clip, ModelFigures
from deployments.core.spec import Lora, ModelCard, VideoSpec
from deployments.device_memory import DeviceMemory
from deployments.ladder import IN_TURNS, STREAMED, Attempt, Ladder, Rung, is_out_of_memory
from deployments.loras import Loras

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")

# A job whose memory ran out took more than planned: what is named in its place takes less by this.
PLAN_MARGIN = 0.1
# What may be on the GPU when all networks have left it: latents, embeddings, tables of positions.
LEFT_OVER_GB = 1.0


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
        self.device, self.text_parts = device, text_parts
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
            for name in self.networks:
                move(getattr(parts, name), "cpu")
            self._memory.release()

    @property
    def networks(self) -> tuple[str, ...]:
        """The parts that may lie on the GPU."""
        return ("transformer", "vae", *self.text_parts)

    @property
    def on_cpu(self) -> set[str]:
        """The parts that are not on the GPU between jobs: the card may be shared."""
        if self._memory is None:
            return set()
        on_cpu = set() if self.mode.text_on_gpu else set(self.text_parts)
        return on_cpu | ({"transformer", "vae"} if self.mode.take_turns else set())

    def notices(self) -> Iterator[Notice]:
        """Yield what a job has to say of how its networks are stored."""
        if not self.mode.is_exact:
            stored = memory.STORED[self.mode.transformer]
            yield Notice(f"The transformer's weights are {stored}, which changes the frames.")

    def need_gb(
        self, clip: Clip, *, low_vram: bool, conditioned: bool = False, loras: Sequence[Lora] = ()
    ) -> float:
        """Return the most GPU memory that a video takes here, in GB; see `memory.phases`."""
        figures = self._loras.counted(self._figures, loras)
        return memory.peak_gb(figures, clip, self.mode, low_vram=low_vram, conditioned=conditioned)

    @contextmanager
    def job(self, spec: VideoSpec, card: ModelCard, parts: Any) -> Iterator["PlacedJob"]:
        """Refuse a video that does not fit, and say what would; else yield the job that makes it,
        and leave the GPU as it was.

        Args:
            card: the model's own.
            parts: the networks by name, as attributes.

        Raises: InsufficientVram.
        """
        need_gb = self.need_gb(
            Clip.of(spec),
            low_vram=spec.low_vram,
            conditioned=spec.conditioned or spec.segments > 1,
            loras=spec.loras,
        )
        available_gb = need_gb if self._memory is None else self._memory.available_gb()
        if need_gb > available_gb:
            nearest = self._nearest_to(spec, card, available_gb)
            raise InsufficientVram(self._model, need_gb, available_gb, nearest.sentence)
        job = PlacedJob(
            self,
            parts,
            self._memory,
            low_vram=spec.low_vram,
            refusal=lambda: self._ran_out(spec, card, need_gb),
        )
        try:
            yield job
        finally:
            job.end()

    def rungs(self, *, low_vram: bool) -> list[Rung]:
        """Return what a job may still do when memory runs out, the fastest first."""
        if self._memory is None:
            return []
        in_turns_already = self.mode.take_turns or low_vram
        rungs = [] if in_turns_already and not self.mode.text_on_gpu else [IN_TURNS]
        return rungs if self.mode.transformer == "streamed" else [*rungs, STREAMED]

    def _nearest_to(self, spec: VideoSpec, card: ModelCard, available_gb: float) -> Nearest:
        figures = self._loras.counted(self._figures, spec.loras)
        return nearest_to(spec, card, figures, self.mode, available_gb)

    def _ran_out(self, spec: VideoSpec, card: ModelCard, need_gb: float) -> InsufficientVram:
        """Return the error of a job whose memory ran out on the way, on every rung."""
        available_gb = 0.0 if self._memory is None else self._memory.available_gb()
        fits_gb = min(available_gb, (1 - PLAN_MARGIN) * need_gb)
        nearest = self._nearest_to(spec, card, fits_gb)
        # More than planned, where the plan fits into what there is.
        need_gb = max(need_gb, available_gb)
        return InsufficientVram(self._model, need_gb, available_gb, nearest.sentence)


class PlacedJob:
    """The networks while one video is made.

    A phase is run by `run`, and says with `take` which network it needs.

    Args:
        placer: where the networks lie between jobs.
        parts: the networks by name, as attributes.
        device_memory: None where everything stays where it is.
        low_vram: the request asks for less memory: transformer and VAE take turns in any mode.
        refusal: makes the error for when memory has run out on every rung.
    """

    def __init__(
        self,
        placer: Placer,
        parts: Any,
        device_memory: DeviceMemory | None,
        *,
        low_vram: bool,
        refusal: Callable[[], InsufficientVram],
    ) -> None:
        self._placer, self._parts, self._memory = placer, parts, device_memory
        self._ladder = Ladder(placer.rungs(low_vram=low_vram), self._free, refusal)
        self._in_turns = placer.mode.take_turns or low_vram
        self._streams = False
        if self._in_turns:
            self._put_aside("vae")

    def run(
        self,
        phase: memory.PhaseName,
        attempt: Callable[Concatenate["PlacedJob", Inputs], Attempt[Result]],
        *args: Inputs.args,
        **kwargs: Inputs.kwargs,
    ) -> Attempt[Result]:
        """Run a phase: `attempt(self, *args)`, again on lower rungs where memory runs out; see
        `Ladder.run`."""
        return self._ladder.run(phase, lambda: attempt(self, *args, **kwargs))

    def take_text(self) -> None:
        """Have the text encoders where they read prompts."""
        if IN_TURNS in self._ladder.taken:
            self._put_aside("transformer", "vae")
        if self._placer.mode.text_on_gpu:
            for name in self._placer.text_parts:
                self._move(name, self._placer.device)

    def take(self, name: Literal["transformer", "vae"]) -> Any:
        """Return the network, where it can work; the others have left where they take turns."""
        if IN_TURNS in self._ladder.taken:
            self._put_aside(*self._placer.text_parts)
        if self._in_turns or IN_TURNS in self._ladder.taken:
            self._put_aside("vae" if name == "transformer" else "transformer")
        if name == "transformer" and STREAMED in self._ladder.taken:
            self._stream_transformer()
        return self._move(name, self._placer.device)

    def end(self) -> None:
        """Leave the networks where they lie between jobs."""
        if self._memory is None:
            return
        self._end_streaming()
        if not self._brought_back():
            logger.warning("the GPU has no room for what rests there between jobs")
            self._put_aside(*self._placer.networks)
        self._memory.release()

    def _move(self, name: str, device: str) -> Any:
        from deployments.models.weight_modes import move

        return move(getattr(self._parts, name), device)

    def _put_aside(self, *names: str) -> None:
        if self._memory is not None:
            for name in names:
                self._move(name, "cpu")

    def _free(self) -> bool:
        """Empty the GPU; return whether what a failed attempt took came back."""
        if self._memory is None:
            return False
        self._put_aside(*self._placer.networks)
        self._memory.release()
        left_gb = self._memory.held_gb()
        if left_gb > LEFT_OVER_GB:
            logger.warning("%.1f GB are still taken though all networks left the GPU", left_gb)
        return left_gb <= LEFT_OVER_GB

    def _stream_transformer(self) -> None:
        from deployments.models.streaming import stream

        if not self._streams:
            stream(self._move("transformer", "cpu"), self._placer.device)
            self._streams = True

    def _end_streaming(self) -> None:
        """Undo what `_stream_transformer` did, wherever a pass broke off."""
        from deployments.models.streaming import end_streaming

        if self._streams:
            end_streaming(self._parts.transformer)
            self._streams = False

    def _brought_back(self) -> bool:
        """Move each network to its place between jobs; return False where memory ran out."""
        try:
            for name in self._placer.networks:
                self._move(name, "cpu" if name in self._placer.on_cpu else self._placer.device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True


def use_threads(cpu_threads: int) -> None:
    """Let a model on the CPU use `cpu_threads` threads, 0 for all cores.

    Ray sets OMP_NUM_THREADS to the replica's share of the CPUs, which is a fraction.
    """
    import torch

    torch.set_num_threads(cpu_threads or len(os.sched_getaffinity(0)))
