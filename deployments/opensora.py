"""Open-Sora 2.0 as a backend: its card, its checkpoint, and the generation of one video.

A plain class that `deployments.video_model.VideoModel` drives on one thread. torch is imported in
`load()` and later only, so that the wiring may ask for the card without it.

A clip longer than the model's own limit is made in segments: each starts from the last frame of
the one before, in the model's first-image mode, and that repeated frame is left out.
"""

import io
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from deployments import metrics
from deployments.core.checkpoints import Checkpoint, GenerationConfig, Published
from deployments.core.config import ModelConfig
from deployments.core.events import BackendEvent, Decoded, Notice, PhaseBegan, Waiting
from deployments.core.networks.figures import OpenSoraFigures
from deployments.core.networks.model import Clip
from deployments.core.qualities import Reuse, draft_notice, fast_notice
from deployments.core.spec import MAX_FRAMES, MAX_SEED, ModelCard, VideoSpec
from deployments.diffusion_backend import DiffusionBackend, truncation_notices
from deployments.ladder import Attempt
from deployments.placed_job import PlacedJob

if TYPE_CHECKING:
    import torch

    from deployments.models.opensora.loading import OpenSoraParts
    from deployments.models.opensora.sampling import TextEmbedding
    from deployments.models.opensora.text import PromptEncoder

FRAME_STEP = 4
LATENT_CHANNELS, LATENT_SIDE = 16, 8
TEXT_PARTS = ("text_encoder", "text_encoder_2")
LICENCE = (
    "Open-Sora 2.0 is published under Apache-2.0. Its autoencoder falls under the Tencent Hunyuan "
    "Community License, which does not cover the European Union, the United Kingdom and South "
    "Korea, and its training began from FLUX.1-dev, whose licence is non-commercial. Read all "
    "three before you use the weights."
)


class OpenSora(DiffusionBackend):
    """One loaded Open-Sora.

    Args:
        device: "cpu", or "cuda" for the first GPU that this process sees.
    """

    # hpcaitech/Open-Sora@7ad6a96 README and configs/diffusion/inference/768px.py: 768 px, up to
    # 129 frames, 50 steps, guidance 7.5 by text and 3.0 by image. Steps of a draft and threshold
    # are not measured with these weights; the threshold is what chengzeyi/ParaAttention@abcc6b7
    # first_block_cache/diffusers_adapters/flux.py takes for the same blocks.
    published: ClassVar[Published] = Published(
        repo_id="hpcai-tech/Open-Sora-v2",
        generation=GenerationConfig(
            native_area=768 * 768,
            max_frames=129,
            num_inference_steps=50,
            guidance_scale=7.5,
            image_guidance_scale=3.0,
            draft_steps=20,
            fast_threshold=0.05,
        ),
    )
    bundled: ClassVar[str] = "opensora-tiny"

    @staticmethod
    def card(config: ModelConfig, checkpoint: Checkpoint) -> ModelCard:
        """Return what Open-Sora can do with this checkpoint."""
        generation = checkpoint.generation
        return ModelCard(
            name=config.name,
            checkpoint=checkpoint.label,
            bundled=checkpoint.bundled,
            native_area=generation.native_area,
            max_frames=MAX_FRAMES,
            segment_frames=generation.max_frames,
            frame_step=FRAME_STEP,
            accepts_image=True,
            num_inference_steps=generation.num_inference_steps,
            guidance_scale=generation.guidance_scale,
            draft_steps=generation.draft_steps,
            fast_threshold=generation.fast_threshold,
            example_prompts=generation.example_prompts,
            licence="" if checkpoint.bundled else LICENCE,
        )

    @staticmethod
    def figures(checkpoint: Checkpoint) -> OpenSoraFigures:
        """Return what this checkpoint's networks take and compute."""
        scale = checkpoint.generation.image_guidance_scale
        return OpenSoraFigures.read(checkpoint.source, scale)

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, device: str) -> None:
        super().__init__(config, checkpoint, self.card(config, checkpoint), device, TEXT_PARTS)
        self._parts: OpenSoraParts
        self._prompts: PromptEncoder

    def load(self) -> None:
        """Load the checkpoint and decide which networks stay on the GPU.

        Raises:
            FileNotFoundError: a part is not on this disk.
            ValueError: it is not an Open-Sora checkpoint, or its weights do not fit;
                or a setting of the config cannot work here.
            RuntimeError: the blocks cannot be compiled.
        """
        from deployments.models.opensora import loading
        from deployments.models.opensora.text import PromptEncoder
        from deployments.models.opensora.warming import warm_up

        self._prepare(loading.OPENSORA, self.figures, LATENT_CHANNELS)
        on_cpu = self._placer.on_cpu
        parts = loading.load(
            self._checkpoint.source,
            self._device,
            on_cpu=on_cpu,
            weights=self._placer.mode.transformer,
        )
        self._parts = parts
        self._kernels.use(parts.transformer, warm_up, rests_on_cpu="transformer" in on_cpu)
        self._prompts = PromptEncoder(
            parts.tokenizer,
            parts.text_encoder,
            parts.tokenizer_2,
            parts.text_encoder_2,
            on_lookup=partial(metrics.record_prompt, self._name),
        )

    def generate(self, spec: VideoSpec, image: bytes | None) -> Iterator[BackendEvent]:
        """Make the frames of `spec`; each `next()` does at most one step or decodes one tile.

        Args:
            image: what the first frame shows, as an 8-bit RGB PNG; None where there is none.

        Raises:
            InsufficientVram: it does not fit on the GPU; before the start where that is foreseen.
        """
        with self._placer.job(spec, self._card, self._parts) as job:
            yield PhaseBegan("text")
            yield from self._placer.notices()
            positive, negative = yield from job.run("text", self._read, spec)
            if spec.quality == "draft":
                yield Notice(draft_notice(spec, self._card))
            start = None if image is None else _read_image(image, spec)
            first_frame, made = 0, Reuse()
            for segment in range(spec.segments):
                yield PhaseBegan("denoise")
                first = None
                if start is not None:
                    first = yield from job.run("encode", self._encode, start)
                latents = yield from job.run(
                    "denoise", self._denoise, spec, segment, positive, negative, first, made
                )
                yield PhaseBegan("decode")
                # Every segment but the first begins with the frame that the last one ended with.
                repeated = 1 if segment else 0
                start = yield from job.run(
                    "decode", self._decode, spec, latents, first_frame, repeated
                )
                first_frame += spec.generated_frames - repeated
            if spec.quality == "fast":
                yield Notice(fast_notice(spec, made))

    def _read(
        self, job: PlacedJob, spec: VideoSpec
    ) -> "Attempt[tuple[TextEmbedding, TextEmbedding]]":
        """Return the embeddings of the prompt and of the negative prompt."""
        from deployments.models.opensora.text import prompt_with_suffix

        job.take_text()
        motion_score = self._checkpoint.generation.motion_score
        # The negative prompt gets no suffix: hpcaitech/Open-Sora@7ad6a96 opensora/utils/sampling.py
        prompt = self._prompts.encode(prompt_with_suffix(spec.prompt, spec.fps, motion_score))
        negative = self._prompts.encode(spec.negative_prompt)
        yield from truncation_notices("Open-Sora", self._prompts.max_tokens, prompt, negative)
        return prompt.embedding, negative.embedding

    def _encode(self, job: PlacedJob, start: "torch.Tensor") -> "Attempt[torch.Tensor]":
        """Return the latents of a first frame; `start` is (1, 3, 1, H, W)."""
        from deployments.models.opensora.autoencode import encode_frames

        yield Waiting()
        return encode_frames(job.take("vae"), start)

    def _denoise(
        self,
        job: PlacedJob,
        spec: VideoSpec,
        segment: int,
        positive: "TextEmbedding",
        negative: "TextEmbedding",
        first: "torch.Tensor | None",
        made: Reuse,
    ) -> "Attempt[torch.Tensor]":
        """Return the latents of one segment; `first` are those of its first frame, if given.

        Args: made: its passes are added to this.
        """
        from deployments.models.opensora.sampling import denoise, initial_noise
        from deployments.models.opensora.schedule import Guidance, flow_shift, timesteps

        num_latents = (spec.generated_frames - 1) // FRAME_STEP + 1
        height, width = spec.generated_height // LATENT_SIDE, spec.generated_width // LATENT_SIDE
        one_frame = Clip(spec.generated_width, spec.generated_height, 1)
        seed = (spec.seed + segment) % (MAX_SEED + 1)
        transformer = job.take("transformer")
        steps = denoise(
            transformer,
            initial_noise(seed, (1, LATENT_CHANNELS, num_latents, height, width)),
            positive,
            negative,
            timesteps(
                spec.num_inference_steps, flow_shift(num_latents, one_frame.tokens(FRAME_STEP))
            ),
            Guidance(spec.guidance_scale, self._checkpoint.generation.image_guidance_scale),
            first=first,
        )
        taken = segment * spec.num_inference_steps
        return (yield from self._take_steps(spec, transformer, steps, made, taken))

    def _decode(
        self,
        job: PlacedJob,
        spec: VideoSpec,
        latents: "torch.Tensor",
        first_frame: int,
        repeated: int,
    ) -> "Attempt[torch.Tensor]":
        """Yield a segment's frames from `first_frame` of the clip on; return its last one.

        Runs without frames are yielded too: the job may be stopped after each tile.
        """
        from deployments.models.opensora.autoencode import (
            AUTHORS_TILING,
            LOW_MEMORY_TILING,
            decode,
            to_uint8,
        )

        vae = job.take("vae")
        tiling = LOW_MEMORY_TILING if spec.low_vram else AUTHORS_TILING
        with closing(decode(vae, latents, tiling)) as runs:
            for run in runs:
                wanted = run[:, :, repeated : repeated + spec.num_frames - first_frame]
                yield Decoded(to_uint8(wanted), first_frame)
                if run.shape[2]:
                    repeated, last = 0, run[:, :, -1:]
                first_frame += wanted.shape[2]
        return last.clamp(-1, 1)


def _read_image(image: bytes, spec: VideoSpec) -> "torch.Tensor":
    """Return the image as a first frame (1, 3, 1, H, W) in [-1, 1], at the generated size."""
    from PIL import Image

    from deployments.models.opensora.autoencode import preprocess_image

    with Image.open(io.BytesIO(image)) as opened:
        frame = preprocess_image(opened, spec.generated_height, spec.generated_width)
    return frame.unsqueeze(2)


BACKEND = OpenSora
