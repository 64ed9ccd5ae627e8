"""Full-size Open-Sora 2.0 with random weights on one GPU: seconds a pass, and peak memory.

    python -m benchmarks.gpu_opensora [--frames 129] [--steps 3] [--out result.json]
        [--attention native] [--compile]
    python -m benchmarks.gpu_opensora --tiny        the same code with small networks on the CPU

Clips of 256 px and 768 px at 16:9, from text and from an image. Speed and memory do not depend on
the values of the weights. The text encoders are left out: prompts are random embeddings. A few
steps are run through our own sampler, and what 50 steps would take with our number of passes is
shown beside the authors' time for theirs. `--attention` chooses the back end, `--compile` compiles
the blocks first. Writes JSON, to `--out` after each size. Needs about 45 GiB of GPU memory; begins
no measurement after `--budget` seconds, and a case that fails says why.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo

from deployments.models.attention_backends import check_backend
from deployments.models.compiling import compile_blocks
from deployments.models.opensora.attention import use_joint_attention
from deployments.models.opensora.autoencode import (
    AUTHORS_TILING,
    LOW_MEMORY_TILING,
    Tiling,
    decode,
    encode_frames,
)
from deployments.models.opensora.sampling import TextEmbedding, denoise, initial_noise
from deployments.models.opensora.schedule import Guidance, flow_shift, timesteps
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from deployments.models.opensora.warming import warm_up

GIB = 2**30
SEED, TEXT_TOKENS, NUM_STEPS = 0, 512, 50
CHANNELS, LATENT_SIDE, FRAMES_PER_LATENT = 16, 8, 4
# Height and width at 16:9 of the authors' table.
SIZES = {"256px": (192, 336), "768px": (576, 1024)}
TINY_SIZES = {"256px": (32, 48), "768px": (48, 64)}
# hpcaitech/Open-Sora README: seconds for text to video, 50 steps, on one H100 or H800.
AUTHORS_SECONDS = {"256px": 60, "768px": 1656}
AUTHORS_PASSES = 3 * NUM_STEPS
TINY_TRANSFORMER: dict[str, Any] = {
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 24,
    "axes_dims_rope": (8, 12, 12),
}
TINY_VAE: dict[str, Any] = {
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@dataclass(frozen=True)
class Bench:
    """The networks and what is asked of them."""

    transformer: OpenSoraTransformer3DModel
    vae: AutoencoderKLHunyuanVideo
    device: str
    num_frames: int
    steps: int
    stops_at: float

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Return (1, 16, T, h, w) for a clip of this height and width."""
        latents = (self.num_frames - 1) // FRAMES_PER_LATENT + 1
        return (1, CHANNELS, latents, size[0] // LATENT_SIDE, size[1] // LATENT_SIDE)

    def prompt(self, seed: int) -> TextEmbedding:
        """Return a random embedding of a prompt."""
        config = self.transformer.config
        return TextEmbedding(
            initial_noise(seed, (1, TEXT_TOKENS, config.joint_attention_dim)),
            initial_noise(seed, (1, config.pooled_projection_dim)),
        )

    def measured(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run `work`; return its seconds, its peak memory in GiB, and what it returned."""
        if time.perf_counter() > self.stops_at:
            return {"skipped": "the budget was spent"}
        on_gpu = self.device != "cpu"
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        try:
            found = work()
        except RuntimeError as error:  # out of memory, or a library that fails: the rest goes on
            return {"failed": str(error).partition("\n")[0]}
        if on_gpu:
            torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / GIB if on_gpu else 0.0
        seconds = time.perf_counter() - began
        return {"seconds": round(seconds, 3), "peak_gib": round(peak, 3), **found}


def build(options: argparse.Namespace) -> Bench:
    """Make the networks with random weights, on the GPU from the start."""
    stops_at = time.perf_counter() + options.budget
    device = "cpu" if options.tiny else "cuda"
    torch.manual_seed(SEED)
    torch.set_default_dtype(torch.float32 if options.tiny else torch.bfloat16)
    try:
        with torch.device(device):
            transformer = OpenSoraTransformer3DModel(**(TINY_TRANSFORMER if options.tiny else {}))
            vae = AutoencoderKLHunyuanVideo(**(TINY_VAE if options.tiny else {}))
    finally:
        torch.set_default_dtype(torch.float32)
    use_joint_attention(transformer)
    return Bench(transformer.eval(), vae.eval(), device, options.frames, options.steps, stops_at)


def compiling(bench: Bench) -> dict[str, Any]:
    """Compile the blocks."""
    compile_blocks(bench.transformer, lambda: warm_up(bench.transformer))
    return {}


def num_passes(step: int, num_steps: int, latents: int, *, from_image: bool) -> int:
    """Return how often the sampler evaluates the network at `step`, with the default guidance."""
    guidance = Guidance()
    by_image = from_image and any(
        scale != 1 for scale in guidance.image_scales(step, num_steps, latents)
    )
    return 1 + int(guidance.text_scale(step) != 1 or by_image) + int(by_image)


def denoising(bench: Bench, size: tuple[int, int], *, from_image: bool) -> dict[str, Any]:
    """Run the first steps of the sampler and return the seconds of a pass."""
    shape = bench.latent_shape(size)
    tokens_per_frame = shape[3] * shape[4] // 4
    first = initial_noise(1, (*shape[:2], 1, *shape[3:])) if from_image else None
    times: list[float] = []
    began = time.perf_counter()
    for state in denoise(
        bench.transformer,
        initial_noise(SEED, shape),
        bench.prompt(2),
        bench.prompt(3),
        timesteps(bench.steps, flow_shift(shape[2], tokens_per_frame)),
        Guidance(),
        first=first,
    ):
        state.latents.sum().item()  # waits for the GPU
        passes = num_passes(state.step - 1, bench.steps, shape[2], from_image=from_image)
        times.append((time.perf_counter() - began) / passes)
        began = time.perf_counter()
    # The first step compiles kernels and chooses algorithms.
    later = sorted(times[1:])
    return {"tokens": shape[2] * tokens_per_frame, "seconds_a_pass": later[len(later) // 2]}


def projected(
    seconds_a_pass: float, latents: int, name: str, *, from_image: bool
) -> dict[str, Any]:
    """Return what the sampler takes for all steps, beside the authors' whole time."""
    passes = sum(
        num_passes(step, NUM_STEPS, latents, from_image=from_image) for step in range(NUM_STEPS)
    )
    return {
        "steps": NUM_STEPS,
        "passes": passes,
        "seconds": round(passes * seconds_a_pass, 1),
        "authors_passes": AUTHORS_PASSES,
        "seconds_with_authors_passes": round(AUTHORS_PASSES * seconds_a_pass, 1),
        "authors_seconds_text_to_video": AUTHORS_SECONDS[name],
    }


def clip(bench: Bench, name: str, size: tuple[int, int]) -> dict[str, Any]:
    """Measure all phases of a clip of this size."""
    shape = bench.latent_shape(size)
    results: dict[str, Any] = {"height": size[0], "width": size[1]}
    for mode, from_image in (("text", False), ("image", True)):
        found = bench.measured(partial(denoising, bench, size, from_image=from_image))
        if "seconds_a_pass" in found:
            found["all_steps"] = projected(
                found["seconds_a_pass"], shape[2], name, from_image=from_image
            )
            found["seconds_a_pass"] = round(found["seconds_a_pass"], 4)
        results[mode] = found

    def encode() -> dict[str, Any]:
        encode_frames(bench.vae, initial_noise(SEED, (1, 3, 1, *size)).clamp(-1, 1))
        return {}

    def decode_with(tiling: Tiling) -> dict[str, Any]:
        latents = initial_noise(SEED, shape).to(bench.device)
        return {"frames": sum(run.shape[2] for run in decode(bench.vae, latents, tiling))}

    results["encode_image"] = bench.measured(encode)
    results["decode"] = bench.measured(partial(decode_with, AUTHORS_TILING))
    results["decode_low_memory"] = bench.measured(partial(decode_with, LOW_MEMORY_TILING))
    return results


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=129)
    parser.add_argument("--steps", type=int, default=3, help="at least 2; the first is not counted")
    parser.add_argument("--budget", type=float, default=400, help="seconds")
    parser.add_argument("--attention", default="native", metavar="BACKEND")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if options.steps < 2:
        parser.error("--steps must be at least 2")
    bench = build(options)
    check_backend(options.attention, bench.device)
    bench.transformer.set_attention_backend(options.attention)
    compiled = bench.measured(partial(compiling, bench)) if options.compile else {}
    networks = (bench.transformer, bench.vae)
    weights = sum(weight.nbytes for network in networks for weight in network.parameters())
    sizes = TINY_SIZES if options.tiny else SIZES
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if bench.device != "cpu" else "CPU",
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "frames": options.frames,
        "attention": options.attention,
        "compiled": compiled,
        "weights_gib": round(weights / GIB, 3),
        "clips": {},
    }
    for name, size in sizes.items():
        result["clips"][name] = clip(bench, name, size)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
