"""Open-Sora 2.0 as a backend: its card, its checkpoint, and the generation of one video.

A plain class that `deployments.video_model.VideoModel` drives on one thread. torch is imported in
`load()` and later only, so that the wiring may ask for the card without it.

A clip longer than the model's own limit is made in segments: each starts from the last frame of
the one before, in the model's first-image mode, and that repeated frame is left out.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from deployments import metrics
from deployments.core.checkpoints import Checkpoint, GenerationConfig, Published
from deployments.core.config import ModelConfig
from deployments.core.events import (
    BackendEvent,
    Decoded,
    Notice,
    PhaseBegan,
    Preview,
    Step,
    Waiting,
)
from deployments.core.networks.figures import OpenSoraFigures
from deployments.core.networks.model import Clip
from deployments.core.qualities import Reuse, draft_notice, fast_notice
from deployments.core.spec import MAX_FRAMES, MAX_SEED, ModelCard, VideoSpec
from deployments.device_memory import memory_of
from deployments.kernels import Kernels
from deployments.ladder import Attempt
from deployments.loras import Loras
from deployments.placed_job import PlacedJob
from deployments.placement import PlacedBackend, Placer, use_threads

if TYPE_CHECKING:
    import torch

    from deployments.models.opensora.loading import OpenSoraParts
    from deployments.models.opensora.sampling import TextEmbedding
    from deployments.models.opensora.text import PromptEncoder
    from deployments.models.previewing import Previews

FRAME_STEP = 4
LATENT_CHANNELS, LATENT_SIDE = 16, 8
TEXT_PARTS = ("text_encoder", "text_encoder_2")
LICENCE = (
    "Open-Sora 2.0 is published under Apache-2.0. Its autoencoder falls under the Tencent Hunyuan "
    "Community License, which does not cover the European Union, the United Kingdom and South "
    "Korea, and its training began from FLUX.1-dev, whose licence is non-commercial. Read all "
    "three before you use the weights."
)
TRUNCATED = "The {name} is longer than the {most} tokens that Open-Sora reads; its end was cut."


class OpenSora(PlacedBackend):
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
        self._name, self._cpu_threads = config.name, config.cpu_threads
        self._checkpoint, self._device = checkpoint, device
        self._card = self.card(config, checkpoint)
        device_memory = memory_of(device, config.memory_fraction)
        self._loras = Loras(config.loras_dir)
        self._kernels = Kernels(config, device)
        self._placer = Placer(
            config.name, device, TEXT_PARTS, device_memory, self._loras, config.weights
        )
        self._parts: OpenSoraParts
        self._prompts: PromptEncoder
        self._previews_of: Callable[[int], Previews]

    def load(self) -> None:
        """Load the checkpoint and decide which networks stay on the GPU.

        Raises:
            FileNotFoundError: a part is not on this disk.
            ValueError: it is not an Open-Sora checkpoint, or its weights do not fit;
                or a setting of the config cannot work here.
            RuntimeError: the blocks cannot be compiled.
        """
        from deployments.models.loading import local_folder
        from deployments.models.opensora import loading
        from deployments.models.opensora.text import PromptEncoder
        from deployments.models.opensora.warming import warm_up
        from deployments.models.previewing import PreviewMap, Previews

        if self._device == "cpu":
            use_threads(self._cpu_threads)
        source, generation = self._checkpoint.source, self._checkpoint.generation
        loading.OPENSORA.check_folder(local_folder(source))
        largest = Clip.largest(generation.native_area, generation.max_frames)
        self._placer.plan(self.figures(self._checkpoint), largest)
        self._kernels.check(self._placer.mode.transformer)
        parts = loading.load(
            source,
            self._device,
            on_cpu=self._placer.on_cpu,
            weights=self._placer.mode.transformer,
        )
        self._parts = parts
        self._kernels.use(
            self._parts.transformer,
            warm_up,
            rests_on_cpu="transformer" in self._placer.on_cpu,
        )
        preview_map = PreviewMap.read(local_folder(source), LATENT_CHANNELS)
        self._previews_of = partial(Previews, preview_map)
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
        for name, encoded in (("prompt", prompt), ("negative prompt", negative)):
            if encoded.truncated:
                yield Notice(TRUNCATED.format(name=name, most=self._prompts.max_tokens))
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
        from deployments.models.step_cache import step_cache

        num_latents = (spec.generated_frames - 1) // FRAME_STEP + 1
        height, width = spec.generated_height // LATENT_SIDE, spec.generated_width // LATENT_SIDE
        one_frame = Clip(spec.generated_width, spec.generated_height, 1)
        seed = (spec.seed + segment) % (MAX_SEED + 1)
        transformer = job.take("transformer")
        previews = self._previews_of(spec.total_steps)
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
        with (
            self._loras.active(spec.loras, transformer),
            step_cache(transformer, spec.fast_threshold) as cache,
            closing(steps),
        ):
            for state in steps:
                latents = state.latents
                done = segment * spec.num_inference_steps + state.step
                yield Step(done, spec.total_steps)
                if picture := previews.after(done, state.predicted):
                    yield Preview(done, picture)
        made.add(cache.passes, cache.reused)
        return latents

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
