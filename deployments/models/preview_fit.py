"""Fits the map behind the previews to a checkpoint: least squares on its autoencoder's encodings.

The clips that are encoded are drawn here, or given: any will do that show every colour beside every
other. Needs the autoencoder alone, and takes seconds for a small one, minutes for a large one on a
CPU.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLMochi
from torch.nn import functional

from deployments.models.loading import stored_variant
from deployments.models.opensora.autoencode import encode_frames
from deployments.models.previewing import PreviewMap

SIDE_PER_LATENT: Final = 8
# 13 frames are whole latents of either family: beyond the first 2 of 6 frames, or 3 of 4.
CLIPS, FRAMES, SIDE = 12, 13, 128
HELD_OUT_SHARE: Final = 4  # one clip in four is not fitted to: it tells how good the map is
# Sides of the grids of random colours that a clip is made of; the finer, the fainter.
GRIDS: Final = (2, 4, 8, 16, 32)

Encode = Callable[[torch.Tensor], torch.Tensor]
"""Frames (1, 3, n, H, W) in [-1, 1] to latents (1, C, T, h, w), as the sampler has them."""


@dataclass(frozen=True)
class Autoencoder:
    """What encodes, and how many frames a latent stands for; the first stands for one."""

    encode: Encode
    frames_per_latent: int


@dataclass(frozen=True)
class Fit:
    """A fitted map, and the share of the colours' variance that it explains in other clips."""

    preview_map: PreviewMap
    r_squared: float


def mochi(folder: Path) -> Autoencoder:
    """Load the autoencoder of the Mochi checkpoint in `folder`, on the CPU."""
    vae = _load(AutoencoderKLMochi, folder)
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape)
    std = torch.tensor(vae.config.latents_std).view(shape)

    def encode(frames: torch.Tensor) -> torch.Tensor:
        return (vae.encode(frames).latent_dist.mode() - mean) / std * vae.config.scaling_factor

    return Autoencoder(encode, frames_per_latent=6)


def opensora(folder: Path) -> Autoencoder:
    """Load the autoencoder of the Open-Sora checkpoint in `folder`, on the CPU."""
    vae = _load(AutoencoderKLHunyuanVideo, folder)
    return Autoencoder(lambda frames: encode_frames(vae, frames), frames_per_latent=4)


AUTOENCODERS: Final = {"mochi": mochi, "opensora": opensora}
"""By the name of the family."""


@torch.no_grad()
def fit(autoencoder: Autoencoder, clips: Iterable[torch.Tensor]) -> Fit:
    """Fit a map to the encodings of `clips`, each (1, 3, n, H, W) in [-1, 1]; at least four."""
    samples = [_samples(autoencoder, clip) for clip in clips]
    held_out = max(1, len(samples) // HELD_OUT_SHARE)
    known, unknown = samples[held_out:], samples[:held_out]
    latents, colours = (torch.cat(side) for side in zip(*known, strict=True))
    ones = latents.new_ones(len(latents), 1)
    solution = torch.linalg.lstsq(torch.cat([latents, ones], dim=1), colours).solution.float()
    preview_map = PreviewMap(solution[:-1], solution[-1])
    latents, colours = (torch.cat(side).float() for side in zip(*unknown, strict=True))
    missed = (preview_map.colours(latents) - colours).pow(2).sum()
    total = (colours - colours.mean(dim=0)).pow(2).sum()
    return Fit(preview_map, 1 - float(missed / total))


def fit_checkpoint(family: str, folder: Path) -> Fit:
    """Fit a map to the checkpoint of a family, a key of `AUTOENCODERS`, to clips drawn for that.

    Raises: OSError, ValueError: its autoencoder cannot be loaded. RuntimeError: no memory for it.
    """
    return fit(AUTOENCODERS[family](folder), drawn_clips(CLIPS, SIDE))


def drawn_clips(
    count: int, side: int, num_frames: int = FRAMES, seed: int = 0
) -> Iterator[torch.Tensor]:
    """Yield clips (1, 3, num_frames, side, side) in [-1, 1]: colours that drift, coarse and fine,
    and a disc of one colour that crosses them."""
    generator = torch.Generator().manual_seed(seed)
    across = torch.linspace(0, 1, side)
    for _ in range(count):
        clip = torch.zeros(1, 3, num_frames, side, side)
        for index, grid in enumerate(GRIDS):
            ends = torch.randn(1, 3, 2, grid, grid, generator=generator)
            drift = functional.interpolate(ends, clip.shape[2:], mode="trilinear")
            clip += drift / 2**index
        clip = clip.tanh()
        *start, radius = torch.rand(3, generator=generator).tolist()
        colour = torch.rand(1, 3, 1, generator=generator) * 2 - 1
        for frame in range(num_frames):
            moved = [(place + frame / num_frames) % 1 for place in start]
            distance = torch.hypot(across[:, None] - moved[0], across[None] - moved[1])
            clip[:, :, frame, distance < 0.1 + radius / 5] = colour
        yield clip


def _samples(autoencoder: Autoencoder, clip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every latent of the clip (N, C) and the mean colour that it stands for (N, 3)."""
    latents = autoencoder.encode(clip)
    first = clip[:, :, :1]
    later = clip[:, :, 1:].unflatten(2, (-1, autoencoder.frames_per_latent)).mean(dim=3)
    patch = (1, SIDE_PER_LATENT, SIDE_PER_LATENT)
    colours = functional.avg_pool3d(torch.cat([first, later], dim=2), patch)
    if latents.shape[2:] != colours.shape[2:]:
        raise ValueError(f"{tuple(clip.shape)} became {tuple(latents.shape)}, not of that grid")
    return latents[0].flatten(1).T.double(), colours[0].flatten(1).T.double()


def _load(kind: Any, folder: Path) -> Any:
    """Load a checkpoint's autoencoder in float32. Raises: OSError, ValueError: it cannot be."""
    return kind.from_pretrained(
        folder / "vae",
        torch_dtype=torch.float32,
        variant=stored_variant(folder / "vae", torch.float32),
        use_safetensors=True,
        local_files_only=True,
    ).eval()
