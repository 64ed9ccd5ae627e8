"""A real backend without a network: it paints flat frames.

The prompt steers it: `slow` and `steady` take time at each step, `fail` raises, `vram` is too
large; a model whose name begins with `broken` cannot be loaded.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from deployments.core.checkpoints import Checkpoint, GenerationConfig, Published
from deployments.core.config import ModelConfig
from deployments.core.errors import InsufficientVram
from deployments.core.events import BackendEvent, Decoded, Notice, PhaseBegan, Step
from deployments.core.spec import ModelCard, VideoSpec

STEP_S = 0.05
GENERATION = GenerationConfig(
    native_area=256 * 256, max_frames=163, num_inference_steps=8, guidance_scale=4.0
)


class Painter:
    published: ClassVar[Published] = Published(repo_id="nobody/painter", generation=GENERATION)
    bundled: ClassVar[str] = "mochi-tiny"

    @staticmethod
    def card(config: ModelConfig, checkpoint: Checkpoint) -> ModelCard:
        return ModelCard(
            name=config.name,
            checkpoint=checkpoint.label,
            bundled=checkpoint.bundled,
            native_area=GENERATION.native_area,
            max_frames=GENERATION.max_frames,
            frame_step=6,
            accepts_image=False,
            num_inference_steps=GENERATION.num_inference_steps,
            guidance_scale=GENERATION.guidance_scale,
        )

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, device: str) -> None:
        self._config, self._device = config, device

    def load(self) -> None:
        if self._config.name.startswith("broken"):
            raise OSError("the painter has no paint")

    def generate(self, spec: VideoSpec, image: bytes | None = None) -> Iterator[BackendEvent]:
        if "vram" in spec.prompt:
            raise InsufficientVram(self._config.name, 6.0, 4.2)
        if trace := os.environ.get("PAINTER_TRACE"):
            line = f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()} {spec.prompt}\n"
            with Path(trace).open("a") as file:
                file.write(line)
        yield PhaseBegan("text")
        yield Notice("painted, not dreamt")
        for step in range(1, spec.num_inference_steps + 1):
            time.sleep(
                STEP_S * (10 if "slow" in spec.prompt else 1 if "steady" in spec.prompt else 0)
            )
            if "fail" in spec.prompt and step == 2:
                raise RuntimeError("out of paint")
            yield Step(step, spec.num_inference_steps)
        yield PhaseBegan("decode")
        for first in range(0, spec.num_frames, 6):
            count = min(6, spec.num_frames - first)
            shape = (count, spec.generated_height, spec.generated_width, 3)
            yield Decoded(np.full(shape, spec.seed % 256, np.uint8), first)


BACKEND = Painter
