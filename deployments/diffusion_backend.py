"""What the model families' backends share: networks placed on a device, and the loop of steps.

torch is imported inside methods only, so that the wiring may ask a backend for its card without it.
"""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from deployments.core.checkpoints import Checkpoint
from deployments.core.config import ModelConfig
from deployments.core.events import Notice, Preview, Step
from deployments.core.memory import Placement
from deployments.core.networks.model import Clip, ModelFigures
from deployments.core.qualities import Reuse
from deployments.core.spec import ModelCard, VideoSpec
from deployments.device_memory import memory_of
from deployments.kernels import Kernels
from deployments.ladder import Attempt
from deployments.loras import Loras
from deployments.placement import Placer

if TYPE_CHECKING:
    import torch

    from deployments.models.loading import Family
    from deployments.models.previewing import PreviewMap


class Denoised(Protocol):
    """The state after one step, as a family's sampler yields it."""

    @property
    def step(self) -> int:
        """Counts from 1."""

    @property
    def latents(self) -> "torch.Tensor":
        """(1, C, T, h, w); after the last step, the result."""

    @property
    def predicted(self) -> "torch.Tensor":
        """Like `latents`: the clean latents as the model foresees them."""


class EncodedPrompt(Protocol):
    """A prompt that was read, perhaps not to its end."""

    @property
    def truncated(self) -> bool:
        """Whether its end was not read."""


class DiffusionBackend:
    """A backend that denoises latents with a transformer and decodes them with an autoencoder.

    Args:
        card: what the model can do with this checkpoint.
        device: "cpu", or "cuda" for the first GPU that this process sees.
        text_parts: which of the networks encode text.
    """

    _parts: Any
    _preview_map: "PreviewMap | None"

    def __init__(
        self,
        config: ModelConfig,
        checkpoint: Checkpoint,
        card: ModelCard,
        device: str,
        text_parts: tuple[str, ...],
    ) -> None:
        self._name, self._cpu_threads = config.name, config.cpu_threads
        self._checkpoint, self._card, self._device = checkpoint, card, device
        self._loras = Loras(config.loras_dir)
        self._kernels = Kernels(config, device)
        device_memory = memory_of(device, config.memory_fraction)
        self._placer = Placer(
            config.name, device, text_parts, device_memory, self._loras, config.weights
        )

    def placement(self) -> Placement | None:
        """Return how the loaded networks lie on the GPU, and its memory now; None on the CPU."""
        return self._placer.placement()

    def held_gb(self) -> float:
        """Return what this process's tensors take of the GPU, in GB; 0 on the CPU."""
        return self._placer.held_gb()

    def release(self) -> None:
        """Give back the memory of the GPU that no tensor needs any more."""
        self._placer.release()

    def leave_gpu(self) -> None:
        """Move the weights to the CPU and give the GPU's memory back."""
        self._placer.leave(self._parts)

    def _prepare(
        self,
        family: "Family",
        figures: Callable[[Checkpoint], ModelFigures],
        latent_channels: int,
    ) -> None:
        """Do what comes before the weights: check the checkpoint, and decide on its placement.

        Raises: as `load`.
        """
        from deployments.models.loading import local_folder
        from deployments.models.previewing import PreviewMap

        if self._device == "cpu":
            _use_threads(self._cpu_threads)
        folder = local_folder(self._checkpoint.source)
        family.check_folder(folder)
        self._preview_map = PreviewMap.read(folder, latent_channels)
        generation = self._checkpoint.generation
        largest = Clip.largest(generation.native_area, generation.max_frames)
        self._placer.plan(figures(self._checkpoint), largest)
        self._kernels.check(self._placer.mode.transformer)

    def _take_steps(
        self,
        spec: VideoSpec,
        transformer: Any,
        steps: "Generator[Denoised, None, None]",
        made: Reuse,
        taken: int = 0,
    ) -> "Attempt[torch.Tensor]":
        """Run the sampler's steps as `spec` asks: with LoRAs, step cache and previews.

        Args:
            transformer: the one that the sampler calls.
            made: the passes are added to this.
            taken: the steps of the video before these.

        Returns: the latents after the last step.
        """
        from deployments.models.previewing import Previews
        from deployments.models.step_cache import step_cache

        previews = Previews(self._preview_map, spec.total_steps)
        with (
            self._loras.active(spec.loras, transformer),
            step_cache(transformer, spec.fast_threshold) as cache,
            closing(steps),
        ):
            for state in steps:
                latents = state.latents
                step = taken + state.step
                yield Step(step, spec.total_steps)
                if picture := previews.after(step, state.predicted):
                    yield Preview(step, picture)
        made.add(cache.passes, cache.reused)
        return latents


def truncation_notices(
    title: str, max_tokens: int, prompt: EncodedPrompt, negative: EncodedPrompt
) -> Iterator[Notice]:
    """Yield what a job has to say of prompts that the model `title` did not read to their end."""
    for name, encoded in (("prompt", prompt), ("negative prompt", negative)):
        if encoded.truncated:
            yield Notice(
                f"The {name} is longer than the {max_tokens} tokens that {title} reads; its end "
                "was left out."
            )


def _use_threads(cpu_threads: int) -> None:
    """Let a model on the CPU use `cpu_threads` threads, 0 for all cores.

    Ray sets OMP_NUM_THREADS to the replica's share of the CPUs, which is a fraction.
    """
    import torch

    torch.set_num_threads(cpu_threads or len(os.sched_getaffinity(0)))
