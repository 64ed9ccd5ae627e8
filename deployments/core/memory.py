"""How much GPU memory a video takes, from formulas; a share such as `num_gpus: 0.5` reserves none.

The constants are tensor bytes counted on the full-size networks (on the meta device, with every
live storage tracked), for bfloat16 weights. Smaller networks of the family take less.
"""

from dataclasses import dataclass

from deployments.core.errors import InsufficientVram
from deployments.core.spec import AREA_TOLERANCE, PATCH, VideoSpec

GIB = 2**30

# Mochi: the transformer's activations at batch 1, with attention that keeps no N x N matrix.
MOCHI_BYTES_PER_TOKEN = 97e3
# Mochi: decoding one latent and one frame at a time takes 10.2 kB a pixel of a frame, of which 6.5
# are carried convolution inputs; and a quarter for cuDNN's workspaces.
MOCHI_DECODE_BYTES_PER_PIXEL = 12.7e3
# One latent is 8 x 8 pixels of 6 frames, one token is 2 x 2 latents.
MOCHI_FRAMES_PER_LATENT = 6
# Open-Sora: as above, of the visual tokens and the 512 of the text together.
OPENSORA_BYTES_PER_TOKEN = 106e3
OPENSORA_TEXT_TOKENS = 512
OPENSORA_FRAMES_PER_LATENT = 4
# Open-Sora: its autoencoder works on tiles of 256 x 256 pixels: over the whole length as its
# authors do, or on 65 frames at a time. 2.26 kB a pixel and frame of the tile, and a quarter for
# cuDNN's workspaces; finished tiles go to the host.
OPENSORA_TILE_SIDE, OPENSORA_TILE_FRAMES = 256, 65
OPENSORA_DECODE_BYTES_PER_PIXEL = 2.8e3
TOKEN_SIDE = 16
# CUDA context, cuBLAS and cuDNN workspaces, fragmentation.
OVERHEAD_GB = 1.5


@dataclass(frozen=True)
class Clip:
    """The size of what a network generates, in pixels and frames."""

    width: int
    height: int
    num_frames: int

    @classmethod
    def of(cls, spec: VideoSpec) -> "Clip":
        """Return the clip that the network makes for `spec`, or each segment of it."""
        return cls(spec.generated_width, spec.generated_height, spec.generated_frames)

    @classmethod
    def largest(cls, native_area: int, max_frames: int) -> "Clip":
        """Return the largest clip that a checkpoint generates: longest, and a square of most
        area."""
        side = int((native_area * AREA_TOLERANCE) ** 0.5) // PATCH * PATCH
        return cls(side, side, max_frames)


@dataclass(frozen=True)
class Weights:
    """The sizes of a model's networks, in GiB, as they lie in memory; text encoders together."""

    transformer_gb: float
    text_encoder_gb: float
    vae_gb: float


@dataclass(frozen=True)
class Activations:
    """What a clip takes besides the weights, in GiB, in each of the two phases that count."""

    denoise_gb: float
    decode_gb: float


@dataclass(frozen=True)
class Placement:
    """Which networks lie on the GPU, and when.

    Attributes:
        text_on_gpu: False keeps the text encoder on the CPU: a prompt takes seconds longer.
        take_turns: True keeps the transformer on the GPU only while it denoises, and the VAE only
            while it works; moving them costs a few seconds a video.
    """

    text_on_gpu: bool
    take_turns: bool


# From fast and large to slow and small.
PLACEMENTS = (
    Placement(text_on_gpu=True, take_turns=False),
    Placement(text_on_gpu=False, take_turns=False),
    Placement(text_on_gpu=False, take_turns=True),
)


def tokens(clip: Clip, frames_per_latent: int) -> int:
    """Return the number of visual tokens that a transformer sees for `clip`."""
    latents = (clip.num_frames - 1) // frames_per_latent + 1
    return latents * (clip.height // TOKEN_SIDE) * (clip.width // TOKEN_SIDE)


def mochi_activations(clip: Clip) -> Activations:
    """Return what Mochi takes for `clip` besides its weights."""
    return Activations(
        MOCHI_BYTES_PER_TOKEN * tokens(clip, MOCHI_FRAMES_PER_LATENT) / GIB,
        MOCHI_DECODE_BYTES_PER_PIXEL * clip.width * clip.height / GIB,
    )


def opensora_activations(clip: Clip, *, tiled_in_time: bool = False) -> Activations:
    """Return what Open-Sora takes for `clip` besides its weights.

    Args:
        tiled_in_time: decode some frames at a time, which takes less and is not quite the same.
    """
    seen = tokens(clip, OPENSORA_FRAMES_PER_LATENT) + OPENSORA_TEXT_TOKENS
    width, height = (min(side, OPENSORA_TILE_SIDE) for side in (clip.width, clip.height))
    frames = min(clip.num_frames, OPENSORA_TILE_FRAMES) if tiled_in_time else clip.num_frames
    decode = OPENSORA_DECODE_BYTES_PER_PIXEL * width * height * frames
    return Activations(OPENSORA_BYTES_PER_TOKEN * seen / GIB, decode / GIB)


def need_gb(activations: Activations, weights: Weights, placement: Placement) -> float:
    """Return the most GPU memory, in GiB, that a video takes, weights and overhead included.

    Denoising and decoding follow each other, so the larger of the two counts.
    """
    denoise_gb, decode_gb = activations.denoise_gb, activations.decode_gb
    if placement.take_turns:
        peak = max(weights.transformer_gb + denoise_gb, weights.vae_gb + decode_gb)
    else:
        peak = weights.transformer_gb + weights.vae_gb + max(denoise_gb, decode_gb)
    return peak + OVERHEAD_GB + (weights.text_encoder_gb if placement.text_on_gpu else 0.0)


def fastest_placement(largest: Activations, weights: Weights, available_gb: float) -> Placement:
    """Return the fastest placement under which the `largest` clip fits, else the smallest one."""
    for placement in PLACEMENTS:
        if need_gb(largest, weights, placement) <= available_gb:
            return placement
    return PLACEMENTS[-1]


def refuse_too_large(model: str, need: float, available_gb: float) -> None:
    """Raise InsufficientVram unless `need` GiB are available."""
    if need > available_gb:
        raise InsufficientVram(model, need, available_gb)
