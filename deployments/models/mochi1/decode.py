"""Turn Mochi's latents into frames as its authors do, a few latents at a time.

`AutoencoderKLMochi.decode` of diffusers 0.42.1 is not the authors' decode: they drop the first
`temporal_expansion - 1` frames after each temporal upsample, diffusers keeps them through the
following convolutions and drops five frames at the very end; short clips differ entirely. It also
decodes the whole clip at once, so that its memory grows with the number of frames.

Every convolution here is causal in time and remembers the last frames it saw; group normalisation
is per frame and the decoder has no attention. Decoding in time chunks is therefore exact. In space
it is not: the normalisation of a tile is that of its own pixels, and its borders see no neighbours.
The modules of the VAE are read, never changed; all state is in the caches of one call.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLMochi
from torch import nn
from torch.nn import functional

from deployments.models.convolution import convolve
from deployments.models.tiling import tile_by_tile

SIDE_PER_LATENT = 8

Caches = dict[str, torch.Tensor]
"""Per convolution, by its path in the decoder: the last frames of its input."""


@dataclass(frozen=True)
class Tiles:
    """How frames are cut to be decoded in less memory; overlaps are blended.

    Attributes:
        side: most height and width of a tile, in pixels.
        stride: distance of neighbouring tiles, in pixels.
    """

    side: int = 256
    stride: int = 192

    def __post_init__(self) -> None:
        if not 0 < self.stride < self.side:
            raise ValueError(f"stride must be below side, {self.side}: {self.stride}")
        if self.side % SIDE_PER_LATENT or self.stride % SIDE_PER_LATENT:
            raise ValueError(f"side and stride must be multiples of {SIDE_PER_LATENT}")


# As diffusers 0.42.1 autoencoder_kl_mochi.py cuts them.
LOW_MEMORY_TILES = Tiles()
# The caches of all tiles cross the bus once for so many latents.
LATENTS_PER_TILE = 4


@torch.no_grad()
def decode(
    vae: AutoencoderKLMochi,
    latents: torch.Tensor,
    chunk_latents: int = 1,
    *,
    frames_per_pass: int | None = None,
    tiles: Tiles | None = None,
) -> Iterator[torch.Tensor]:
    """Yield the clip's frames in order, one run of frames for each `chunk_latents` latents.

    Args:
        vae: only its decoder is used; `drop_last_temporal_frames`, tiling and slicing are not.
        latents: (1, 12, T, h, w), un-normalised: what the VAE's encoder gives.
        chunk_latents: latents decoded together. Memory grows with it, and not with T.
        frames_per_pass: see `decode_chunk`. 1 nearly halves the full-size decoder's memory (from
            18.3 to 10.2 kB a pixel, counted on the meta device); on a CPU it takes longer.
        tiles: the memory is that of one tile, whatever the size of a frame: the caches of the
            others rest on the CPU. None, and frames that fit into one tile, are exact.

    Yields:
        (1, 3, t, 8h, 8w), float32 in about [-1, 1]; t is 6 * chunk_latents, 5 less in the first
        run, which holds one frame for the first latent. On the CPU where there are several tiles.
    """
    if latents.ndim != 5 or latents.shape[0] != 1 or latents.shape[2] == 0:
        raise ValueError(f"latents must be (1, C, T, h, w), got {tuple(latents.shape)}")
    if chunk_latents < 1:
        raise ValueError(f"chunk_latents must be at least 1, got {chunk_latents}")
    latents = latents.to(vae.dtype)
    if tiles is not None and max(latents.shape[3:]) * SIDE_PER_LATENT > tiles.side:
        by_tile: defaultdict[int, Caches] = defaultdict(dict)
        for chunk in latents.split(chunk_latents, dim=2):
            yield _decode_tiles(vae, chunk, by_tile, frames_per_pass, tiles)
        return
    caches: Caches = {}
    for chunk in latents.split(chunk_latents, dim=2):
        yield decode_chunk(vae.decoder, chunk, caches, frames_per_pass).float()


def _decode_tiles(
    vae: AutoencoderKLMochi,
    latents: torch.Tensor,
    by_tile: defaultdict[int, Caches],
    frames_per_pass: int | None,
    tiles: Tiles,
) -> torch.Tensor:
    """Decode the next latents of a clip tile by tile; `by_tile` are the caches of each."""

    def decode_tile(tile: torch.Tensor, number: int) -> torch.Tensor:
        caches = by_tile[number]
        _move(caches, vae.device)
        frames = decode_chunk(vae.decoder, tile, caches, frames_per_pass).float().cpu()
        _move(caches, torch.device("cpu"))
        return frames

    side, stride = tiles.side // SIDE_PER_LATENT, tiles.stride // SIDE_PER_LATENT
    wholes = tile_by_tile(
        decode_tile, latents, side, stride, Fraction(SIDE_PER_LATENT), skip_covered=True
    )
    return next(whole for whole in wholes if whole is not None)


def _move(caches: Caches, device: torch.device) -> None:
    for name, past in caches.items():
        caches[name] = past.to(device)


def decode_chunk(
    decoder: nn.Module, latents: torch.Tensor, caches: Caches, frames_per_pass: int | None = None
) -> torch.Tensor:
    """Decode the next latents of a clip; gradients flow if they are enabled.

    Args:
        decoder: `vae.decoder`.
        latents: (B, 12, t, h, w), un-normalised, in the decoder's dtype.
        caches: empty at the start of a clip; updated in place and passed on to the next chunk.
        frames_per_pass: most frames that a block sees at a time, None for all. The result is the
            same; the memory of the high-resolution blocks is that of so many frames.

    Returns:
        (B, 3, t', 8h, 8w) in about [-1, 1].
    """
    stages = len(decoder.up_blocks) + 2

    def run(stage: int, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        if stage == stages:
            yield hidden
            return
        for part in hidden.split(frames_per_pass or hidden.shape[2], dim=2):
            yield from run(stage + 1, _stage(decoder, stage, part, caches))

    return torch.cat(list(run(0, latents)), dim=2)


def _stage(decoder: nn.Module, stage: int, hidden: torch.Tensor, caches: Caches) -> torch.Tensor:
    """Run one of: `block_in`, each of `up_blocks`, `block_out`; with the layers around them."""
    if stage == 0:
        hidden = decoder.conv_in(hidden)
        return _resnets(decoder.block_in, hidden, caches, "block_in")
    if stage <= len(decoder.up_blocks):
        name = f"up_blocks.{stage - 1}"
        return _up_block(decoder.up_blocks[stage - 1], hidden, caches, name)
    hidden = _resnets(decoder.block_out, hidden, caches, "block_out")
    hidden = decoder.nonlinearity(hidden)
    return decoder.proj_out(hidden.movedim(1, -1)).movedim(-1, 1)


def _up_block(block: nn.Module, hidden: torch.Tensor, caches: Caches, name: str) -> torch.Tensor:
    first = f"{name}.resnets.0.conv1" not in caches
    hidden = _resnets(block, hidden, caches, name)
    hidden = block.proj(hidden.movedim(1, -1))
    # Depth to space and time; the channels, here the last axis, hold (C, st, sh, sw).
    st, sh = block.temporal_expansion, block.spatial_expansion
    batch, frames, height, width, _ = hidden.shape
    hidden = hidden.unflatten(-1, (-1, st, sh, sh)).permute(0, 4, 1, 5, 2, 6, 3, 7)
    hidden = hidden.reshape(batch, -1, frames * st, height * sh, width * sh)
    # The first latent stands for one frame: genmoai/mochi@0c86aeb
    # src/genmo/mochi_preview/vae/models.py (DepthToSpaceTime, drop_first_n_frames).
    return hidden[:, :, st - 1 :] if first else hidden


def _resnets(block: nn.Module, hidden: torch.Tensor, caches: Caches, name: str) -> torch.Tensor:
    for i, resnet in enumerate(block.resnets):
        inner = resnet.nonlinearity(resnet.norm1(hidden))
        inner = _causal_conv(resnet.conv1, inner, caches, f"{name}.resnets.{i}.conv1")
        inner = resnet.nonlinearity(resnet.norm2(inner))
        inner = _causal_conv(resnet.conv2, inner, caches, f"{name}.resnets.{i}.conv2")
        hidden = hidden + inner
    return hidden


def _causal_conv(conv: nn.Module, hidden: torch.Tensor, caches: Caches, name: str) -> torch.Tensor:
    """Convolve after the frames that came before; at the start of a clip, after its first frame
    repeated."""
    past = caches.get(name)
    if past is None:
        past = hidden[:, :, :1].expand(-1, -1, conv.time_pad, -1, -1)
    hidden = torch.cat([past, hidden], dim=2)
    caches[name] = hidden[:, :, -conv.time_pad :].clone()
    pad = (conv.width_pad, conv.width_pad, conv.height_pad, conv.height_pad, 0, 0)
    return convolve(conv.conv, functional.pad(hidden, pad, mode="replicate"))


def denormalise(vae: AutoencoderKLMochi, latents: torch.Tensor) -> torch.Tensor:
    """Return the latents of the diffusion space (1, 12, T, h, w) in the VAE's own units, float32.

    From: diffusers 0.42.1 pipelines/mochi/pipeline_mochi.py (MochiPipeline.__call__).
    """
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean, device=latents.device).view(shape)
    std = torch.tensor(vae.config.latents_std, device=latents.device).view(shape)
    return latents.float() * std / vae.config.scaling_factor + mean


def to_uint8(frames: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Turn (1, 3, t, H, W) in [-1, 1] into uint8 (t, H, W, 3) on the CPU.

    Rounded as diffusers does for images: `VaeImageProcessor.denormalize`, then `numpy_to_pil`.
    """
    scaled = (frames[0] / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    array: npt.NDArray[np.uint8] = scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return array
