"""What a model's figures are about: the size of a clip, and what a model states of it."""

from dataclasses import dataclass
from typing import Protocol

from pydantic import Field, computed_field

from deployments.core.spec import AREA_TOLERANCE, PATCH, Frozen, VideoSpec


@dataclass(frozen=True)
class Clip:
    """The size of what a network generates, in pixels and frames."""

    width: int
    height: int
    num_frames: int

    @classmethod
    def of(cls, spec: VideoSpec) -> "Clip":
        """Return the clip that the network makes for `spec`, or each segment of it."""
        return cls(spec.generated_width, spec.generated_height, spec.generated_frames)

    @classmethod
    def largest(cls, native_area: int, max_frames: int) -> "Clip":
        """Return the largest clip that a checkpoint generates: longest, and a square of most
        area."""
        side = int((native_area * AREA_TOLERANCE) ** 0.5) // PATCH * PATCH
        return cls(side, side, max_frames)

    def latents(self, frames_per_latent: int) -> int:
        """Return its length in latent frames, the first of which stands for one frame."""
        return (self.num_frames - 1) // frames_per_latent + 1

    def tokens(self, frames_per_latent: int) -> int:
        """Return the number of visual tokens that a transformer sees."""
        return self.latents(frames_per_latent) * (self.height // PATCH) * (self.width // PATCH)


@dataclass(frozen=True)
class Counts:
    """The numbers of weights of a model's networks; text encoders together.

    Attributes:
        in_block: of the transformer's largest block.
        outside_blocks: of the transformer, besides its blocks.
        kept_from_fp8: of the transformer's, those that 8 bits do not suffice for.
        largest_layer: of the transformer's largest matrix.
        in_blocks: the matrices in the transformer's blocks, but for those of `in_norms`.
        in_norms: the matrices that modulate the blocks' norms.
    """

    text_encoder: int
    transformer: int
    vae: int
    in_block: int
    outside_blocks: int
    kept_from_fp8: int
    largest_layer: int
    in_blocks: "Matrices"
    in_norms: "Matrices"


@dataclass(frozen=True)
class Matrices:
    """Some linear layers: the number of weights without biases, and of output channels."""

    weights: int
    rows: int


@dataclass(frozen=True)
class Activations:
    """The most tensors besides weights that are alive together, in bytes, in each phase.

    Attributes:
        encode: of the first frame's image; None where there is none.
        denoise: of one pass.
        kept: from step to step besides, where `quality: fast` reuses passes.
    """

    text: int
    encode: int | None
    denoise: int
    decode: int
    kept: int


class Work(Frozen):
    """The floating point operations of a video; a multiplication and an addition are two."""

    text_flops: int
    encode_flops: int = Field(description="Of first frames, in segments that have one.")
    step_flops: int = Field(description="Of a denoising step with all its passes.")
    passes: int = Field(description="Passes through the transformer, of all steps and segments.")
    denoise_flops: int = Field(description="Of all these passes.")
    decode_flops: int

    @computed_field  # type: ignore[prop-decorator]  # pydantic documents it so
    @property
    def total_flops(self) -> int:
        """All phases together."""
        return self.text_flops + self.encode_flops + self.denoise_flops + self.decode_flops


class ModelFigures(Protocol):
    """What a model family states of a checkpoint; see `core/networks/figures.py`."""

    def counts(self) -> Counts:
        """Return the sizes of its networks."""
        ...

    def activations(
        self, clip: Clip, itemsize: int, *, low_vram: bool, conditioned: bool
    ) -> Activations:
        """Return what each phase takes for `clip`, with `itemsize` bytes a number."""
        ...

    def lora_bytes(self, clip: Clip, itemsize: int, widest: int) -> int:
        """Return what a pass keeps alive besides where LoRA changes layers of up to `widest`
        channels; its weights are not in it."""
        ...

    def work(self, spec: VideoSpec) -> Work:
        """Return what there is to compute for `spec`."""
        ...
