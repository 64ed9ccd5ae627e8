"""A real backend without a network: it paints flat frames.

The prompt steers it: `slow` and `steady` take time at each step, `thorough` at each decoded run,
`fail` raises, `leak` keeps memory, `vram` is too large, and `vram for NAME` for that model only. So
does the model's name: `broken` cannot be loaded, `late` loads when `OPENING` is set, `opensora`
takes images, whose mean colour it paints, and makes long clips in segments. `PAINTER_LOAD_S` in the
environment is how long loading takes.
"""

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from deployments.core.checkpoints import Checkpoint, GenerationConfig, Published
from deployments.core.config import ModelConfig
from deployments.core.errors import InsufficientVram
from deployments.core.events import BackendEvent, Decoded, Notice, PhaseBegan, Step
from deployments.core.memory import Placement
from deployments.core.networks.figures import MochiFigures
from deployments.core.spec import ModelCard, VideoSpec

STEP_S = 0.05
OPENING = threading.Event()
# What it says of a GPU, which it does not need.
PLACEMENT: Placement | None = None
GENERATION = GenerationConfig(
    native_area=256 * 256, max_frames=163, num_inference_steps=8, guidance_scale=4.0
)


class Painter:
    published: ClassVar[Published] = Published(repo_id="nobody/painter", generation=GENERATION)
    bundled: ClassVar[str] = "mochi-tiny"

    @staticmethod
    def card(config: ModelConfig, checkpoint: Checkpoint) -> ModelCard:
        opensora = config.name.startswith("opensora")
        return ModelCard(
            name=config.name,
            checkpoint=checkpoint.label,
            bundled=checkpoint.bundled,
            native_area=GENERATION.native_area,
            max_frames=240 if opensora else GENERATION.max_frames,
            frame_step=4 if opensora else 6,
            segment_frames=17 if opensora else None,
            accepts_image=opensora,
            num_inference_steps=GENERATION.num_inference_steps,
            guidance_scale=GENERATION.guidance_scale,
        )

    @staticmethod
    def figures(checkpoint: Checkpoint) -> MochiFigures:
        return MochiFigures()

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, device: str) -> None:
        self._config, self._device = config, device
        self._held_gb = 0.0

    def load(self) -> None:
        if self._config.name.startswith("broken"):
            raise OSError("the painter has no paint")
        if self._config.name.startswith("late"):
            OPENING.wait(20)
        time.sleep(float(os.environ.get("PAINTER_LOAD_S", "0")))

    def placement(self) -> Placement | None:
        return PLACEMENT

    def held_gb(self) -> float:
        return self._held_gb

    def release(self) -> None:
        """Nothing that it holds by mistake comes back."""

    def leave_gpu(self) -> None:
        """Nothing of it lies on a GPU."""

    def generate(self, spec: VideoSpec, image: bytes | None = None) -> Iterator[BackendEvent]:
        assert (image is not None) == spec.conditioned
        _, vram, name = spec.prompt.partition("vram")
        if vram and name.removeprefix(" for ") in ("", self._config.name):
            raise InsufficientVram(self._config.name, 6.0, 4.2)
        if trace := os.environ.get("PAINTER_TRACE"):
            line = f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getpid()} {spec.prompt}\n"
            with Path(trace).open("a") as file:
                file.write(line)
        if "leak" in spec.prompt:
            self._held_gb += 1.25
        yield PhaseBegan("text")
        yield Notice("painted, not dreamt")
        colour = _mean(image) if image else (spec.seed % 256,) * 3
        first, step_s = 0, STEP_S * (10 if "slow" in spec.prompt else 1)
        for segment in range(spec.segments):
            yield from self._steps(spec, segment)
            yield PhaseBegan("decode")
            # The frame that a segment shares with the one before it is shown once.
            segment_frames = spec.generated_frames - (segment > 0)
            end = min(first + segment_frames, spec.num_frames)
            for begin in range(first, end, 6):
                time.sleep(step_s if "thorough" in spec.prompt else 0)
                shape = (min(6, end - begin), spec.generated_height, spec.generated_width, 3)
                yield Decoded(np.full(shape, colour, np.uint8), begin)
            first = end

    def _steps(self, spec: VideoSpec, segment: int) -> Iterator[BackendEvent]:
        step_s = STEP_S * (10 if "slow" in spec.prompt else 1 if "steady" in spec.prompt else 0)
        for step in range(1, spec.num_inference_steps + 1):
            time.sleep(step_s)
            if "fail" in spec.prompt and step == 2:
                raise RuntimeError("out of paint")
            yield Step(segment * spec.num_inference_steps + step, spec.total_steps)


def _mean(image: bytes) -> tuple[int, ...]:
    with Image.open(io.BytesIO(image)) as opened:
        assert (opened.format, opened.mode) == ("PNG", "RGB")
        return tuple(int(value) for value in np.asarray(opened).mean(axis=(0, 1)).round())


BACKEND = Painter
