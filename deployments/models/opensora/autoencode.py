"""Between frames and latents: images in the authors' way, and decoding that can be stopped.

The autoencoder is HunyuanVideo's. diffusers' `AutoencoderKLHunyuanVideo` chooses tiles by its own
attributes, which by default are not the authors' (tiles in time, none in space), and decodes a clip
in one call. Here the tiles are an argument, the autoencoder's attributes are neither read nor
changed, and control returns after every tile.

B clips, T latent frames of n = 4 (T - 1) + 1 frames, H x W pixels, h = H / 8, w = W / 8. Latents
are scaled: the encoder's mean times `scaling_factor`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.utils.accelerate_utils import apply_forward_hook
from PIL import Image

from deployments.models.tiling import tile_by_tile

FRAMES_PER_LATENT, SIDE_PER_LATENT = 4, 8


@dataclass(frozen=True)
class Tiling:
    """How a clip is cut for the autoencoder, in pixels and frames; overlaps are blended.

    Attributes:
        side: most height and width of a tile.
        side_stride: distance of neighbouring tiles.
        frames: most frames of a tile, without its first; None decodes all frames together.
        frames_stride: distance of consecutive tiles in frames.
    """

    side: int = 256
    side_stride: int = 192
    frames: int | None = None
    frames_stride: int = 48

    def __post_init__(self) -> None:
        if not 0 < self.side_stride < self.side:
            raise ValueError(f"side_stride must be below side, {self.side}: {self.side_stride}")
        if self.side % SIDE_PER_LATENT or self.side_stride % SIDE_PER_LATENT:
            raise ValueError(f"side and side_stride must be multiples of {SIDE_PER_LATENT}")
        if self.frames is None:
            return
        if not 0 < self.frames_stride < self.frames:
            raise ValueError(f"frames_stride must be below frames, {self.frames}")
        if self.frames % FRAMES_PER_LATENT or self.frames_stride % FRAMES_PER_LATENT:
            raise ValueError(f"frames and frames_stride must be multiples of {FRAMES_PER_LATENT}")


# hpcaitech/Open-Sora@7ad6a96: spatial tiling on (256 px, 25 % overlap), temporal tiling off.
AUTHORS_TILING = Tiling()
# Tencent's own setting for HunyuanVideo. Memory does not grow with the clip; a few frames at each
# seam differ slightly.
LOW_MEMORY_TILING = Tiling(frames=64, frames_stride=48)


def preprocess_image(image: Image.Image, height: int, width: int) -> torch.Tensor:
    """Resize `image` so that it fills the frame, and cut what is over equally on both sides.

    hpcaitech/Open-Sora@7ad6a96 opensora/datasets/utils.py (resize_crop_to_fill): bicubic, the other
    side rounded. diffusers' VideoProcessor rounds it down instead.

    Args:
        image: mode RGB, upright.
        height: of the frame, in pixels.
        width: of the frame, in pixels.

    Returns:
        (1, 3, height, width), float32 in [-1, 1].
    """
    if image.mode != "RGB":
        raise ValueError(f"image must be RGB, got {image.mode}")
    by_height, by_width = height / image.height, width / image.width
    if by_height > by_width:
        size = (round(image.width * by_height), height)
    else:
        size = (width, round(image.height * by_width))
    left, top = (round((size[0] - width) / 2), round((size[1] - height) / 2))
    resized = image.resize(size, Image.Resampling.BICUBIC)
    pixels = np.array(resized.crop((left, top, left + width, top + height)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 * 2 - 1


@torch.no_grad()
def encode_frames(
    vae: AutoencoderKLHunyuanVideo, frames: torch.Tensor, tiling: Tiling = AUTHORS_TILING
) -> torch.Tensor:
    """Return the scaled latents of `frames`: the most likely ones.

    The authors draw from the posterior instead, without a seed; that cannot be repeated.

    Args:
        vae: only its encoder is used.
        frames: (B, 3, n, H, W) in [-1, 1], n = 4k + 1; a single frame is an image.
        tiling: of the pixels; all frames are encoded together.

    Returns:
        (B, 16, T, h, w), float32, on the VAE's device.
    """
    if frames.ndim != 5 or frames.shape[1] != 3 or frames.shape[2] % FRAMES_PER_LATENT != 1:
        raise ValueError(f"frames must be (B, 3, 4k + 1, H, W), got {tuple(frames.shape)}")
    if frames.shape[3] % SIDE_PER_LATENT or frames.shape[4] % SIDE_PER_LATENT:
        raise ValueError(f"H and W must be multiples of 8, got {tuple(frames.shape[3:])}")
    tiles = tile_by_tile(
        lambda tile, _: _encode_tile(vae, tile),
        frames,
        tiling.side,
        tiling.side_stride,
        Fraction(1, SIDE_PER_LATENT),
    )
    moments = next(whole for whole in tiles if whole is not None)
    mean, _ = moments.chunk(2, dim=1)
    scaled: torch.Tensor = mean * vae.config.scaling_factor
    return scaled


@torch.no_grad()
def decode(
    vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor, tiling: Tiling = AUTHORS_TILING
) -> Iterator[torch.Tensor]:
    """Yield the clip's frames in order; control returns after each tile.

    After a tile that completes no frame, what is yielded has no frames. So the caller can stop
    within the time of one tile, and otherwise may treat every run alike.

    Args:
        vae: only its decoder is used.
        latents: (B, 16, T, h, w), scaled.
        tiling: with `AUTHORS_TILING` all frames come at the end, as the authors decode them; with
            `LOW_MEMORY_TILING` 49 frames come first, then 48 at a time.

    Yields:
        (B, 3, t, H, W), float32 in about [-1, 1], on the CPU; t may be 0.
    """
    channels = vae.config.latent_channels
    if latents.ndim != 5 or latents.shape[1] != channels or latents.shape[2] == 0:
        raise ValueError(f"latents must be (B, {channels}, T, h, w), got {tuple(latents.shape)}")

    latents = latents.float() / vae.config.scaling_factor
    batch, _, _, height, width = latents.shape
    nothing = torch.empty(batch, 3, 0, height * SIDE_PER_LATENT, width * SIDE_PER_LATENT)
    side, stride = tiling.side // SIDE_PER_LATENT, tiling.side_stride // SIDE_PER_LATENT
    overlap = nothing
    for part, is_first, kept in _parts_in_time(latents, tiling):
        frames = nothing
        for whole in tile_by_tile(
            lambda tile, _: _decode_tile(vae, tile), part, side, stride, Fraction(SIDE_PER_LATENT)
        ):
            if whole is None:
                yield nothing
            else:
                frames = whole
        if not is_first:
            # A part's first latent is decoded as if nothing came before; its frame is left out.
            frames = vae.blend_t(overlap, frames[:, :, 1:], overlap.shape[2])
        overlap = frames[:, :, kept:].clone()
        yield frames[:, :, :kept]


def to_uint8(frames: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Turn (1, 3, t, H, W) in [-1, 1] into uint8 (t, H, W, 3) on the CPU; what lies beyond is cut.

    hpcaitech/Open-Sora@7ad6a96 rounds likewise: 255 * x + 0.5, cut to a whole number.
    """
    scaled = (frames[0] / 2 + 0.5).clamp(0, 1).mul(255).add(0.5).to(torch.uint8)
    array: npt.NDArray[np.uint8] = scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return array


def _parts_in_time(
    latents: torch.Tensor, tiling: Tiling
) -> Iterator[tuple[torch.Tensor, bool, int]]:
    """Yield overlapping runs of latents, whether it is the first, and the frames to keep of each.

    Cut as by diffusers 0.42.1 autoencoder_kl_hunyuan_video.py (_temporal_tiled_decode).
    """
    num_latents = latents.shape[2]
    num_frames = FRAMES_PER_LATENT * (num_latents - 1) + 1
    if tiling.frames is None or num_latents <= tiling.frames // FRAMES_PER_LATENT:
        yield latents, True, num_frames
        return
    length, stride = tiling.frames // FRAMES_PER_LATENT, tiling.frames_stride // FRAMES_PER_LATENT
    # The first latent stands for one frame, which only the first part keeps.
    yield latents[:, :, : length + 1], True, tiling.frames_stride + 1
    for start in range(stride, num_latents - 1, stride):
        left = num_frames - (FRAMES_PER_LATENT * start + 1)
        part = latents[:, :, start : start + length + 1]
        yield part, False, min(tiling.frames_stride, left)


# As the VAE's own `encode` and `decode`: brings its weights back where a pipeline offloads them.
@apply_forward_hook
def _encode_tile(vae: AutoencoderKLHunyuanVideo, frames: torch.Tensor) -> torch.Tensor:
    return vae.quant_conv(vae.encoder(frames.to(vae.device, vae.dtype))).float()


@apply_forward_hook
def _decode_tile(vae: AutoencoderKLHunyuanVideo, latents: torch.Tensor) -> torch.Tensor:
    return vae.decoder(vae.post_quant_conv(latents.to(vae.device, vae.dtype))).float().cpu()
