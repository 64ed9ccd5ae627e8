"""Full-size Mochi with random weights on one GPU: our sampler and decode against diffusers' own.

    python -m benchmarks.gpu_mochi [--size 720x720] [--frames 67] [--steps 5] [--out result.json]
        [--attention _native_cudnn _native_flash] [--compile]
    python -m benchmarks.gpu_mochi --tiny        the same code with small networks on the CPU

Speed and memory do not depend on the values of the weights. The text encoder is left out: prompts
are random embeddings. Writes JSON: seconds a step, peak memory by phase, and the activations a
token and a pixel, to hold against `docs/memory.md`. `--attention` also samples with these back
ends, `--compile` with compiled blocks, whose warm-up is a figure of its own. Needs about 60 GiB of
GPU memory for the stock decode; a case that fails says why, and `--out` has what was measured up to
then.
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
from diffusers import (
    AutoencoderKLMochi,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)
from diffusers.models.attention_processor import MochiAttnProcessor2_0
from diffusers.models.transformers.transformer_mochi import MochiRoPE

from deployments.models.attention_backends import check_backend
from deployments.models.compiling import compile_blocks
from deployments.models.mochi1.attention import use_trimmed_attention
from deployments.models.mochi1.decode import decode, denormalise, to_uint8
from deployments.models.mochi1.sampling import denoise, initial_noise, linear_quadratic
from deployments.models.mochi1.warming import warm_up

PROMPT_TOKENS, GUIDANCE_SCALE, SEED = 64, 4.5, 0
GIB = 2**30
TINY_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "pooled_projection_dim": 16,
    "text_embed_dim": 32,
    "time_embed_dim": 16,
}
TINY_VAE: dict[str, Any] = {
    "encoder_block_out_channels": (32, 32, 32, 32),
    "decoder_block_out_channels": (32, 32, 32, 32),
    "layers_per_block": (1, 1, 1, 1, 1),
    "add_attention_block": (False,) * 5,
}


@dataclass(frozen=True)
class Bench:
    """The networks and the size of the clip."""

    transformer: MochiTransformer3DModel
    vae: AutoencoderKLMochi
    device: str
    width: int
    height: int
    num_frames: int
    steps: int

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Return (1, 12, T, h, w)."""
        return (1, 12, (self.num_frames - 1) // 6 + 1, self.height // 8, self.width // 8)

    @property
    def num_tokens(self) -> int:
        """Return how many visual tokens the transformer sees."""
        return self.latent_shape[2] * (self.height // 16) * (self.width // 16)

    def prompt(self) -> torch.Tensor:
        """Return a random embedding (1, PROMPT_TOKENS, D)."""
        width = self.transformer.config.text_embed_dim
        return initial_noise(1, (1, PROMPT_TOKENS, width)).to(self.device, self.transformer.dtype)

    def measured(self, work: Callable[[], Any]) -> dict[str, Any]:
        """Run `work`; return its seconds, its peak memory in GiB, and what it returned."""
        on_gpu = self.device != "cpu"
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        try:
            result = work()
        except RuntimeError as error:  # out of memory, or a library that fails: the rest goes on
            return {"failed": str(error).partition("\n")[0]}
        if on_gpu:
            torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() / GIB if on_gpu else 0.0
        seconds = time.perf_counter() - began
        return {"seconds": round(seconds, 3), "peak_gib": round(peak, 3), "result": result}


def build(options: argparse.Namespace) -> Bench:
    """Make the networks with random weights, on the GPU from the start."""
    device = "cpu" if options.tiny else "cuda"
    torch.manual_seed(SEED)
    torch.set_default_dtype(torch.float32 if options.tiny else torch.bfloat16)
    try:
        with torch.device(device):
            transformer = MochiTransformer3DModel(**(TINY_TRANSFORMER if options.tiny else {}))
            vae = AutoencoderKLMochi(**(TINY_VAE if options.tiny else {}))
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        transformer.pos_frequencies.normal_(std=0.1)
    width, height = (int(side) for side in options.size.split("x"))
    return Bench(
        transformer.eval(), vae.eval(), device, width, height, options.frames, options.steps
    )


def sampling(bench: Bench) -> dict[str, Any]:
    """Measure our sampler with the transformer as it is."""
    times: list[float] = []

    def sample() -> torch.Tensor:
        prompt = bench.prompt()
        sigmas = linear_quadratic(bench.steps)
        latents = initial_noise(SEED, bench.latent_shape)
        began = time.perf_counter()
        for state in denoise(
            bench.transformer, latents, prompt, prompt[:, :0], sigmas, GUIDANCE_SCALE
        ):
            latents = state.latents
            latents.sum().item()  # waits for the GPU
            times.append(time.perf_counter() - began)
            began = time.perf_counter()
        return latents

    return _phase(bench.measured(sample), times)


def ours(bench: Bench) -> dict[str, Any]:
    """Measure our sampler, our decode, and our decode without passing single frames."""
    sampled = sampling(bench)
    # Random weights may run out of range, which has no bearing on memory or time.
    latents = denormalise(bench.vae, initial_noise(SEED, bench.latent_shape).to(bench.device))

    def stream() -> int:
        runs = decode(bench.vae, latents, frames_per_pass=1)
        return sum(len(to_uint8(frames)) for frames in runs)

    def by_latent() -> int:
        return sum(len(to_uint8(frames)) for frames in decode(bench.vae, latents))

    return {
        "denoise": sampled,
        "decode": _phase(bench.measured(stream)),
        "decode_all_frames_of_a_latent": _phase(bench.measured(by_latent)),
    }


def with_attention(bench: Bench, backend: str) -> dict[str, Any]:
    """Measure our sampler with another attention back end."""
    try:
        check_backend(backend, bench.device)
    except ValueError as error:
        return {"refused": str(error)}
    bench.transformer.set_attention_backend(backend)
    try:
        return sampling(bench)
    finally:
        bench.transformer.set_attention_backend("native")


def with_compiled_blocks(bench: Bench) -> dict[str, Any]:
    """Measure our sampler after the blocks were compiled, and how long that takes."""

    use_trimmed_attention(bench.transformer)

    def compile_() -> None:
        compile_blocks(bench.transformer, lambda: warm_up(bench.transformer))

    return {"warm_up": _phase(bench.measured(compile_)), "denoise": sampling(bench)}


def stock(bench: Bench) -> dict[str, Any]:
    """Measure diffusers' pipeline: both branches in one batch, latents in the prompt's dtype."""
    for block in bench.transformer.transformer_blocks:
        block.attn1.processor = MochiAttnProcessor2_0()
    bench.transformer.rope = MochiRoPE()
    pipeline = MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=bench.vae,
        text_encoder=None,
        tokenizer=None,
        transformer=bench.transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    times: list[float] = []
    began = [time.perf_counter()]

    def on_step(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tensors["latents"].sum().item()
        times.append(time.perf_counter() - began[0])
        began[0] = time.perf_counter()
        return tensors

    def sample() -> Any:
        prompt = bench.prompt()
        mask = torch.ones(prompt.shape[:2], dtype=torch.bool, device=bench.device)
        began[0] = time.perf_counter()
        return pipeline(
            prompt_embeds=prompt,
            prompt_attention_mask=mask,
            negative_prompt_embeds=torch.zeros_like(prompt),
            negative_prompt_attention_mask=torch.zeros_like(mask),
            height=bench.height,
            width=bench.width,
            num_frames=bench.num_frames,
            num_inference_steps=bench.steps,
            guidance_scale=GUIDANCE_SCALE,
            callback_on_step_end=on_step,
            output_type="latent",
        ).frames

    sampled = bench.measured(sample)
    latents = initial_noise(SEED, bench.latent_shape).to(bench.device, bench.vae.dtype)

    @torch.no_grad()
    def decode_at_once() -> int:
        return len(to_uint8(bench.vae.decode(latents).sample))

    return {"denoise": _phase(sampled, times), "decode": _phase(bench.measured(decode_at_once))}


def _phase(measured: dict[str, Any], times: list[float] | None = None) -> dict[str, Any]:
    phase = {key: value for key, value in measured.items() if key != "result"}
    if times and "seconds" in phase:
        # The first step compiles kernels and chooses algorithms.
        phase["seconds_a_step"] = round(sorted(times[1:])[len(times[1:]) // 2], 3)
    return phase


def activations(bench: Bench, results: dict[str, Any], weights_gib: float) -> dict[str, float]:
    """Return what is alive beside the weights, in the units of the memory plan's formulas."""
    denoising = results["denoise"].get("peak_gib", 0.0) - weights_gib
    decoding = results["decode"].get("peak_gib", 0.0) - weights_gib
    return {
        "bytes_per_token": round(denoising * GIB / bench.num_tokens),
        "decode_bytes_per_pixel": round(decoding * GIB / (bench.width * bench.height)),
    }


def measurements(
    bench: Bench, options: argparse.Namespace
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what is measured, in this order: ours first, and last what cannot be undone."""
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": partial(ours, bench),
        "attention": lambda: {name: with_attention(bench, name) for name in options.attention},
        "stock": partial(stock, bench),
    }
    if options.compile:
        found["compiled"] = partial(with_compiled_blocks, bench)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="720x720")
    parser.add_argument("--frames", type=int, default=67)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--attention", nargs="*", default=[], metavar="BACKEND")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    bench = build(options)
    networks = (bench.transformer, bench.vae)
    weights_gib = sum(w.nbytes for network in networks for w in network.parameters()) / GIB
    use_trimmed_attention(bench.transformer)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if bench.device != "cpu" else "CPU",
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "size": options.size,
        "frames": options.frames,
        "tokens": bench.num_tokens,
        "weights_gib": round(weights_gib, 3),
    }
    for name, measure in measurements(bench, options).items():
        result[name] = measure()
        if name == "ours" and bench.device != "cpu":
            result["activations"] = activations(bench, result["ours"], weights_gib)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
