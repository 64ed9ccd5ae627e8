"""What each model family takes and computes, put together from its networks."""

from dataclasses import dataclass, field

from deployments.core.networks.config import read_network
from deployments.core.networks.hunyuan_vae import HunyuanAutoencoder, tiles
from deployments.core.networks.mochi import MochiAutoencoder, MochiTransformer
from deployments.core.networks.model import Activations, Clip, Counts, Work
from deployments.core.networks.opensora import OpenSoraTransformer
from deployments.core.networks.text import ClipTextEncoder, T5Encoder
from deployments.core.spec import VideoSpec

MOCHI_FRAMES_PER_LATENT, OPENSORA_FRAMES_PER_LATENT = 6, 4
# The longest prompts that the models read; most are shorter, which Mochi gains by, in attention.
MOCHI_TEXT_TOKENS, OPENSORA_TEXT_TOKENS = 256, 512
# Open-Sora's guidance rests at every other step from this one on; models/opensora/schedule.py.
OSCILLATION_FROM = 10


@dataclass(frozen=True)
class MochiFigures:
    """Mochi with the networks of one checkpoint; by default the published ones."""

    transformer: MochiTransformer = field(default_factory=MochiTransformer)
    text_encoder: T5Encoder = field(default_factory=T5Encoder)
    vae: MochiAutoencoder = field(default_factory=MochiAutoencoder)

    @classmethod
    def read(cls, source: str) -> "MochiFigures":
        """Return the figures of a checkpoint on this disk; see `read_network`."""
        return cls(
            read_network(MochiTransformer, source, "transformer"),
            read_network(T5Encoder, source, "text_encoder"),
            read_network(MochiAutoencoder, source, "vae"),
        )

    def counts(self) -> Counts:
        """Return the sizes of its networks."""
        return _counts(
            self.transformer, self.text_encoder.num_parameters(), self.vae.num_parameters()
        )

    def activations(
        self, clip: Clip, itemsize: int, *, low_vram: bool, conditioned: bool
    ) -> Activations:
        """Return what each phase takes; `low_vram` decodes in tiles, and there are no images."""
        visual = clip.tokens(MOCHI_FRAMES_PER_LATENT)
        decode = self.vae.tiled_activation_bytes if low_vram else self.vae.activation_bytes
        return Activations(
            text=self.text_encoder.activation_bytes(MOCHI_TEXT_TOKENS, itemsize),
            encode=None,
            denoise=self.transformer.activation_bytes(visual, MOCHI_TEXT_TOKENS, itemsize),
            decode=decode(clip.width, clip.height, itemsize),
            kept=_kept_bytes(visual * self.transformer.width * itemsize, branches=2),
        )

    def lora_bytes(self, clip: Clip, itemsize: int, widest: int) -> int:
        """Return what LoRA adds to `denoise`; `widest` is the most channels of a changed layer."""
        visual = clip.tokens(MOCHI_FRAMES_PER_LATENT)
        return self.transformer.lora_bytes(visual, itemsize, widest)

    def work(self, spec: VideoSpec) -> Work:
        """Return what there is to compute for `spec`, with the longest prompt.

        An empty negative prompt costs no pass through the text encoder.
        """
        clip = Clip.of(spec)
        visual = clip.tokens(MOCHI_FRAMES_PER_LATENT)
        prompts = [MOCHI_TEXT_TOKENS, MOCHI_TEXT_TOKENS if spec.negative_prompt else 0]
        passes = prompts if spec.guidance_scale != 1 else prompts[:1]
        step = sum(self.transformer.flops(visual, tokens) for tokens in passes)
        decode = self.vae.tiled_flops if spec.low_vram else self.vae.flops
        return Work(
            text_flops=sum(self.text_encoder.flops(tokens) for tokens in prompts),
            encode_flops=0,
            step_flops=step,
            passes=len(passes) * spec.num_inference_steps,
            denoise_flops=step * spec.num_inference_steps,
            decode_flops=decode(clip.width, clip.height, clip.latents(MOCHI_FRAMES_PER_LATENT)),
        )


@dataclass(frozen=True)
class OpenSoraFigures:
    """Open-Sora with the networks of one checkpoint; by default the published ones.

    Attributes:
        image_guidance_scale: of the checkpoint; 1 would save passes.
    """

    transformer: OpenSoraTransformer = field(default_factory=OpenSoraTransformer)
    clip_encoder: ClipTextEncoder = field(default_factory=ClipTextEncoder)
    t5_encoder: T5Encoder = field(default_factory=T5Encoder)
    vae: HunyuanAutoencoder = field(default_factory=HunyuanAutoencoder)
    image_guidance_scale: float = 3.0

    @classmethod
    def read(cls, source: str, image_guidance_scale: float) -> "OpenSoraFigures":
        """Return the figures of a checkpoint on this disk; see `read_network`."""
        return cls(
            read_network(OpenSoraTransformer, source, "transformer"),
            read_network(ClipTextEncoder, source, "text_encoder"),
            read_network(T5Encoder, source, "text_encoder_2"),
            read_network(HunyuanAutoencoder, source, "vae"),
            image_guidance_scale,
        )

    def counts(self) -> Counts:
        """Return the sizes of its networks."""
        text = self.clip_encoder.num_parameters() + self.t5_encoder.num_parameters()
        return _counts(self.transformer, text, self.vae.num_parameters())

    def activations(
        self, clip: Clip, itemsize: int, *, low_vram: bool, conditioned: bool
    ) -> Activations:
        """Return what each phase takes; `low_vram` decodes some frames at a time."""
        visual = clip.tokens(OPENSORA_FRAMES_PER_LATENT)
        decode = [self.vae.decode_bytes(*tile, itemsize) for tile in _tiles(clip, in_time=low_vram)]
        encode = [
            self.vae.encode_bytes(rows, columns, itemsize)
            for _, rows, columns in _tiles(Clip(clip.width, clip.height, 1), in_time=False)
        ]
        return Activations(
            text=self.t5_encoder.activation_bytes(OPENSORA_TEXT_TOKENS, itemsize),
            encode=max(encode) if conditioned else None,
            denoise=self.transformer.activation_bytes(visual, OPENSORA_TEXT_TOKENS, itemsize),
            decode=max(decode),
            kept=_kept_bytes(
                visual * self.transformer.width * itemsize, branches=3 if conditioned else 2
            ),
        )

    def lora_bytes(self, clip: Clip, itemsize: int, widest: int) -> int:
        """Return the most that LoRA adds to `denoise`, whichever layers it changes."""
        visual = clip.tokens(OPENSORA_FRAMES_PER_LATENT)
        return self.transformer.lora_bytes(visual, OPENSORA_TEXT_TOKENS, itemsize)

    def work(self, spec: VideoSpec) -> Work:
        """Return what there is to compute for `spec`: the passes that do not cancel."""
        clip = Clip.of(spec)
        one_pass = self.transformer.flops(
            clip.tokens(OPENSORA_FRAMES_PER_LATENT), OPENSORA_TEXT_TOKENS
        )
        # Each segment but the first begins with the last frame of the one before.
        conditioned = [spec.conditioned or segment > 0 for segment in range(spec.segments)]
        passes = [self._passes(spec, with_image) for with_image in conditioned]
        frame = _tiles(Clip(clip.width, clip.height, 1), in_time=False)
        encode = sum(self.vae.encode_flops(rows, columns) for _, rows, columns in frame)
        decode = sum(self.vae.decode_flops(*tile) for tile in _tiles(clip, in_time=spec.low_vram))
        prompt = self.t5_encoder.flops(OPENSORA_TEXT_TOKENS) + self.clip_encoder.flops()
        return Work(
            text_flops=2 * prompt,
            encode_flops=encode * sum(conditioned),
            step_flops=one_pass * max(map(max, passes)),
            passes=sum(map(sum, passes)),
            denoise_flops=one_pass * sum(map(sum, passes)),
            decode_flops=decode * spec.segments,
        )

    def _passes(self, spec: VideoSpec, with_image: bool) -> list[int]:
        """Return the passes of each step, as models/opensora/sampling.py makes them."""
        by_text = spec.guidance_scale != 1
        by_image = with_image and self.image_guidance_scale != 1
        guided = 1 + (by_text or by_image) + by_image
        steps = range(spec.num_inference_steps)
        return [1 if step >= OSCILLATION_FROM and step % 2 else guided for step in steps]


def _kept_bytes(tokens_bytes: int, branches: int) -> int:
    """Return what models/step_cache.py keeps: a tensor a branch of guidance, and one to decide by.

    Args: tokens_bytes: the video tokens inside the transformer.
    """
    return (branches + 1) * tokens_bytes


def _counts(
    transformer: MochiTransformer | OpenSoraTransformer, text_encoder: int, vae: int
) -> Counts:
    in_blocks, in_norms = transformer.matrices()
    return Counts(
        text_encoder=text_encoder,
        transformer=transformer.num_parameters(),
        vae=vae,
        in_block=transformer.num_in_block(),
        outside_blocks=transformer.num_outside_blocks(),
        kept_from_fp8=transformer.num_kept_from_fp8(),
        largest_layer=transformer.num_in_largest_layer(),
        in_blocks=in_blocks,
        in_norms=in_norms,
    )


def _tiles(clip: Clip, *, in_time: bool) -> list[tuple[int, int, int]]:
    return list(tiles(clip.num_frames, clip.height, clip.width, in_time=in_time))
