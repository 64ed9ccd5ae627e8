"""Train the autoencoder's decoder around the fixed latent space; the encoder needs no training.

The decoder starts at the exact linear inverse of the latent space and learns what a linear map
cannot (sharp moving edges, calm pictures from latents that are not exact). Stops and resumes.

    python -m training.train_vae --minutes 19
"""

import argparse
import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLMochi
from torch import Tensor, nn

from training.latents import (
    LatentSpace,
    decode,
    fit_latent_space,
    init_linear_decoder,
    init_linear_encoder,
    new_vae,
)
from training.render import render
from training.scenes import draw_training_scene

PEAK_RATE, WARM_UP_STEPS, FINAL_SHARE = 1e-3, 50, 0.02
# The decoder's trunk starts at its linear optimum and its branches silent. Adam moves each of a
# branch's last 2592 inputs at once, so larger steps there would first destroy the picture.
TRUNK_RATE_SHARE = 0.15
SAVE_EVERY_S, REPORT_EVERY_STEPS = 120.0, 25
# (clips, height, width, frames) of a step: about equal work, several scales of edges.
BATCHES = ((2, 64, 64, 13), (1, 96, 96, 13), (1, 128, 128, 7), (1, 64, 64, 31), (1, 96, 128, 7))
_log = logging.getLogger(__name__)


def psnr(mse: float) -> float:
    """Decibels for a mean squared error of values in -1..1."""
    return 10 * math.log10(4 / mse)


def draw_batch(rng: np.random.Generator, space: LatentSpace) -> tuple[Tensor, Tensor]:
    """Clips (B, 3, n, H, W) in -1..1 and their latents (B, 12, T, H/8, W/8)."""
    clips, height, width, num_frames = BATCHES[int(rng.integers(len(BATCHES)))]
    frames = [render(draw_training_scene(rng), height, width, num_frames) for _ in range(clips)]
    latents = torch.stack([torch.from_numpy(space.encode(clip)) for clip in frames])
    pixels = torch.from_numpy(np.stack(frames)).permute(0, 4, 1, 2, 3) * 2 - 1
    return pixels, latents


def decoder_loss(vae: AutoencoderKLMochi, pixels: Tensor, latents: Tensor) -> tuple[Tensor, float]:
    """L1 + 2 MSE from noisy latents (sampled latents are never exact), and the MSE alone."""
    spread = 0.15 * torch.rand(len(latents), 1, 1, 1, 1)
    decoded = decode(vae.decoder, latents + spread * torch.randn_like(latents))
    mse = nn.functional.mse_loss(decoded, pixels)
    return nn.functional.l1_loss(decoded, pixels) + 2 * mse, mse.item()


@torch.no_grad()
def validate(vae: AutoencoderKLMochi, space: LatentSpace, clips: int = 24) -> dict[str, float]:
    """PSNR in dB on scenes of a seed of its own: decoder, its linear start, encoder + decoder."""
    rng = np.random.default_rng(2**20)
    errors = np.zeros((3, clips))
    linear = new_vae(0)
    init_linear_decoder(linear.decoder, space)
    for index in range(clips):
        frames = render(draw_training_scene(rng), 128, 128, 13)
        latents = torch.from_numpy(space.encode(frames))[None]
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
        encoded = vae.encode(pixels).latent_dist.mode()
        for row, (model, source) in enumerate(((vae, latents), (linear, latents), (vae, encoded))):
            error = decode(model.decoder, source) - pixels
            errors[row, index] = error.square().mean().item()
    values = [round(psnr(float(row.mean())), 2) for row in errors]
    return dict(zip(("decoder_db", "linear_db", "encoder_decoder_db"), values, strict=True))


def load_space(path: Path, seed: int = 0) -> LatentSpace:
    """The latent space of a run, fitted now if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fit_latent_space(seed).save(path)
    return LatentSpace.load(path)


def _optimiser(decoder: nn.Module) -> torch.optim.Optimizer:
    """AdamW in two groups; "peak" is each group's highest learning rate."""
    named = list(decoder.named_parameters())
    inner = {name for name, _ in named if "resnets" in name and "conv2" not in name}
    branches = [p for name, p in named if name in inner]
    trunk = [p for name, p in named if name not in inner]
    groups = [
        {"params": branches, "peak": PEAK_RATE},
        {"params": trunk, "peak": PEAK_RATE * TRUNK_RATE_SHARE},
    ]
    return torch.optim.AdamW(groups, PEAK_RATE, betas=(0.9, 0.98))


def load_vae(run: Path, space: LatentSpace, seed: int = 0) -> tuple[AutoencoderKLMochi, float]:
    """The autoencoder as far as it is trained (float32), and for how many seconds."""
    vae = new_vae(seed)
    init_linear_encoder(vae.encoder, space)
    init_linear_decoder(vae.decoder, space)
    path = run / "decoder.pt"
    if not path.exists():
        return vae, 0.0
    stored = torch.load(path, weights_only=True)
    vae.decoder.load_state_dict(stored["decoder"])
    return vae, float(stored["elapsed_s"])


def train(minutes: float, seed: int, out: Path, space: LatentSpace) -> None:
    """Train the decoder within its minutes, continuing what `out` holds."""
    vae, elapsed_s = load_vae(out, space, seed)
    # State of the optimiser is not kept: a short warm-up after a resume costs less than the file.
    optimiser = _optimiser(vae.decoder)
    rng = np.random.default_rng((seed, int(elapsed_s)))
    torch.manual_seed(seed + int(elapsed_s))
    saved, steps, recent, budget_s = time.monotonic(), 0, 0.0, 60 * minutes
    while elapsed_s < budget_s:
        began = time.monotonic()
        rate = 0.5 * (1 + math.cos(math.pi * elapsed_s / budget_s))
        rate = min(1.0, (steps + 1) / WARM_UP_STEPS) * (FINAL_SHARE + (1 - FINAL_SHARE) * rate)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        loss, mse = decoder_loss(vae, *draw_batch(rng, space))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimiser.step()
        steps += 1
        recent += (mse - recent) * max(0.02, 1 / steps)
        elapsed_s += time.monotonic() - began
        if steps % REPORT_EVERY_STEPS == 0:
            record = {"step": steps, "elapsed_s": round(elapsed_s), "db": round(psnr(recent), 2)}
            _log.info(json.dumps(record))
        if time.monotonic() - saved > SAVE_EVERY_S or elapsed_s >= budget_s:
            stored = {"decoder": vae.decoder.state_dict(), "elapsed_s": elapsed_s}
            torch.save(stored, out / "decoder.pt")
            saved = time.monotonic()
    _log.info(json.dumps(validate(vae, space)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=19)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("training/runs/vae"))
    parser.add_argument("--latent-space", type=Path, default=Path("training/latent_space.npz"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    space = load_space(arguments.latent_space, arguments.seed)
    train(arguments.minutes, arguments.seed, arguments.out, space)


if __name__ == "__main__":
    main()
