"""Mochi's sampler: from noise to latents, one denoising step at a time.

It is the loop of diffusers' `MochiPipeline` with `force_zeros_for_empty_prompt=True`, except that
latents stay float32 (in bfloat16 half of the first 32 steps is lost to rounding), the two branches
of classifier-free guidance run one after the other (half the activation memory), prompts are
trimmed to their real length, and the caller may stop after any step.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import MochiTransformer3DModel

from deployments.models.mochi1.attention import ClipRoPE

# The transformer counts its timesteps from 0 (noise) to 1000 (clean).
NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class Denoised:
    """The state after one step.

    Attributes:
        step: counts from 1.
        latents: (1, 12, T, h, w), float32, normalised; after the last step, the result.
        predicted: like `latents`: the clean latents as the model foresees them, for previews.
    """

    step: int
    latents: torch.Tensor
    predicted: torch.Tensor


def linear_quadratic(
    num_steps: int, threshold_noise: float = 0.025, linear_steps: int | None = None
) -> list[float]:
    """Return the clean fraction at each step's start, and 1.0 at the end: num_steps + 1 numbers.

    Small equal steps through the first `threshold_noise`, then quadratically larger ones.
    genmoai/mochi@075b6e3 src/mochi_preview/infer.py:77 (linear_quadratic_schedule), which gives
    the noise fractions, 1 minus these.

    Args:
        num_steps: denoising steps, at least 2.
        threshold_noise: clean fraction reached in the linear part, in (0, 1).
        linear_steps: steps of the linear part, in [1, num_steps); None means half of them.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps must be at least 2, got {num_steps}")
    if not 0 < threshold_noise < 1:
        raise ValueError(f"threshold_noise must be between 0 and 1, got {threshold_noise}")
    linear = num_steps // 2 if linear_steps is None else linear_steps
    if not 1 <= linear < num_steps:
        raise ValueError(f"linear_steps must be in [1, {num_steps}), got {linear}")
    quadratic = num_steps - linear
    excess = linear - threshold_noise * num_steps
    square = excess / (linear * quadratic**2)
    slope = threshold_noise / linear - 2 * excess / quadratic**2
    constant = square * linear**2
    return [
        *(i * threshold_noise / linear for i in range(linear)),
        *(square * i**2 + slope * i + constant for i in range(linear, num_steps)),
        1.0,
    ]


def initial_noise(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """Draw the noise of `seed`: float32 on the CPU, so that it is the same for every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


@torch.no_grad()
def denoise(
    transformer: MochiTransformer3DModel,
    latents: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    sigmas: Sequence[float],
    guidance_scale: float,
) -> Iterator[Denoised]:
    """Turn noise into latents; each `next()` does one step, closing the generator ends the work.

    Args:
        transformer: its weights' dtype is that of the computation; one call at a time.
        latents: (1, 12, T, h, w), float32 noise; h and w even.
        positive: (1, n, D), embedding of the prompt, only its real tokens; n may be 0.
        negative: like `positive`; not used when `guidance_scale` is 1.
        sigmas: increasing clean fractions up to 1.0, see `linear_quadratic`.
        guidance_scale: 1 means no guidance, and one pass a step instead of two.
    """
    _check(transformer, latents, positive, negative, sigmas, guidance_scale)
    guided = guidance_scale != 1.0
    device, dtype = transformer.device, transformer.dtype
    latents = latents.to(device)
    positive, negative = positive.to(device, dtype), negative.to(device, dtype)
    transformer._reset_stateful_cache()
    try:
        with _same_rotary_table(transformer):
            for step, (sigma, following) in enumerate(pairwise(sigmas), start=1):
                velocity = _velocity(transformer, latents, positive, sigma, "cond")
                if guided:
                    without = _velocity(transformer, latents, negative, sigma, "uncond")
                    velocity = without + guidance_scale * (velocity - without)
                predicted = latents + (1.0 - sigma) * velocity
                latents = latents + (following - sigma) * velocity
                yield Denoised(step, latents, predicted)
    finally:
        # A step cache that keeps its state would show this clip in the next one, or crash on
        # another size.
        transformer._reset_stateful_cache()


def _same_rotary_table(transformer: MochiTransformer3DModel) -> AbstractContextManager[None]:
    """Within it, all passes of a clip share one table, where the transformer can keep it."""
    rope = transformer.rope
    return rope.kept() if isinstance(rope, ClipRoPE) else nullcontext()


def _velocity(
    transformer: MochiTransformer3DModel,
    latents: torch.Tensor,
    prompt: torch.Tensor,
    sigma: float,
    branch: str,
) -> torch.Tensor:
    """Return the model's v = clean - noise for one branch, float32."""
    device, dtype = transformer.device, transformer.dtype
    # Under autocast the latents stay float32 where the network adds and normalises.
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    with transformer.cache_context(branch), warnings.catch_warnings(), autocast:
        # Mochi's RoPE switches autocast off by asking for float32, and torch remarks on that.
        warnings.filterwarnings("ignore", message="In (CPU|CUDA) autocast")
        velocity: torch.Tensor = transformer(
            hidden_states=latents,
            encoder_hidden_states=prompt,
            timestep=latents.new_full((1,), sigma * NUM_TRAIN_TIMESTEPS),
            # All tokens are real; a prompt without any is pooled to what a masked one is.
            encoder_attention_mask=prompt.new_ones(prompt.shape[:2], dtype=torch.bool),
            return_dict=False,
        )[0]
    return velocity.float()


def _check(
    transformer: MochiTransformer3DModel,
    latents: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    sigmas: Sequence[float],
    guidance_scale: float,
) -> None:
    channels, patch = transformer.config.in_channels, transformer.config.patch_size
    if latents.ndim != 5 or latents.shape[:2] != (1, channels):
        raise ValueError(f"latents must be (1, {channels}, T, h, w), got {tuple(latents.shape)}")
    if latents.dtype != torch.float32:
        raise ValueError(f"latents must be float32, got {latents.dtype}")
    if latents.shape[3] % patch or latents.shape[4] % patch:
        raise ValueError(f"h and w must be multiples of {patch}, got {tuple(latents.shape[3:])}")
    width = transformer.config.text_embed_dim
    for name, prompt in (("positive", positive), ("negative", negative)):
        if prompt.ndim != 3 or (prompt.shape[0], prompt.shape[2]) != (1, width):
            raise ValueError(f"{name} must be (1, n, {width}), got {tuple(prompt.shape)}")
    if len(sigmas) < 2 or sigmas[-1] != 1.0 or list(sigmas) != sorted(set(sigmas)):
        raise ValueError("sigmas must increase up to 1.0")
    if guidance_scale < 1.0:
        raise ValueError(f"guidance_scale must be at least 1, got {guidance_scale}")
