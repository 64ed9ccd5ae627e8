"""What a model family's file, `deployments/<name>.py`, has to offer: its `BACKEND`, a `Backend`.

Knows no torch and no ray, so that the wiring and the command line may ask for cards and figures.
"""

import importlib
from collections.abc import Iterator
from typing import ClassVar, Protocol, cast

from deployments.core.checkpoints import Checkpoint, Published
from deployments.core.config import ModelConfig
from deployments.core.events import BackendEvent
from deployments.core.memory import Placement
from deployments.core.networks.model import ModelFigures
from deployments.core.spec import ModelCard, VideoSpec


class Backend(Protocol):
    """One model family. Its module, `deployments/<name>.py`, names the class in `BACKEND`."""

    published: ClassVar[Published]
    bundled: ClassVar[str]

    @staticmethod
    def card(config: ModelConfig, checkpoint: Checkpoint) -> ModelCard:
        """Return what the model can do with this checkpoint, without importing torch."""

    @staticmethod
    def figures(checkpoint: Checkpoint) -> ModelFigures:
        """Return what this checkpoint's networks take and compute, without importing torch.

        Raises: FileNotFoundError, ValueError: the checkpoint lacks a part, or says too little.
        """

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, device: str) -> None: ...

    def load(self) -> None:
        """Load the checkpoint; called once, on the model's thread. May take minutes."""

    def placement(self) -> Placement | None:
        """Return how the loaded networks lie on the GPU, and its memory now; None on the CPU."""

    def held_gb(self) -> float:
        """Return what this process's tensors take of the GPU, in GB; 0 on the CPU.

        Raises: RuntimeError: the GPU does not work any more.
        """

    def release(self) -> None:
        """Give back the memory of the GPU that no tensor needs any more."""

    def leave_gpu(self) -> None:
        """Move the weights to the CPU and give the GPU's memory back; the next `generate` brings
        them back. Called between jobs, on the model's thread. Nothing on the CPU."""

    def generate(self, spec: VideoSpec, image: bytes | None = None) -> Iterator[BackendEvent]:
        """Make the video; each step of the iterator does at most one denoising step or one decode
        chunk. Closing the iterator stops the work and leaves the model fit for the next job.

        Args: image: the first frame, as `core.images` left it: a PNG of 8-bit RGB; there when
            `spec.conditioned`, and only then.
        """


def backend_class(config: ModelConfig) -> type[Backend]:
    """Return the backend of a configured model. Raises ValueError when there is no such module."""
    module = config.backend or f"deployments.{config.name}"
    try:
        return cast(type[Backend], importlib.import_module(module).BACKEND)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"models: {config.name!r} is not a model: no module {module} with a BACKEND"
        ) from error
