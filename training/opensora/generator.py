"""The tiny Open-Sora driven as the service drives it, for measuring."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deployments.models.opensora.autoencode import (
    decode,
    encode_frames,
    preprocess_image,
    to_uint8,
)
from deployments.models.opensora.loading import load
from deployments.models.opensora.sampling import denoise, initial_noise
from deployments.models.opensora.schedule import Guidance, flow_shift, timesteps
from deployments.models.opensora.text import PromptEncoder, prompt_with_suffix
from training.latents import PATCH
from training.opensora.latents import COMPONENTS, GROUP

FPS = 24


class OpenSoraGenerator:
    """A checkpoint in a folder, with the settings that are stored beside it."""

    def __init__(self, checkpoint: Path) -> None:
        self._parts = load(str(checkpoint), "cpu")
        self.settings: dict[str, Any] = json.loads(
            (checkpoint / "generation_config.json").read_text()
        )
        self._prompts = PromptEncoder(
            self._parts.tokenizer,
            self._parts.text_encoder,
            self._parts.tokenizer_2,
            self._parts.text_encoder_2,
        )

    def __call__(
        self,
        prompt: str,
        num_frames: int,
        side: int,
        seed: int,
        image: Image.Image | None = None,
        negative_prompt: str = "",
    ) -> npt.NDArray[np.uint8]:
        """A clip of (num_frames, side, side, 3), num_frames = 4k + 1, that begins with `image`."""
        told = prompt_with_suffix(prompt, FPS, self.settings["motion_score"])
        positive, negative = (self._prompts.encode(text) for text in (told, negative_prompt))
        first = None
        if image is not None:
            frame = preprocess_image(image, side, side)[:, :, None]
            first = encode_frames(self._parts.vae, frame)
        latent_frames, latent_side = (num_frames - 1) // GROUP + 1, side // PATCH
        steps = denoise(
            self._parts.transformer,
            initial_noise(seed, (1, COMPONENTS, latent_frames, latent_side, latent_side)),
            positive.embedding,
            negative.embedding,
            timesteps(
                self.settings["num_inference_steps"],
                flow_shift(latent_frames, (latent_side // 2) ** 2),
            ),
            Guidance(self.settings["guidance_scale"], self.settings["image_guidance_scale"]),
            first=first,
        )
        *_, last = steps
        return np.concatenate([to_uint8(part) for part in decode(self._parts.vae, last.latents)])
