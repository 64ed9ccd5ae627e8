"""The memory plan against counts on the full-size networks, on the meta device.

    python -m benchmarks.memory_plan             every shape, every formula against its count
    python -m benchmarks.memory_plan --model mochi --only decode
    python -m benchmarks.memory_plan --recipes   what fits which card, as the plan computes

Needs neither a GPU nor weights, and about five minutes of one core: the transformers run at full
depth, through our own samplers, and Mochi's decoder for its first 13 frames. A ratio is the count
by the formula.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLMochi, MochiTransformer3DModel
from torch import nn

from benchmarks.memory_recipes import print_recipes
from benchmarks.meta_counter import Count, count, on_meta
from deployments.core.networks.figures import (
    MOCHI_FRAMES_PER_LATENT,
    MOCHI_TEXT_TOKENS,
    OPENSORA_FRAMES_PER_LATENT,
    OPENSORA_TEXT_TOKENS,
    MochiFigures,
    OpenSoraFigures,
)
from deployments.core.networks.hunyuan_vae import tiles
from deployments.core.networks.model import Clip
from deployments.models.mochi1.decode import (
    LATENTS_PER_TILE,
    LOW_MEMORY_TILES,
    Caches,
    decode,
    decode_chunk,
    denormalise,
)
from deployments.models.mochi1.sampling import denoise as mochi_denoise
from deployments.models.opensora.attention import use_joint_attention
from deployments.models.opensora.sampling import TextEmbedding
from deployments.models.opensora.sampling import denoise as opensora_denoise
from deployments.models.opensora.schedule import Guidance
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel

BFLOAT16 = 2
LATENT_SIDE = 8
MOCHI_SHAPES = (
    Clip(720, 720, 67),
    Clip(848, 480, 163),
    Clip(848, 480, 85),
    Clip(480, 848, 31),
    Clip(640, 480, 61),
    Clip(512, 512, 49),
    Clip(1920, 1088, 241),
    Clip(256, 256, 13),
)
OPENSORA_SHAPES = (
    Clip(1024, 576, 129),
    Clip(768, 768, 129),
    Clip(720, 720, 65),
    Clip(576, 1024, 33),
    Clip(1184, 496, 129),
    Clip(336, 192, 129),
    Clip(256, 256, 129),
    Clip(256, 256, 13),
)


def count_mochi_denoise(transformer: nn.Module, clip: Clip, steps: int = 2) -> Count:
    """Count some guided steps of our sampler, with the longest prompt and an empty negative one.

    The operations are those of one step.
    """
    sigmas = [step / steps for step in range(steps + 1)]
    latents = clip.latents(MOCHI_FRAMES_PER_LATENT)
    shape = (1, 12, latents, clip.height // LATENT_SIDE, clip.width // LATENT_SIDE)
    prompt = torch.empty(1, MOCHI_TEXT_TOKENS, 4096, device="meta")
    noise = torch.empty(shape, device="meta")

    def work() -> None:
        for state in mochi_denoise(transformer, noise, prompt, prompt[:, :0], sigmas, 4.5):
            del state

    return _of_one(count(work, [transformer]), steps)


def count_opensora_denoise(transformer: nn.Module, clip: Clip, steps: int = 2) -> Count:
    """Count some guided steps of our sampler from text; the operations are those of one step."""
    times = [1 - step / steps for step in range(steps + 1)]
    latents = clip.latents(OPENSORA_FRAMES_PER_LATENT)
    shape = (1, 16, latents, clip.height // LATENT_SIDE, clip.width // LATENT_SIDE)
    text = TextEmbedding(
        torch.empty(1, OPENSORA_TEXT_TOKENS, 4096, device="meta"),
        torch.empty(1, 768, device="meta"),
    )
    noise = torch.empty(shape, device="meta")

    def work() -> None:
        for state in opensora_denoise(transformer, noise, text, text, times, Guidance()):
            del state

    return _of_one(count(work, [transformer]), steps)


def count_mochi_decode(vae: nn.Module, clip: Clip) -> Count:
    """Count our decode of the whole clip, one latent and one frame at a time."""
    latents = clip.latents(MOCHI_FRAMES_PER_LATENT)
    shape = (1, 12, latents, clip.height // LATENT_SIDE, clip.width // LATENT_SIDE)

    def work() -> None:
        units = denormalise(vae, torch.empty(shape, device="meta"))
        for frames in decode(vae, units, frames_per_pass=1):
            del frames

    return count(work, [vae])


def count_mochi_tile(vae: nn.Module) -> Count:
    """Count our decode of the largest tile: two runs of latents, whose past is on the GPU."""
    side = LOW_MEMORY_TILES.side // LATENT_SIDE
    shape = (1, 12, LATENTS_PER_TILE, side, side)

    def work() -> None:
        caches: Caches = {}
        for _ in range(2):
            latents = torch.empty(shape, device="meta", dtype=torch.bfloat16)
            frames = decode_chunk(vae.decoder, latents, caches, 1).float()
        del frames

    return count(work, [vae])


def count_opensora_decode(vae: nn.Module, clip: Clip, *, in_time: bool = False) -> Count:
    """Count the tiles of a clip: the operations of all, and the peak of the largest."""
    cut = Counter(tiles(clip.num_frames, clip.height, clip.width, in_time=in_time))
    counts = [(times, _count_tile(vae, tile)) for tile, times in cut.items()]
    return Count(
        sum(times * each.flops for times, each in counts),
        max(each.peak_bytes for _, each in counts),
    )


def _count_tile(vae: nn.Module, tile: tuple[int, int, int]) -> Count:
    def work() -> None:
        latents = torch.empty(1, 16, *tile, device="meta", dtype=torch.bfloat16)
        vae.decoder(vae.post_quant_conv(latents)).float()

    return count(work, [vae])


def _of_one(counted: Count, steps: int) -> Count:
    return Count(counted.flops // steps, counted.peak_bytes)


Row = tuple[str, Clip, int, Count, Count]


def mochi_rows(parts: list[str]) -> Iterator[Row]:
    """Yield part, clip, tokens, formula and count of each shape."""
    figures = MochiFigures()
    transformer, vae = on_meta(MochiTransformer3DModel), on_meta(AutoencoderKLMochi)
    for clip in MOCHI_SHAPES:
        tokens = clip.tokens(MOCHI_FRAMES_PER_LATENT)
        alive = figures.activations(clip, BFLOAT16, low_vram=False, conditioned=False)
        if "denoise" in parts:
            flops = sum(figures.transformer.flops(tokens, text) for text in (MOCHI_TEXT_TOKENS, 0))
            counted = count_mochi_denoise(transformer, clip)
            yield "denoise", clip, tokens, Count(flops, alive.denoise), counted
        if "decode" in parts:
            # Every latent after the second is decoded as that one.
            start = replace(clip, num_frames=min(clip.num_frames, 2 * MOCHI_FRAMES_PER_LATENT + 1))
            latents = start.latents(MOCHI_FRAMES_PER_LATENT)
            formula = Count(figures.vae.flops(clip.width, clip.height, latents), alive.decode)
            yield "decode", start, tokens, formula, count_mochi_decode(vae, start)


def opensora_rows(parts: list[str]) -> Iterator[Row]:
    """Yield part, clip, tokens, formula and count of each shape."""
    figures = OpenSoraFigures()
    transformer = on_meta(OpenSoraTransformer3DModel)
    use_joint_attention(transformer)
    vae = on_meta(AutoencoderKLHunyuanVideo)
    for clip in OPENSORA_SHAPES:
        tokens = clip.tokens(OPENSORA_FRAMES_PER_LATENT)
        alive = figures.activations(clip, BFLOAT16, low_vram=False, conditioned=False)
        if "denoise" in parts:
            flops = 2 * figures.transformer.flops(tokens, OPENSORA_TEXT_TOKENS)
            counted = count_opensora_denoise(transformer, clip)
            yield "denoise", clip, tokens, Count(flops, alive.denoise), counted
        if "decode" in parts:
            cut = tiles(clip.num_frames, clip.height, clip.width, in_time=False)
            flops = sum(figures.vae.decode_flops(*tile) for tile in cut)
            counted = count_opensora_decode(vae, clip)
            yield "decode", clip, tokens, Count(flops, alive.decode), counted


ROWS: dict[str, Callable[[list[str]], Iterator[Row]]] = {
    "mochi": mochi_rows,
    "opensora": opensora_rows,
}


def print_counts(models: list[str], parts: list[str]) -> None:
    """Print every formula against its count; denoising is one step of two passes."""
    print("| model | part | clip | tokens | TFLOP | ratio | GB | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for model in models:
        for part, clip, tokens, formula, counted in ROWS[model](parts):
            print(
                f"| {model} | {part} | {clip.width}x{clip.height}x{clip.num_frames} | {tokens:,} |"
                f" {formula.flops / 1e12:,.1f} | {counted.flops / formula.flops:.4f} |"
                f" {formula.peak_bytes / 2**30:.2f} |"
                f" {counted.peak_bytes / formula.peak_bytes:.4f} |",
                flush=True,
            )


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=ROWS, help="default: both")
    parser.add_argument("--only", choices=("denoise", "decode"), help="default: both")
    parser.add_argument("--recipes", action="store_true")
    options = parser.parse_args(arguments)
    if options.recipes:
        print_recipes()
        return 0
    models = [options.model] if options.model else list(ROWS)
    print_counts(models, [options.only] if options.only else ["denoise", "decode"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
