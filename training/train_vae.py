"""Train the autoencoder around the fixed latent space: first the decoder, then the encoder.

The decoder starts at the exact linear inverse of the latent space and learns what a linear map
cannot (sharp moving edges). The encoder is regressed onto the components. Both stop and resume.

    python -m training.train_vae decoder --minutes 35
    python -m training.train_vae encoder --minutes 8
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

from training.latents import LatentSpace, decode, fit_latent_space, init_linear_decoder, new_vae
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


def encoder_loss(vae: AutoencoderKLMochi, pixels: Tensor, latents: Tensor) -> tuple[Tensor, float]:
    """Squared error of the predicted mean; the predicted log-variance is kept very small."""
    mean, log_variance = _encode(vae, pixels).chunk(2, dim=1)
    mse = nn.functional.mse_loss(mean, latents)
    return mse + 1e-3 * (log_variance + 10).square().mean(), mse.item()


def _encode(vae: AutoencoderKLMochi, pixels: Tensor) -> Tensor:
    moments: Tensor = vae.encoder(pixels)[0]
    return moments


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
        encoded = _encode(vae, pixels)[:, :12]
        for row, (model, source) in enumerate(((vae, latents), (linear, latents), (vae, encoded))):
            error = decode(model.decoder, source) - pixels
            errors[row, index] = error.square().mean().item()
    values = [round(psnr(float(row.mean())), 2) for row in errors]
    return dict(zip(("decoder_db", "linear_db", "encoder_decoder_db"), values, strict=True))


def _space(path: Path, seed: int) -> LatentSpace:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fit_latent_space(seed).save(path)
    return LatentSpace.load(path)


def _optimiser(part: str, module: nn.Module) -> torch.optim.Optimizer:
    """AdamW in two groups; "peak" is each group's highest learning rate."""
    named = list(module.named_parameters())
    inner = {name for name, _ in named if "resnets" in name and "conv2" not in name}
    branches = [p for name, p in named if name in inner]
    trunk = [p for name, p in named if name not in inner]
    trunk_rate = PEAK_RATE * (TRUNK_RATE_SHARE if part == "decoder" else 1)
    groups = [{"params": branches, "peak": PEAK_RATE}, {"params": trunk, "peak": trunk_rate}]
    return torch.optim.AdamW(groups, PEAK_RATE, betas=(0.9, 0.98))


def train(part: str, minutes: float, seed: int, out: Path, space: LatentSpace) -> None:
    """Train one part within its minutes, continuing what `out` holds."""
    path = out / "vae.pt"
    vae = new_vae(seed)
    init_linear_decoder(vae.decoder, space)
    stored = torch.load(path, weights_only=True) if path.exists() else {}
    if stored:
        vae.load_state_dict(stored["vae"])
    clock = stored.get("elapsed_s", {"decoder": 0.0, "encoder": 0.0})
    module = vae.decoder if part == "decoder" else vae.encoder
    loss_of = decoder_loss if part == "decoder" else encoder_loss
    # State of the optimiser is not kept: a short warm-up after a resume costs less than the file.
    optimiser = _optimiser(part, module)
    rng = np.random.default_rng((seed, int(clock[part])))
    torch.manual_seed(seed + int(clock[part]))
    saved, steps, recent = time.monotonic(), 0, 0.0
    while clock[part] < 60 * minutes:
        began = time.monotonic()
        share = clock[part] / (60 * minutes)
        rate = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * min(1.0, (steps + 1) / WARM_UP_STEPS) * rate
        loss, mse = loss_of(vae, *draw_batch(rng, space))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        steps += 1
        recent += (mse - recent) * max(0.02, 1 / steps)
        clock[part] += time.monotonic() - began
        if steps % REPORT_EVERY_STEPS == 0:
            record = {"part": part, "step": steps, "elapsed_s": round(clock[part]), "mse": recent}
            _log.info(json.dumps(record | {"db": round(psnr(recent), 2)}))
        if time.monotonic() - saved > SAVE_EVERY_S or clock[part] >= 60 * minutes:
            torch.save({"vae": vae.state_dict(), "elapsed_s": clock}, path)
            saved = time.monotonic()
    _log.info(json.dumps(validate(vae, space)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("decoder", "encoder"))
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("training/runs/vae"))
    parser.add_argument("--latent-space", type=Path, default=Path("training/runs/latent_space.npz"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    space = _space(arguments.latent_space, arguments.seed)
    train(arguments.part, arguments.minutes, arguments.seed, arguments.out, space)


if __name__ == "__main__":
    main()
