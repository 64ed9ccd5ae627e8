"""Open-Sora's sampler: from noise to latents, one denoising step at a time.

The authors (hpcaitech/Open-Sora@7ad6a96 opensora/utils/sampling.py, I2VDenoiser) evaluate the
network three times at every step:

    prompt + images, negative prompt + images, negative prompt alone

and combine them. Here a pass is left out where it cancels, which is exact: without images the
second and the third are one, and a scale of 1 removes a term. With the default guidance 50 steps
take 80 passes (text) or 110 (images) instead of 150. The passes of a step run one after the other
(a third of the activation memory), latents stay float32, and the caller may stop after any step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from deployments.models.opensora.packing import PATCH, make_condition, pack, position_ids, unpack
from deployments.models.opensora.schedule import Guidance
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel


@dataclass(frozen=True)
class TextEmbedding:
    """A prompt as the transformer reads it.

    Attributes:
        sequence: (B, S, D), T5's states, padding included; S is the same for all prompts.
        pooled: (B, P), CLIP's pooled state.
    """

    sequence: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True)
class Denoised:
    """The state after one step.

    Attributes:
        step: counts from 1.
        latents: (B, 16, T, h, w), float32, scaled; after the last step the result, with the given
            images in their places.
        predicted: like `latents`: the clean latents as the model foresees them, for previews, with
            the given images in their places.
    """

    step: int
    latents: torch.Tensor
    predicted: torch.Tensor


def initial_noise(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """Draw the noise of `seed`: float32 on the CPU, so that it is the same for every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


@torch.no_grad()
def denoise(
    transformer: OpenSoraTransformer3DModel,
    noise: torch.Tensor,
    positive: TextEmbedding,
    negative: TextEmbedding,
    timesteps: Sequence[float],
    guidance: Guidance,
    first: torch.Tensor | None = None,
    last: torch.Tensor | None = None,
) -> Iterator[Denoised]:
    """Turn noise into latents; each `next()` does one step, closing the generator ends the work.

    Args:
        transformer: its weights' dtype is that of the computation; one call at a time.
        noise: (B, 16, T, h, w), float32; h and w even.
        positive: one prompt for each of the B clips.
        negative: their negative prompts; not read at steps without guidance.
        timesteps: decreasing times from 1 to 0, see `schedule.timesteps`.
        guidance: its image scale counts only with `first` or `last`.
        first: (B, 16, 1, h, w), float32, scaled latents of the image that the clip begins with.
            Images need T of at least 2. The authors ignore them where T is 1; here it is an error.
        last: like `first`, of the image that the clip ends with.

    Raises:
        ValueError: an argument does not fit; its name is in the message.
    """
    _check(transformer, noise, timesteps, {"first": first, "last": last})
    _check_text(transformer, noise.shape[0], {"positive": positive, "negative": negative})
    latents = noise.to(transformer.device)
    passes = _Passes(transformer, latents.shape, positive, negative, first, last)
    transformer._reset_stateful_cache()
    try:
        for index, (time, following) in enumerate(pairwise(timesteps)):
            text = guidance.text_scale(index)
            image = guidance.image_scales(index, len(timesteps) - 1, latents.shape[2])
            velocity = passes.guided_velocity(latents, time, text, image)
            predicted = _put_back(latents - time * velocity, first, last)
            latents = latents + (following - time) * velocity
            if following == 0:
                latents = _put_back(latents, first, last)
            yield Denoised(index + 1, latents, predicted)
    finally:
        # A step cache that keeps its state would show this clip in the next one, or crash on
        # another size.
        transformer._reset_stateful_cache()


class _Passes:
    """The network with everything that stays the same from step to step."""

    def __init__(
        self,
        transformer: OpenSoraTransformer3DModel,
        latents_shape: Sequence[int],
        positive: TextEmbedding,
        negative: TextEmbedding,
        first: torch.Tensor | None,
        last: torch.Tensor | None,
    ) -> None:
        self._transformer = transformer
        self._positive, self._negative = self._placed(positive), self._placed(negative)
        self._img_ids = position_ids(*latents_shape[2:]).to(transformer.device)
        self._txt_ids = self._img_ids.new_zeros(positive.sequence.shape[1], 3)
        self._rotary = transformer.rotary_table(self._img_ids, self._txt_ids)
        self._without_images = self._weights_like(make_condition(latents_shape))
        self._with_images = self._weights_like(make_condition(latents_shape, first, last))
        self._has_images = first is not None or last is not None

    def guided_velocity(
        self, latents: torch.Tensor, time: float, text: float, image: Sequence[float]
    ) -> torch.Tensor:
        """Return noise minus clean, (B, 16, T, h, w) float32, under the given scales.

        z + image * (u - z) + text * (c - u), for the passes c: prompt + images, u: negative
        prompt + images, z: negative prompt alone.
        """
        velocity = cond = self._velocity("cond", latents, time)
        by_image = self._has_images and any(scale != 1 for scale in image)
        if text != 1 or by_image:
            uncond = self._velocity("uncond", latents, time)
            velocity = uncond + text * (cond - uncond)
        if by_image:
            # The third pass tells the images' pull apart from the prompt's: (u - z) beyond u.
            alone = self._velocity("uncond_image", latents, time)
            beyond = latents.new_tensor(image).view(-1, 1, 1) - 1
            velocity = velocity + beyond * (uncond - alone)
        return velocity

    def _velocity(self, branch: str, latents: torch.Tensor, time: float) -> torch.Tensor:
        text = self._positive if branch == "cond" else self._negative
        cond = self._without_images if branch == "uncond_image" else self._with_images
        with self._transformer.cache_context(branch):
            velocity: torch.Tensor = self._transformer(
                hidden_states=self._weights_like(pack(latents)),
                cond=cond,
                encoder_hidden_states=text.sequence,
                pooled_projections=text.pooled,
                timestep=latents.new_full(latents.shape[:1], time),
                img_ids=self._img_ids,
                txt_ids=self._txt_ids,
                image_rotary_emb=self._rotary,
                return_dict=False,
            )[0]
        return unpack(velocity.to(latents), *latents.shape[2:])

    def _placed(self, text: TextEmbedding) -> TextEmbedding:
        return TextEmbedding(self._weights_like(text.sequence), self._weights_like(text.pooled))

    def _weights_like(self, tensor: torch.Tensor) -> torch.Tensor:
        # Not autocast: as the authors do, normalisations give the weights' dtype too.
        return tensor.to(self._transformer.device, self._transformer.dtype)


def _put_back(
    latents: torch.Tensor, first: torch.Tensor | None, last: torch.Tensor | None
) -> torch.Tensor:
    """Return `latents` with the given images in their places."""
    if first is None and last is None:
        return latents
    latents = latents.clone()
    if first is not None:
        latents[:, :, :1] = first.to(latents)
    if last is not None:
        latents[:, :, -1:] = last.to(latents)
    return latents


def _check(
    transformer: OpenSoraTransformer3DModel,
    noise: torch.Tensor,
    timesteps: Sequence[float],
    images: dict[str, torch.Tensor | None],
) -> None:
    channels = transformer.config.in_channels // PATCH**2
    if noise.ndim != 5 or noise.shape[1] != channels:
        raise ValueError(f"noise must be (B, {channels}, T, h, w), got {tuple(noise.shape)}")
    if noise.dtype != torch.float32:
        raise ValueError(f"noise must be float32, got {noise.dtype}")
    if noise.shape[3] % PATCH or noise.shape[4] % PATCH:
        raise ValueError(f"h and w must be multiples of {PATCH}, got {tuple(noise.shape[3:])}")
    for name, image in images.items():
        if image is None:
            continue
        if noise.shape[2] < 2:
            raise ValueError(f"{name} needs a clip of at least 2 latent frames (5 frames), got 1")
        expected = (*noise.shape[:2], 1, *noise.shape[3:])
        if image.shape != expected:
            raise ValueError(f"{name} must be {expected}, got {tuple(image.shape)}")
    falling = all(time > following for time, following in pairwise(timesteps))
    if len(timesteps) < 2 or timesteps[0] != 1 or timesteps[-1] != 0 or not falling:
        raise ValueError("timesteps must decrease from 1 to 0")


def _check_text(
    transformer: OpenSoraTransformer3DModel, batch: int, prompts: dict[str, TextEmbedding]
) -> None:
    width, pooled = transformer.config.joint_attention_dim, transformer.config.pooled_projection_dim
    tokens = prompts["positive"].sequence.shape[1]
    for name, prompt in prompts.items():
        if prompt.sequence.shape != (batch, tokens, width):
            shape = tuple(prompt.sequence.shape)
            raise ValueError(f"{name}.sequence must be {(batch, tokens, width)}, got {shape}")
        if prompt.pooled.shape != (batch, pooled):
            shape = tuple(prompt.pooled.shape)
            raise ValueError(f"{name}.pooled must be {(batch, pooled)}, got {shape}")
