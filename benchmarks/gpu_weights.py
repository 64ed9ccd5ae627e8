"""Every weight mode at full size with random weights on one GPU, against the memory plan.

    python -m benchmarks.gpu_weights --weights nf4 [--model opensora] [--size 720x720]
        [--frames 67] [--steps 3]
    python -m benchmarks.gpu_weights --weights nf4 --tiny   small networks on the CPU

Prints JSON: seconds of putting the weights into the mode, seconds a step, the peak of the GPU's
tensors beside what the plan says of denoising (with 1.5 GB of overhead), and what the process holds
of the host. Of Mochi also the decode in tiles. Speed and memory do not depend on the values of the
weights; text is left out. Where pydantic is missing, so is the plan.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from diffusers import AutoencoderKLMochi, MochiTransformer3DModel

from benchmarks.meta_counter import on_meta
from deployments.models.mochi1 import sampling as mochi
from deployments.models.mochi1.attention import use_trimmed_attention
from deployments.models.mochi1.decode import LATENTS_PER_TILE, LOW_MEMORY_TILES, decode
from deployments.models.opensora import sampling as opensora
from deployments.models.opensora.attention import use_joint_attention
from deployments.models.opensora.schedule import Guidance, timesteps
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from deployments.models.streaming import lockable
from deployments.models.weight_modes import move, set_weight_mode

TINY: dict[str, dict[str, Any]] = {
    "mochi": {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 2,
        "pooled_projection_dim": 16,
        "text_embed_dim": 32,
        "time_embed_dim": 16,
    },
    "opensora": {
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 24,
        "axes_dims_rope": (8, 12, 12),
    },
}
TINY_VAE: dict[str, Any] = {
    "encoder_block_out_channels": (32,) * 4,
    "decoder_block_out_channels": (32,) * 4,
    "layers_per_block": (1,) * 5,
    "add_attention_block": (False,) * 5,
}
PROMPT_TOKENS = {"mochi": 256, "opensora": 512}
KINDS = {"mochi": MochiTransformer3DModel, "opensora": OpenSoraTransformer3DModel}
ATTENTION = {"mochi": use_trimmed_attention, "opensora": use_joint_attention}
GIB = 2**30


@dataclass(frozen=True)
class Size:
    """Of the clip, in pixels and frames."""

    width: int
    height: int
    num_frames: int

    def latents(self, frames_per_latent: int) -> int:
        """Return its length in latent frames, the first of which stands for one frame."""
        return (self.num_frames - 1) // frames_per_latent + 1


def main(arguments: list[str] | None = None) -> int:
    """Measure one mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    modes = ("resident", "streamed", "fp8", "int8", "nf4")
    parser.add_argument("--weights", choices=modes, required=True)
    parser.add_argument("--model", choices=KINDS, default="mochi")
    parser.add_argument("--size", default="720x720")
    parser.add_argument("--frames", type=int, default=67)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    width, height = map(int, options.size.split("x"))
    print(json.dumps(measure(options, Size(width, height, options.frames)), indent=2))
    return 0


def measure(options: argparse.Namespace, clip: Size) -> dict[str, Any]:
    """Return the figures of one mode."""
    device = "cpu" if options.tiny else "cuda"
    free_bytes = psutil.virtual_memory().available
    transformer = made(KINDS[options.model], TINY[options.model] if options.tiny else {}, device)
    ATTENTION[options.model](transformer)
    sizes = [weight.nbytes for weight in transformer.parameters()]
    # The host is asked for what it takes only where weights are locked there.
    locks = options.weights == "streamed" and device != "cpu" and lockable(sizes, free_bytes)
    began = time.perf_counter()
    set_weight_mode(transformer, options.weights, device, page_locked=locks)
    move(transformer, device)
    figures: dict[str, Any] = {
        "weights": options.weights,
        "page_locked": locks,
        "seconds_to_store": round(time.perf_counter() - began, 2),
        "planned_denoise_gb": planned_gb(options, clip),
        "denoise": timed(denoised(options, transformer, clip), device),
        "host_gb": round(psutil.Process().memory_info().rss / GIB, 2),
    }
    del transformer
    gc.collect()  # what diffusers hooks into it refers to it
    if options.model == "mochi":
        vae = move(made(AutoencoderKLMochi, TINY_VAE if options.tiny else {}, device), device)
        latents = clip.latents(6)
        units = torch.randn(1, 12, latents, clip.height // 8, clip.width // 8, device=device)
        runs = decode(vae, units, LATENTS_PER_TILE, frames_per_pass=1, tiles=LOW_MEMORY_TILES)
        figures["decode_in_tiles"] = timed(runs, device)
    return figures


def made(kind: Callable[..., Any], settings: dict[str, Any], device: str) -> Any:
    """Return a network with random weights on the CPU, in the dtype of `device`."""
    torch.manual_seed(0)
    network = on_meta(kind, **settings)
    network = (network.float() if device == "cpu" else network).to_empty(device="cpu")
    for weight in network.parameters():
        weight.data.uniform_(-0.02, 0.02)
    return network


def planned_gb(options: argparse.Namespace, clip: Size) -> float | None:
    """Return what the plan says of denoising with all else off the GPU, at full size."""
    try:
        from deployments.core.memory import PLACEMENTS, phases
        from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
        from deployments.core.networks.model import Clip
    except ImportError:
        return None
    figures = MochiFigures() if options.model == "mochi" else OpenSoraFigures()
    mode = PLACEMENTS[-1].model_copy(update={"transformer": options.weights})
    of = Clip(clip.width, clip.height, clip.num_frames)
    taken = {phase.name: phase.total_gb for phase in phases(figures, of, mode)}
    return round(taken["denoise"], 2)


def denoised(options: argparse.Namespace, transformer: Any, clip: Size) -> Iterator[Any]:
    """Return the steps of our sampler, with a prompt of the longest length."""
    width, tokens = transformer.config, PROMPT_TOKENS[options.model]
    sides = (clip.height // 8, clip.width // 8)
    if options.model == "mochi":
        prompt = torch.randn(1, tokens, width.text_embed_dim)
        noise = mochi.initial_noise(0, (1, 12, clip.latents(6), *sides))
        sigmas = mochi.linear_quadratic(options.steps)
        return mochi.denoise(transformer, noise, prompt, prompt[:, :0], sigmas, 4.5)
    text = opensora.TextEmbedding(
        torch.randn(1, tokens, width.joint_attention_dim),
        torch.randn(1, width.pooled_projection_dim),
    )
    noise = opensora.initial_noise(0, (1, 16, clip.latents(4), *sides))
    return opensora.denoise(
        transformer, noise, text, text, timesteps(options.steps, 1.0), Guidance()
    )


def timed(results: Iterator[Any], device: str) -> dict[str, Any]:
    """Return the seconds of each result, the first of which warms up, and the peak of the GPU."""
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds, began = [], time.perf_counter()
    for result in results:
        del result
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(round(time.perf_counter() - began, 3))
        began = time.perf_counter()
    peak = torch.cuda.max_memory_allocated() / GIB if on_gpu else 0.0
    return {"seconds": seconds, "peak_gb": round(peak, 2)}


if __name__ == "__main__":
    sys.exit(main())
