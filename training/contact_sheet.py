"""Look at a run while it trains, or at a checkpoint: a row of frames a prompt, as one PNG.

python -m training.contact_sheet --out sheet.png
python -m training.contact_sheet --checkpoint checkpoints/opensora-tiny --out sheet.png
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from PIL import Image
from torch import Tensor

from training.evaluate import Frames, new_generator
from training.export import GENERATION_CONFIG, load_trained
from training.latents import GROUP, PATCH, decode
from training.models import TextToVelocity
from training.train_vae import load_space, load_vae

PROMPTS = (
    "a red ball moving right on a black background",
    "a blue square moving up on a gray background",
    "an orange triangle moving down on a teal background",
    "a white square bouncing on a brown background",
    "a yellow triangle bouncing over the sea at night",
    "a pink ball moving left over a meadow at noon",
    "a green square standing still over the desert at sunset",
    "a red triangle moving right over the city at night",
    "A serene lake at sunset with mountains in the background",
    "A beautiful sunset over the ocean",
    "snow at noon with a forest",
    "A cat playing with a ball of yarn",
)


@torch.no_grad()
def sample(
    model: TextToVelocity,
    prompts: list[str],
    size: tuple[int, int, int],
    seed: int,
    steps: int,
    guidance_scale: float,
) -> Tensor:
    """Euler steps with guidance; `size` is (frames, height, width) in pixels.

    Returns: latents (B, 12, T, H/8, W/8).
    """
    num_frames, height, width = size
    shape = (12, (num_frames - 1) // GROUP + 1, height // PATCH, width // PATCH)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(prompts), *shape, generator=generator)
    sigmas = linear_quadratic_schedule(
        steps, GENERATION_CONFIG["threshold_noise"], GENERATION_CONFIG["linear_steps"]
    )
    # diffusers' schedule counts noise down from 1; Mochi counts the share of data up from 0.
    shares = [1 - float(sigma) for sigma in sigmas] + [1.0]
    for now, then in pairwise(shares):
        share = torch.full((len(prompts),), now)
        told = model(latents, share, prompts)
        untold = model(latents, share, [""] * len(prompts))
        latents = latents + (then - now) * (untold + guidance_scale * (told - untold))
    return latents


def from_run(arguments: argparse.Namespace) -> list[Frames]:
    """Clips of the Mochi run, as far as it is trained."""
    model = load_trained(arguments.runs / "transformer", Path("checkpoints/mochi-tiny/tokenizer"))
    vae, _ = load_vae(arguments.runs / "vae", load_space(Path("training/latent_space.npz")))
    latents = sample(
        model,
        list(arguments.prompts),
        tuple(arguments.size),
        arguments.seed,
        arguments.steps,
        arguments.guidance,
    )
    with torch.no_grad():
        rows = [decode(vae.decoder, clip[None])[0] for clip in latents]
    return [
        ((row.permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        for row in rows
    ]


def sheet(clips: list[Frames]) -> Frames:
    """Five frames of every clip in a row, in two columns of clips."""
    chosen = np.linspace(0, len(clips[0]) - 1, 5).round().astype(int)
    rows = [np.concatenate(clip[chosen], axis=1) for clip in clips]
    half = (len(rows) + 1) // 2
    rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
    return np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="an exported folder instead of the run")
    parser.add_argument("--runs", type=Path, default=Path("training/runs"))
    parser.add_argument("--size", type=int, nargs=3, default=(25, 96, 96))
    parser.add_argument("--steps", type=int, default=GENERATION_CONFIG["num_inference_steps"])
    parser.add_argument("--guidance", type=float, default=GENERATION_CONFIG["guidance_scale"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", nargs="*", default=PROMPTS)
    arguments = parser.parse_args()
    if arguments.checkpoint is None:
        clips = from_run(arguments)
    else:
        generator = new_generator(arguments.checkpoint)
        num_frames, side, _ = arguments.size
        clips = [generator(told, num_frames, side, arguments.seed) for told in arguments.prompts]
    Image.fromarray(sheet(clips)).save(arguments.out)


if __name__ == "__main__":
    main()
