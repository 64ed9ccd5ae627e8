"""How much GPU memory a video takes, from formulas; a share such as `num_gpus: 0.5` reserves none.

The constants are tensor bytes counted on the full-size networks (on the meta device, with every
live storage tracked), for bfloat16 weights. Smaller networks of the family take less.
"""

from dataclasses import dataclass

from deployments.core.errors import InsufficientVram
from deployments.core.spec import VideoSpec

GIB = 2**30

# Mochi: the transformer's activations at batch 1, with attention that keeps no N x N matrix.
MOCHI_BYTES_PER_TOKEN = 97e3
# Mochi: decoding one latent and one frame at a time takes 10.2 kB a pixel of a frame, of which 6.5
# are carried convolution inputs; and a quarter for cuDNN's workspaces.
MOCHI_DECODE_BYTES_PER_PIXEL = 12.7e3
# CUDA context, cuBLAS and cuDNN workspaces, fragmentation.
OVERHEAD_GB = 1.5
# One latent is 8 x 8 pixels of 6 frames, one token is 2 x 2 latents.
MOCHI_TOKEN_SIDE, MOCHI_FRAMES_PER_LATENT = 16, 6


@dataclass(frozen=True)
class Clip:
    """The size of what a network generates, in pixels and frames."""

    width: int
    height: int
    num_frames: int

    @classmethod
    def of(cls, spec: VideoSpec) -> "Clip":
        """Return the clip that the network makes for `spec`."""
        return cls(spec.generated_width, spec.generated_height, spec.generated_frames)


@dataclass(frozen=True)
class Weights:
    """The sizes of a model's networks, in GiB, as they lie in memory."""

    transformer_gb: float
    text_encoder_gb: float
    vae_gb: float


@dataclass(frozen=True)
class Placement:
    """Which networks lie on the GPU, and when.

    Attributes:
        text_on_gpu: False keeps the text encoder on the CPU: a prompt takes seconds longer.
        take_turns: True keeps the transformer on the GPU only while it denoises, and the VAE only
            while it decodes; moving them costs a few seconds a video.
    """

    text_on_gpu: bool
    take_turns: bool


# From fast and large to slow and small.
PLACEMENTS = (
    Placement(text_on_gpu=True, take_turns=False),
    Placement(text_on_gpu=False, take_turns=False),
    Placement(text_on_gpu=False, take_turns=True),
)


def mochi_tokens(clip: Clip) -> int:
    """Return the number of visual tokens that Mochi's transformer sees for `clip`."""
    latents = (clip.num_frames - 1) // MOCHI_FRAMES_PER_LATENT + 1
    return latents * (clip.height // MOCHI_TOKEN_SIDE) * (clip.width // MOCHI_TOKEN_SIDE)


def mochi_need_gb(clip: Clip, weights: Weights, placement: Placement) -> float:
    """Return the most GPU memory, in GiB, that making `clip` takes, weights and overhead included.

    Denoising and decoding follow each other, so the larger of the two counts.
    """
    denoising = MOCHI_BYTES_PER_TOKEN * mochi_tokens(clip) / GIB
    decoding = MOCHI_DECODE_BYTES_PER_PIXEL * clip.width * clip.height / GIB
    if placement.take_turns:
        peak = max(weights.transformer_gb + denoising, weights.vae_gb + decoding)
    else:
        peak = weights.transformer_gb + weights.vae_gb + max(denoising, decoding)
    return peak + OVERHEAD_GB + (weights.text_encoder_gb if placement.text_on_gpu else 0.0)


def mochi_placement(largest: Clip, weights: Weights, available_gb: float) -> Placement:
    """Return the fastest placement under which the `largest` clip fits, else the smallest one."""
    for placement in PLACEMENTS:
        if mochi_need_gb(largest, weights, placement) <= available_gb:
            return placement
    return PLACEMENTS[-1]


def refuse_too_large(model: str, need_gb: float, available_gb: float) -> None:
    """Raise InsufficientVram unless `need_gb` is available."""
    if need_gb > available_gb:
        raise InsufficientVram(model, need_gb, available_gb)
