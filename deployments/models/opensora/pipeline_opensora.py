"""Open-Sora 2.0 as a pipeline of diffusers, for use outside the service.

It only joins the functions of this package, which the service drives step by step itself.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from deployments.models.opensora import schedule
from deployments.models.opensora.autoencode import (
    AUTHORS_TILING,
    FRAMES_PER_LATENT,
    SIDE_PER_LATENT,
    Tiling,
    decode,
    encode_frames,
    preprocess_image,
)
from deployments.models.opensora.packing import PATCH
from deployments.models.opensora.sampling import denoise
from deployments.models.opensora.schedule import Guidance
from deployments.models.opensora.text import PromptEncoder, prompt_with_suffix
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel

SIDE_STEP = SIDE_PER_LATENT * PATCH
MAX_FRAMES = 129

StepCallback = Callable[["OpenSoraPipeline", int, float, dict[str, torch.Tensor]], Any]


@dataclass
class OpenSoraPipelineOutput(BaseOutput):
    """The video.

    Attributes:
        frames: one clip; its type follows from `output_type`.
    """

    frames: Any


class OpenSoraPipeline(DiffusionPipeline):
    """Text and images to video with Open-Sora 2.0.

    Args:
        tokenizer: CLIP's.
        text_encoder: CLIP's; its pooled state is read.
        tokenizer_2: T5's; prompts are padded to its `model_max_length`, at most 512.
        text_encoder_2: T5's; all its states are read.
        transformer: predicts the velocity.
        vae: between frames and latents.
        scheduler: owns the schedule; the step itself is Euler's.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->transformer->vae"

    def __init__(
        self,
        tokenizer: CLIPTokenizer,
        text_encoder: CLIPTextModel,
        tokenizer_2: T5Tokenizer,
        text_encoder_2: T5EncoderModel,
        transformer: OpenSoraTransformer3DModel,
        vae: AutoencoderKLHunyuanVideo,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        # With another shift `set_timesteps` would ignore ours without a word.
        shift = (scheduler.config.use_dynamic_shifting, scheduler.config.time_shift_type)
        if shift != (True, "linear"):
            raise ValueError(
                "scheduler must have use_dynamic_shifting and a linear time_shift_type"
            )
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            tokenizer_2=tokenizer_2,
            text_encoder_2=text_encoder_2,
            transformer=transformer,
            vae=vae,
            scheduler=scheduler,
        )

    def __call__(
        self,
        prompt: str,
        image: Image.Image | None = None,
        last_image: Image.Image | None = None,
        negative_prompt: str = "",
        height: int = 192,
        width: int = 336,
        num_frames: int = MAX_FRAMES,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        image_guidance_scale: float = 3.0,
        text_oscillation: bool = True,
        image_oscillation: bool = True,
        temporal_image_scaling: bool = True,
        flow_shift: float | None = None,
        motion_score: int = 4,
        fps: int = 24,
        generator: torch.Generator | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: StepCallback | None = None,
        return_dict: bool = True,
        tiling: Tiling = AUTHORS_TILING,
    ) -> OpenSoraPipelineOutput | tuple[Any]:
        """Make a clip. The mode follows from the images: text, first image, last image, or both.

        Args:
            prompt: what to show; sentences on speed and motion are added to it.
            image: RGB; the clip begins with it. Resized to fill the frame and cropped.
            last_image: likewise, the clip ends with it.
            negative_prompt: what not to show.
            height: in pixels, a multiple of 16.
            width: in pixels, a multiple of 16.
            num_frames: 4k + 1, from 1 to 129; with images at least 5.
            num_inference_steps: denoising steps.
            guidance_scale: of the prompt; 1 means none.
            image_guidance_scale: of the images; 1 means none.
            text_oscillation: from step 10 on, guide by text at every other step only.
            image_oscillation: likewise for the images.
            temporal_image_scaling: let the images' scale grow along the clip and fade over time.
            flow_shift: shift of the schedule; None derives it from the clip's size, 1 means none.
            motion_score: 1 (still) to 15.
            fps: the speed that the prompt asks for.
            generator: draws the noise, in float32 on its own device.
            latents: the noise, (1, 16, T, height / 8, width / 8), float32, instead of `generator`.
            output_type: "pil", "np", "pt", or "latent" for scaled latents.
            callback_on_step_end: called with the pipeline, the step from 0, its time from 1 to 0
                and `latents` and `predicted`, see `Denoised`. It watches; to stop, raise.
            return_dict: False gives a tuple instead of an output object.
            tiling: how the clip is cut for decoding.

        Raises:
            ValueError: an argument does not fit; its name is in the message.
        """
        _check_size(height, width, num_frames)
        guidance = Guidance(
            guidance_scale,
            image_guidance_scale,
            text_oscillation,
            image_oscillation,
            temporal_image_scaling,
        )
        encoder = PromptEncoder(
            self.tokenizer, self.text_encoder, self.tokenizer_2, self.text_encoder_2
        )
        positive = encoder.encode(prompt_with_suffix(prompt, fps, motion_score)).embedding
        negative = encoder.encode(negative_prompt).embedding
        pixels = [
            None if picture is None else preprocess_image(picture, height, width)[:, :, None]
            for picture in (image, last_image)
        ]
        first, last = (
            None if frame is None else encode_frames(self.vae, frame) for frame in pixels
        )
        shape = _latents_shape(height, width, num_frames, self.vae.config.latent_channels)
        noise = randn_tensor(shape, generator) if latents is None else latents
        if noise.shape != shape:
            raise ValueError(f"latents must be {shape}, got {tuple(noise.shape)}")
        times = self._times(shape, num_inference_steps, flow_shift)
        steps = denoise(self.transformer, noise, positive, negative, times, guidance, first, last)
        with closing(steps), self.progress_bar(total=num_inference_steps) as progress:
            for state in steps:
                noise = state.latents
                if callback_on_step_end is not None:
                    watched = {"latents": noise, "predicted": state.predicted}
                    callback_on_step_end(self, state.step - 1, times[state.step - 1], watched)
                progress.update()
        frames = self._frames(noise, output_type, tiling)
        self.maybe_free_model_hooks()
        return OpenSoraPipelineOutput(frames) if return_dict else (frames,)

    def _times(
        self, shape: tuple[int, ...], num_steps: int, flow_shift: float | None
    ) -> list[float]:
        if flow_shift is None:
            tokens = (shape[3] // PATCH) * (shape[4] // PATCH)
            flow_shift = schedule.flow_shift(shape[2], tokens)
        sigmas = schedule.timesteps(num_steps, alpha=1.0)[:-1]
        self.scheduler.set_timesteps(sigmas=sigmas, mu=flow_shift)
        times: list[float] = self.scheduler.sigmas.tolist()
        return times

    def _frames(self, latents: torch.Tensor, output_type: str, tiling: Tiling) -> Any:
        if output_type == "latent":
            return latents
        video = torch.cat(list(decode(self.vae, latents, tiling)), dim=2)
        return VideoProcessor(SIDE_PER_LATENT).postprocess_video(video, output_type)


def _check_size(height: int, width: int, num_frames: int) -> None:
    for name, side in (("height", height), ("width", width)):
        if side < SIDE_STEP or side % SIDE_STEP:
            raise ValueError(f"{name} must be a multiple of {SIDE_STEP}, got {side}")
    if num_frames % FRAMES_PER_LATENT != 1 or not 1 <= num_frames <= MAX_FRAMES:
        raise ValueError(f"num_frames must be 4k + 1 from 1 to {MAX_FRAMES}, got {num_frames}")


def _latents_shape(height: int, width: int, num_frames: int, channels: int) -> tuple[int, ...]:
    latent_frames = (num_frames - 1) // FRAMES_PER_LATENT + 1
    return (1, channels, latent_frames, height // SIDE_PER_LATENT, width // SIDE_PER_LATENT)
