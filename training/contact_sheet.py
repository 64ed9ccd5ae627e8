"""Look at a run while it trains: a few prompts, a row of frames each, as one PNG.

python -m training.contact_sheet --out sheet.png
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from PIL import Image
from torch import Tensor

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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("training/runs"))
    parser.add_argument("--size", type=int, nargs=3, default=(25, 96, 96))
    parser.add_argument("--steps", type=int, default=GENERATION_CONFIG["num_inference_steps"])
    parser.add_argument("--guidance", type=float, default=GENERATION_CONFIG["guidance_scale"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", nargs="*", default=PROMPTS)
    arguments = parser.parse_args()
    tokenizer = Path("checkpoints/mochi-tiny/tokenizer")
    model = load_trained(arguments.runs / "transformer", tokenizer)
    space = load_space(Path("training/latent_space.npz"))
    vae, _ = load_vae(arguments.runs / "vae", space)
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
    chosen = np.linspace(0, rows[0].shape[1] - 1, 5).round().astype(int)
    pictures = [row[:, chosen].permute(2, 1, 3, 0).flatten(1, 2) for row in rows]
    half = (len(pictures) + 1) // 2
    columns = [torch.cat(pictures[:half]), torch.cat(pictures[half:])]
    sheet = torch.cat([column[: columns[-1].shape[0]] for column in columns], dim=1)
    pixels = ((sheet.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(arguments.out)


if __name__ == "__main__":
    main()
