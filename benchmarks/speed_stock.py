"""What the speed of our samplers is held against: the same networks in diffusers' own pipeline, and
for Open-Sora, which diffusers has none for, in a loop of all three passes of every step."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline

from deployments.core.events import Frames
from deployments.core.spec import VideoSpec
from deployments.models.mochi1.decode import to_uint8
from deployments.models.mochi1.loading import MOCHI
from deployments.models.opensora.loading import OPENSORA
from deployments.models.opensora.packing import make_condition, pack, position_ids, unpack
from deployments.models.opensora.sampling import initial_noise
from deployments.models.opensora.schedule import Guidance, flow_shift, timesteps
from deployments.models.opensora.text import PromptEncoder, prompt_with_suffix

Mark = Callable[[str], None]
"""Told "denoise", "step" after each step, and "decode" when it begins."""


class StockMochi:
    """`MochiPipeline`: both branches of guidance in one batch, prompts padded to 256 tokens."""

    def __init__(self, folder: str, device: str) -> None:
        parts = MOCHI.load(folder, device, (), "resident")
        self._pipeline = MochiPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
            force_zeros_for_empty_prompt=True,
            **parts,
        )
        self._pipeline.set_progress_bar_config(disable=True)

    def run(self, spec: VideoSpec, mark: Mark) -> Frames:
        """Make the frames of `spec`."""
        mark("denoise")

        def on_step(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            mark("step")
            if index == spec.num_inference_steps - 1:
                mark("decode")
            return tensors

        video = self._pipeline(
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            height=spec.generated_height,
            width=spec.generated_width,
            num_frames=spec.generated_frames,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            callback_on_step_end=on_step,
            output_type="pt",
        ).frames
        return to_uint8(video.movedim(1, 2) * 2 - 1)


class UnskippedOpenSora:
    """Text to video as the authors lay it out: three passes in one batch at every step, and the
    autoencoder's own tiled decode (hpcaitech/Open-Sora@7ad6a96 opensora/utils/sampling.py)."""

    def __init__(self, folder: str, device: str) -> None:
        parts = OPENSORA.load(folder, device, (), "resident")
        self._transformer, self._vae, self._device = parts["transformer"], parts["vae"], device
        encoders = {
            name: part for name, part in parts.items() if name not in ("transformer", "vae")
        }
        self._prompts = PromptEncoder(**encoders, cache_bytes=0)
        self._vae.enable_tiling()
        self._vae.use_framewise_decoding = False

    @torch.no_grad()
    def run(self, spec: VideoSpec, mark: Mark) -> Frames:
        """Make the frames of `spec`."""
        positive = self._prompts.encode(prompt_with_suffix(spec.prompt, spec.fps, 4)).embedding
        negative = self._prompts.encode(spec.negative_prompt).embedding
        three = (positive, negative, negative)
        sequence = torch.cat([text.sequence for text in three]).to(self._like)
        pooled = torch.cat([text.pooled for text in three]).to(self._like)
        frames = (spec.generated_frames - 1) // 4 + 1
        size = (frames, spec.generated_height // 8, spec.generated_width // 8)
        latents = initial_noise(spec.seed, (1, 16, *size)).to(self._device)
        shift = flow_shift(frames, size[1] * size[2] // 4)
        img_ids = position_ids(*size).to(self._device)
        cond = make_condition(latents.shape).expand(3, -1, -1).to(self._like)
        guidance = Guidance(spec.guidance_scale)
        mark("denoise")
        for index, (time, following) in enumerate(
            pairwise(timesteps(spec.num_inference_steps, shift))
        ):
            velocity = self._transformer(
                hidden_states=pack(latents).expand(3, -1, -1).to(self._like),
                cond=cond,
                encoder_hidden_states=sequence,
                pooled_projections=pooled,
                timestep=latents.new_full((3,), time),
                img_ids=img_ids,
                txt_ids=img_ids.new_zeros(sequence.shape[1], 3),
            ).sample
            c, u, z = unpack(velocity.float(), *size).split(1)
            scales = guidance.image_scales(index, spec.num_inference_steps, frames)
            guided = z + latents.new_tensor(scales).view(-1, 1, 1) * (u - z)
            guided = guided + guidance.text_scale(index) * (c - u)
            latents = latents + (following - time) * guided
            mark("step")
        mark("decode")
        scaled = (latents / self._vae.config.scaling_factor).to(self._like)
        return to_uint8(self._vae.decode(scaled).sample.float())

    @property
    def _like(self) -> torch.Tensor:
        weight: torch.Tensor = self._transformer.proj_out.weight
        return weight


def stock(model: str, folder: str | Path, device: str) -> StockMochi | UnskippedOpenSora:
    """Return what `model` is held against, with the weights of the checkpoint `folder`."""
    kind = StockMochi if model == "mochi" else UnskippedOpenSora
    return kind(str(folder), device)
