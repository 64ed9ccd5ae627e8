"""Train the tiny Open-Sora's decoder around the fixed latent space; the encoder needs no training.

Learns on single pictures first, drawn and natural-like: 25 times as cheap as a clip, and a still
clip is decoded just like one. Stops and resumes.

    python -m training.opensora.train_vae --minutes 40
"""

import argparse
import json
import logging
import math
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor, nn

from training.latents import LatentSpace
from training.muon import Muon
from training.opensora.latents import (
    decode,
    fit_latent_space,
    init_decoder,
    init_linear_encoder,
    new_vae,
)
from training.pictures import draw_picture, moving_picture
from training.render import render
from training.scenes import draw_training_scene
from training.train_vae import psnr

PEAK_RATE, MUON_RATE, WARM_UP_STEPS, FINAL_SHARE = 2e-3, 6e-4, 20, 0.02
SAVE_EVERY_S, REPORT_EVERY_STEPS = 60.0, 25
# (clips, height, width, frames) of a step: about equal work, several scales of edges.
PICTURES: Final = ((10, 64, 64, 1), (4, 96, 96, 1), (3, 128, 96, 1))
CLIPS: Final = ((2, 64, 64, 9), (1, 64, 64, 17), (1, 96, 96, 9), (3, 48, 48, 13))
# Share of steps on pictures, at the start and at the end of the training.
PICTURE_STEPS: Final = (0.8, 0.3)
NATURAL_SHARE: Final = 0.35  # of what is shown; the rest is the drawn world
LATENT_NOISE: Final = 0.15  # sampled latents are never exact
_log = logging.getLogger(__name__)


def _frames(rng: np.random.Generator, height: int, width: int, count: int) -> np.ndarray:
    """A drawn clip or a natural-like one; a single drawn frame is one from the middle."""
    if rng.uniform() < NATURAL_SHARE:
        frames = moving_picture(rng, height, width, count)
    elif count == 1:
        frames = render(draw_training_scene(rng), height, width, 5)[[2]]
    else:
        frames = render(draw_training_scene(rng), height, width, count)
    return frames[:, :, ::-1] if rng.uniform() < 0.5 else frames


def draw_batch(
    rng: np.random.Generator, space: LatentSpace, progress: float
) -> tuple[Tensor, Tensor]:
    """Clips (B, 3, n, H, W) in -1..1 and their latents (B, 16, T, H/8, W/8)."""
    first, last = PICTURE_STEPS
    sizes = PICTURES if rng.uniform() < first + (last - first) * progress else CLIPS
    count, height, width, num_frames = sizes[int(rng.integers(len(sizes)))]
    frames = [_frames(rng, height, width, num_frames) for _ in range(count)]
    latents = torch.stack([torch.from_numpy(space.encode(clip)) for clip in frames])
    pixels = torch.from_numpy(np.stack(frames)).permute(0, 4, 1, 2, 3) * 2 - 1
    return pixels, latents


def decoder_loss(
    vae: AutoencoderKLHunyuanVideo, pixels: Tensor, latents: Tensor
) -> tuple[Tensor, float]:
    """L1 + 2 MSE from noisy latents, and the MSE alone."""
    spread = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, 1)
    decoded = decode(vae, latents + spread * torch.randn_like(latents)).float()
    mse = nn.functional.mse_loss(decoded, pixels)
    return nn.functional.l1_loss(decoded, pixels) + 2 * mse, mse.item()


@torch.no_grad()
def validate(vae: AutoencoderKLHunyuanVideo, space: LatentSpace) -> dict[str, float]:
    """Mean PSNR in dB at 96x96 through encoder and decoder, on a seed of its own.

    Of drawn clips, drawn pictures, and natural-like pictures.
    """
    rng = np.random.default_rng(2**20)
    clips = [render(draw_training_scene(rng), 96, 96, 25) for _ in range(6)]
    natural = [draw_picture(rng, 96, 96)[None] for _ in range(12)]
    drawn = [clip[[0]] for clip in clips] + [
        render(draw_training_scene(rng), 96, 96, 1) for _ in range(12)
    ]

    def measure(frames: np.ndarray) -> float:
        pixels = torch.from_numpy(frames.copy()).permute(3, 0, 1, 2)[None] * 2 - 1
        decoded = decode(vae, vae.encode(pixels).latent_dist.mode())
        return psnr(float((decoded.clamp(-1, 1) - pixels).square().mean()))

    kinds = {"clips_db": clips, "drawn_db": drawn, "natural_db": natural}
    return {
        name: round(float(np.mean([measure(frames) for frames in kind])), 2)
        for name, kind in kinds.items()
    }


def load_space(path: Path, seed: int = 0) -> LatentSpace:
    """The latent space of a run, fitted now if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fit_latent_space(seed).save(path)
    return LatentSpace.load(path)


def load_vae(
    run: Path, space: LatentSpace, seed: int = 0
) -> tuple[AutoencoderKLHunyuanVideo, float]:
    """The autoencoder as far as it is trained (float32), and for how many seconds."""
    vae = new_vae(seed)
    init_linear_encoder(vae, space)
    init_decoder(vae)
    path = run / "decoder.pt"
    if not path.exists():
        return vae, 0.0
    stored = torch.load(path, weights_only=True)
    vae.decoder.load_state_dict(stored["decoder"])
    vae.post_quant_conv.load_state_dict(stored["post_quant_conv"])
    return vae, float(stored["elapsed_s"])


def _save(vae: AutoencoderKLHunyuanVideo, elapsed_s: float, out: Path) -> None:
    stored = {
        "decoder": vae.decoder.state_dict(),
        "post_quant_conv": vae.post_quant_conv.state_dict(),
        "elapsed_s": elapsed_s,
    }
    torch.save(stored, out / "decoder.tmp")
    (out / "decoder.tmp").replace(out / "decoder.pt")


class DecoderOptimiser:
    """Muon for convolutions between hidden channels, AdamW for the rest, at one pace."""

    def __init__(self, vae: AutoencoderKLHunyuanVideo) -> None:
        self.parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
        out = vae.decoder.conv_out.conv.weight
        mixing = [p for p in vae.decoder.parameters() if p.ndim == 5 and p is not out]
        apart = {id(parameter) for parameter in mixing}
        self._muon = Muon(mixing)
        rest = [p for p in self.parameters if id(p) not in apart]
        self._adamw = torch.optim.AdamW(rest, PEAK_RATE, betas=(0.9, 0.98), weight_decay=0)

    def step(self, loss: Tensor, pace: float) -> None:
        """One step at `pace` (0..1) times the peak rates."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self._adamw.param_groups[0]["lr"] = PEAK_RATE * pace
        self._adamw.step()
        self._muon.step(MUON_RATE * pace)


def train(minutes: float, seed: int, out: Path, space: LatentSpace, *, bf16: bool) -> None:
    """Train the decoder within its minutes, continuing what `out` holds."""
    vae, elapsed_s = load_vae(out, space, seed)
    # State of the optimiser is not kept: a short warm-up after a resume costs less than the file.
    optimiser = DecoderOptimiser(vae)
    rng = np.random.default_rng((seed, int(elapsed_s)))
    torch.manual_seed(seed + int(elapsed_s))
    saved, steps, recent, budget_s = time.monotonic(), 0, 0.0, 60 * minutes
    while elapsed_s < budget_s:
        began, progress = time.monotonic(), elapsed_s / budget_s
        pace = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))
        pixels, latents = draw_batch(rng, space, progress)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, mse = decoder_loss(vae, pixels, latents)
        optimiser.step(loss, pace * min(1.0, (steps + 1) / WARM_UP_STEPS))
        steps += 1
        recent += (mse - recent) * max(0.02, 1 / steps)
        elapsed_s += time.monotonic() - began
        if steps % REPORT_EVERY_STEPS == 0:
            record = {"step": steps, "elapsed_s": round(elapsed_s), "db": round(psnr(recent), 2)}
            _log.info(json.dumps(record))
        if time.monotonic() - saved > SAVE_EVERY_S or elapsed_s >= budget_s:
            _save(vae, elapsed_s, out)
            saved = time.monotonic()
    _log.info(json.dumps(validate(vae, space)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="for processors with AVX-512 BF16")
    parser.add_argument("--out", type=Path, default=Path("training/runs/opensora-vae"))
    parser.add_argument(
        "--latent-space", type=Path, default=Path("training/opensora/latent_space.npz")
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    space = load_space(arguments.latent_space, arguments.seed)
    train(arguments.minutes, arguments.seed, arguments.out, space, bf16=arguments.bf16)


if __name__ == "__main__":
    main()
