"""When the sampler evaluates the network, and how strongly it is guided at each step.

Time runs from 1 (noise) to 0 (clean). Formulas: hpcaitech/Open-Sora@7ad6a96
opensora/utils/sampling.py. Knows no torch.
"""

from dataclasses import dataclass
from math import sqrt

# The shift of one latent frame is a line through (256 tokens, 1) and (4096 tokens, 3).
FEW_TOKENS, MANY_TOKENS = 256, 4096
FEW_SHIFT, MANY_SHIFT = 1.0, 3.0
# Guidance rests at every other step from this one on.
OSCILLATION_FROM = 10


def flow_shift(latent_frames: int, tokens_per_frame: int) -> float:
    """Return how far the schedule is shifted towards noise; larger clips are shifted further.

    Args:
        latent_frames: T = (frames - 1) // 4 + 1. Latent frames, not frames.
        tokens_per_frame: (height / 16) * (width / 16).
    """
    slope = (MANY_SHIFT - FEW_SHIFT) / (MANY_TOKENS - FEW_TOKENS)
    return (FEW_SHIFT + slope * (tokens_per_frame - FEW_TOKENS)) * sqrt(latent_frames)


def timesteps(num_steps: int, alpha: float) -> list[float]:
    """Return the time at each step's start, and 0.0 at the end: num_steps + 1 numbers.

    Args:
        num_steps: denoising steps, at least 1.
        alpha: the shift, above 0; 1 means equal steps.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, got {alpha}")
    even = [1 - step / num_steps for step in range(num_steps + 1)]
    # alpha * time / (1 + (alpha - 1) * time), written so that it is exactly 1 at 1.
    return [alpha * time / (alpha * time + (1 - time)) for time in even]


@dataclass(frozen=True)
class Guidance:
    """How strongly the prompt and the images pull; a scale of 1 means no guidance.

    Attributes:
        text: scale of the prompt against the negative prompt.
        image: scale of the given images against none; without images it has no effect.
        text_oscillation: from step 10 on, let every other step go unguided by text.
        image_oscillation: likewise for the images.
        temporal_image_scaling: let the images' scale grow along the clip, from 1 at its first
            frame, and fade over the steps.
    """

    text: float = 7.5
    image: float = 3.0
    text_oscillation: bool = True
    image_oscillation: bool = True
    temporal_image_scaling: bool = True

    def __post_init__(self) -> None:
        for name, scale in (("text", self.text), ("image", self.image)):
            if scale < 1:
                raise ValueError(f"guidance.{name} must be at least 1, got {scale}")

    def text_scale(self, step: int) -> float:
        """Return the text scale of `step`, which counts from 0."""
        return _oscillate(self.text, step) if self.text_oscillation else self.text

    def image_scales(self, step: int, num_steps: int, latent_frames: int) -> list[float]:
        """Return the image scale of each latent frame at `step`, which counts from 0."""
        scale = _oscillate(self.image, step) if self.image_oscillation else self.image
        if scale == 1 or not self.temporal_image_scaling:
            return [scale] * latent_frames
        # num_steps + 1 points from the scale to 1, of which this is the one of `step`.
        most = scale + (1 - scale) * step / num_steps
        return [
            1 + (most - 1) * frame / max(latent_frames - 1, 1) for frame in range(latent_frames)
        ]


def _oscillate(scale: float, step: int) -> float:
    return 1.0 if step >= OSCILLATION_FROM and step % 2 else scale
