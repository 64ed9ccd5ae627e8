"""Mochi 1 as a backend: its card, its checkpoint, and the generation of one video.

A plain class that `deployments.video_model.VideoModel` drives on one thread. torch is imported in
`load()` only, so that the wiring may ask for the card without it.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from deployments import metrics
from deployments.core.checkpoints import Checkpoint, GenerationConfig, Published
from deployments.core.config import ModelConfig
from deployments.core.events import BackendEvent, Decoded, Notice, PhaseBegan
from deployments.core.networks.figures import MochiFigures
from deployments.core.qualities import Reuse, draft_notice, fast_notice
from deployments.core.spec import ModelCard, VideoSpec
from deployments.diffusion_backend import DiffusionBackend, truncation_notices
from deployments.ladder import Attempt
from deployments.placed_job import PlacedJob

if TYPE_CHECKING:
    import torch
    from diffusers import MochiTransformer3DModel

    from deployments.models.mochi1.loading import MochiParts
    from deployments.models.mochi1.text import PromptEncoder

FRAME_STEP = 6
LATENT_CHANNELS, LATENT_SIDE = 12, 8
IN_TILES = "low_vram: the frames were decoded in tiles, which changes them a little."


class Mochi(DiffusionBackend):
    """One loaded Mochi.

    Args:
        device: "cpu", or "cuda" for the first GPU that this process sees.
    """

    # genmo/mochi-1-preview's README: 848x480, up to 163 frames; the defaults are those of
    # diffusers 0.42.1 pipelines/mochi/pipeline_mochi.py, a draft is the quick example of its
    # documentation. The schedule of FastVideo/FastMochi-diffusers: its README. The threshold is
    # that of chengzeyi/ParaAttention@fb78944 first_block_cache/diffusers_adapters/mochi.py, not
    # measured here.
    published: ClassVar[Published] = Published(
        repo_id="genmo/mochi-1-preview",
        generation=GenerationConfig(
            native_area=848 * 480,
            max_frames=163,
            num_inference_steps=64,
            guidance_scale=4.5,
            draft_steps=28,
            fast_threshold=0.06,
        ),
        distilled=Published(
            repo_id="FastVideo/FastMochi-diffusers",
            generation=GenerationConfig(
                native_area=848 * 480,
                max_frames=163,
                num_inference_steps=8,
                guidance_scale=1.5,
                threshold_noise=0.1,
                linear_steps=6,
            ),
        ),
    )
    bundled: ClassVar[str] = "mochi-tiny"

    @staticmethod
    def card(config: ModelConfig, checkpoint: Checkpoint) -> ModelCard:
        """Return what Mochi can do with this checkpoint."""
        generation, draft = checkpoint.generation, checkpoint.draft
        return ModelCard(
            name=config.name,
            checkpoint=checkpoint.label,
            bundled=checkpoint.bundled,
            native_area=generation.native_area,
            max_frames=generation.max_frames,
            frame_step=FRAME_STEP,
            accepts_image=False,
            num_inference_steps=generation.num_inference_steps,
            guidance_scale=generation.guidance_scale,
            draft_steps=draft.generation.num_inference_steps if draft else generation.draft_steps,
            draft_guidance_scale=draft.generation.guidance_scale if draft else None,
            draft_checkpoint=draft.label if draft else "",
            fast_threshold=generation.fast_threshold,
            example_prompts=generation.example_prompts,
        )

    @staticmethod
    def figures(checkpoint: Checkpoint) -> MochiFigures:
        """Return what this checkpoint's networks take and compute."""
        return MochiFigures.read(checkpoint.source)

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, device: str) -> None:
        card = self.card(config, checkpoint)
        super().__init__(config, checkpoint, card, device, ("text_encoder",))
        self._parts: MochiParts
        self._drafter: MochiTransformer3DModel | None = None
        self._prompts: PromptEncoder

    def load(self) -> None:
        """Load the checkpoint and decide which networks stay on the GPU.

        Raises:
            FileNotFoundError: a part is not on this disk.
            ValueError: it is not a Mochi checkpoint, or its weights do not fit;
                or a setting of the config cannot work here.
            RuntimeError: the blocks cannot be compiled.
        """
        from deployments.models.mochi1 import loading
        from deployments.models.mochi1.text import PromptEncoder
        from deployments.models.mochi1.warming import warm_up

        self._prepare(loading.MOCHI, self.figures, LATENT_CHANNELS)
        source, weights = self._checkpoint.source, self._placer.mode.transformer
        if draft := self._checkpoint.draft:
            # Before the others, while the GPU has room for it, where it is to be compiled.
            self._drafter = loading.load_drafter(draft.source, self._device, source, weights)
            self._kernels.use(self._drafter, warm_up, rests_on_cpu=True)
        on_cpu = self._placer.on_cpu
        self._parts = loading.load(source, self._device, on_cpu=on_cpu, weights=weights)
        self._kernels.use(self._parts.transformer, warm_up, rests_on_cpu="transformer" in on_cpu)
        self._prompts = PromptEncoder(
            self._parts.tokenizer,
            self._parts.text_encoder,
            on_lookup=partial(metrics.record_prompt, self._name),
        )

    def generate(self, spec: VideoSpec, image: bytes | None = None) -> Iterator[BackendEvent]:
        """Make the frames of `spec`; each `next()` does at most one step or decodes one latent.

        `image` is never given: the card says that Mochi takes none.

        Raises:
            InsufficientVram: it does not fit on the GPU; before the start where that is foreseen.
        """
        stand_in = self._drafter if spec.quality == "draft" else None
        with self._placer.job(spec, self._card, self._parts, stand_in) as job:
            yield PhaseBegan("text")
            yield from self._placer.notices()
            positive, negative = yield from job.run("text", self._read, spec)
            if spec.quality == "draft":
                yield Notice(draft_notice(spec, self._card))
            yield PhaseBegan("denoise")
            latents = yield from job.run("denoise", self._denoise, spec, positive, negative)
            yield PhaseBegan("decode")
            yield from job.run("decode", self._decode, spec, latents)

    def _read(
        self, job: PlacedJob, spec: VideoSpec
    ) -> "Attempt[tuple[torch.Tensor, torch.Tensor]]":
        """Return the embeddings of the prompt and of the negative prompt."""
        from deployments.models.mochi1.text import MAX_TOKENS

        job.take_text()
        positive = self._prompts.encode(spec.prompt)
        negative = self._prompts.encode(spec.negative_prompt)
        yield from truncation_notices("Mochi", MAX_TOKENS, positive, negative)
        return positive.embedding, negative.embedding

    def _denoise(
        self, job: PlacedJob, spec: VideoSpec, positive: "torch.Tensor", negative: "torch.Tensor"
    ) -> "Attempt[torch.Tensor]":
        from deployments.models.mochi1.sampling import denoise, initial_noise

        num_latents = (spec.generated_frames - 1) // FRAME_STEP + 1
        height, width = spec.generated_height // LATENT_SIDE, spec.generated_width // LATENT_SIDE
        latents = initial_noise(spec.seed, (1, LATENT_CHANNELS, num_latents, height, width))
        transformer = job.take("transformer")
        steps = denoise(
            transformer,
            latents,
            positive,
            negative,
            _sigmas(self._generation_of(spec), spec.num_inference_steps),
            spec.guidance_scale,
        )
        made = Reuse()
        latents = yield from self._take_steps(spec, transformer, steps, made)
        if spec.quality == "fast":
            yield Notice(fast_notice(spec, made))
        return latents

    def _generation_of(self, spec: VideoSpec) -> GenerationConfig:
        """Return the settings of the checkpoint whose transformer makes `spec`."""
        draft = self._checkpoint.draft if spec.quality == "draft" else None
        return (draft or self._checkpoint).generation

    def _decode(self, job: PlacedJob, spec: VideoSpec, latents: "torch.Tensor") -> "Attempt[None]":
        from deployments.models.mochi1.decode import (
            LATENTS_PER_TILE,
            LOW_MEMORY_TILES,
            decode,
            denormalise,
            to_uint8,
        )

        vae = job.take("vae")
        tiles = LOW_MEMORY_TILES if spec.low_vram else None
        if tiles and max(spec.generated_width, spec.generated_height) > tiles.side:
            yield Notice(IN_TILES)
        # One frame at a time takes the least memory, which counts on the GPU.
        frames_per_pass = None if self._device == "cpu" else 1
        first_frame = 0
        runs = decode(
            vae,
            denormalise(vae, latents),
            LATENTS_PER_TILE if spec.low_vram else 1,
            frames_per_pass=frames_per_pass,
            tiles=tiles,
        )
        with closing(runs):
            for run in runs:
                frames = to_uint8(run[:, :, : spec.num_frames - first_frame])
                yield Decoded(frames, first_frame)
                first_frame += len(frames)


def _sigmas(generation: GenerationConfig, num_steps: int) -> list[float]:
    """Return the checkpoint's schedule; its linear part keeps its share of other step counts."""
    from deployments.models.mochi1.sampling import linear_quadratic

    linear_steps = generation.linear_steps
    if linear_steps is not None and num_steps != generation.num_inference_steps:
        share = linear_steps / generation.num_inference_steps
        linear_steps = min(max(1, round(num_steps * share)), num_steps - 1)
    return linear_quadratic(num_steps, generation.threshold_noise, linear_steps)


BACKEND = Mochi
