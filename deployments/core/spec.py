"""What is asked for (`VideoRequest`), what a model can do (`ModelCard`), and what will be made
(`VideoSpec`).

A request is validated once at the door and stored with its job. When a model is chosen, `resolve`
fills every default from that model's card and decides the size and length it generates. A
`VideoSpec` holds no None that is filled in later: the same spec gives the same frames.
"""

import math
import secrets
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from deployments.core.errors import InvalidRequest

AUTO = "auto"
MAX_SEED = 2**32 - 1
MIN_SIDE, MAX_SIDE, SIDE_STEP = 256, 1920, 8
MAX_AREA = 1920 * 1080
MAX_FRAMES = 240
# The networks work on 16 x 16 pixel patches: 8 x 8 in the autoencoder, 2 x 2 in the transformer.
PATCH = 16
# A network copes with a frame somewhat larger than those it was trained on, better than scaling up.
# Mochi normalises positions to constant area, so 720x720 (1.27 times 848x480) is made as asked.
AREA_TOLERANCE = 1.3

Quality = Literal["exact", "fast", "draft"]
MAX_LORAS = 4
MAX_LORA_STRENGTH = 4.0
LORA_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Frozen(BaseModel):
    """Base of the plain data that crosses borders: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _side(value: int) -> int:
    if value % SIDE_STEP:
        below = value - value % SIDE_STEP
        nearest = f"{below} and {below + SIDE_STEP}"
        raise ValueError(f"{value} is not a multiple of {SIDE_STEP}; the nearest are {nearest}")
    return value


Side = Annotated[
    int,
    Field(ge=MIN_SIDE, le=MAX_SIDE, json_schema_extra={"multipleOf": SIDE_STEP}),
    AfterValidator(_side),
]


class Lora(Frozen):
    """A low-rank change of a model's weights, by the name of its file, and how much of it."""

    name: str = Field(pattern=LORA_NAME)
    strength: float = Field(default=1.0, ge=-MAX_LORA_STRENGTH, le=MAX_LORA_STRENGTH)


def _each_once(loras: tuple[Lora, ...]) -> tuple[Lora, ...]:
    names = [lora.name for lora in loras]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} stands there twice")
    return loras


Loras = Annotated[
    tuple[Lora, ...], Field(default=(), max_length=MAX_LORAS), AfterValidator(_each_once)
]


class VideoRequest(Frozen):
    """What the user asked for. Optional settings that depend on the model are None: `resolve`
    fills them."""

    prompt: str = Field(min_length=3, max_length=1000)
    negative_prompt: str = Field(default="", max_length=1000)
    width: Side = 720
    height: Side = 720
    num_frames: int = Field(default=64, ge=8, le=MAX_FRAMES)
    fps: int = Field(default=24, ge=1, le=60)
    seed: int = Field(ge=0, le=MAX_SEED)
    prefer_backend: str = AUTO
    low_vram: bool = False
    num_inference_steps: int | None = Field(default=None, ge=2, le=200)
    guidance_scale: float | None = Field(default=None, ge=1.0, le=20.0)
    quality: Quality = "exact"
    has_image: bool = False
    loras: Loras = ()


def random_seed() -> int:
    """Return a seed in the API's range, drawn from the operating system."""
    return secrets.randbelow(MAX_SEED + 1)


class ModelCard(Frozen):
    """What one configured model can do, known without loading it: from the config and its
    checkpoint folder."""

    name: str
    checkpoint: str = Field(description="What is loaded: a folder's name or a hub id.")
    bundled: bool = Field(
        description="True for the tiny demo checkpoint that comes with the service."
    )
    native_area: int = Field(gt=0, description="Pixels per frame the checkpoint was trained for.")
    max_frames: int = Field(gt=0)
    frame_step: int = Field(gt=0, description="The model makes frame_step * k + 1 frames.")
    segment_frames: int | None = Field(
        default=None,
        description=(
            "Longest clip made in one go; longer ones, up to max_frames, are continued from their "
            "last frame. None: max_frames."
        ),
    )
    accepts_image: bool
    num_inference_steps: int = Field(ge=2)
    guidance_scale: float = Field(ge=1.0)
    draft_steps: int | None = Field(
        default=None,
        ge=2,
        description="Steps of `quality: draft`; None: no draft mode.",
    )
    draft_guidance_scale: float | None = Field(
        default=None, ge=1.0, description="Of `quality: draft`; None: as otherwise."
    )
    draft_checkpoint: str = Field(
        default="", description="What makes drafts, if not the checkpoint itself, like it."
    )
    fast_threshold: float | None = Field(
        default=None,
        gt=0,
        description=(
            "How little a step may change for `quality: fast` to take over most of the last one; "
            "None: no fast mode."
        ),
    )
    example_prompts: tuple[str, ...] = Field(
        default=(), description="Prompts that the checkpoint draws well."
    )
    licence: str = Field(
        default="", description="The licence of the weights, and what it asks of their user."
    )

    @property
    def qualities(self) -> tuple[Quality, ...]:
        """The qualities that there are."""
        fast: tuple[Quality, ...] = () if self.fast_threshold is None else ("fast",)
        draft: tuple[Quality, ...] = () if self.draft_steps is None else ("draft",)
        return ("exact", *fast, *draft)

    @model_validator(mode="after")
    def _segments_are_whole(self) -> "ModelCard":
        longest, step = self.segment_frames, self.frame_step
        if longest is not None and (longest <= step or (longest - 1) % step):
            raise ValueError(f"segment_frames: {longest} is not {step} * k + 1, k at least 1")
        return self


class VideoSpec(Frozen):
    """The complete recipe of one video: what the model makes and what the encoder makes of it."""

    model: str
    checkpoint: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    quality: Quality
    fast_threshold: float = Field(
        default=0.0, description="Of `quality: fast`, see `ModelCard`; else 0: nothing is reused."
    )
    low_vram: bool
    generated_width: int
    generated_height: int
    generated_frames: int = Field(description="Frames of each segment, before they are joined.")
    conditioned: bool = Field(default=False, description="Whether an image is the first frame.")
    segments: int = Field(
        default=1,
        description="Each one after the first begins with the last frame of the one before.",
    )
    loras: tuple[Lora, ...] = ()

    @property
    def total_steps(self) -> int:
        """The denoising steps of all segments together."""
        return self.num_inference_steps * self.segments

    @property
    def scaled(self) -> bool:
        """Whether the frames are scaled up to the asked size, not only cropped."""
        return self.generated_width < self.width or self.generated_height < self.height


def request_again(prompt: str, spec: VideoSpec) -> VideoRequest:
    """Return the request that makes `spec` again, of another prompt."""
    return VideoRequest(
        prompt=prompt,
        prefer_backend=spec.model,
        has_image=spec.conditioned,
        **spec.model_dump(
            include={"negative_prompt", "width", "height", "num_frames", "fps", "seed"}
            | {"num_inference_steps", "guidance_scale", "low_vram", "quality", "loras"}
        ),
    )


def resolve(request: VideoRequest, card: ModelCard) -> VideoSpec:
    """Make the complete spec for `request` on the model of `card`.

    Raises:
        InvalidRequest: the model cannot make it; the message says what it can.
    """
    refuse_impossible(request, card)
    width, height = generated_size(request.width, request.height, card.native_area)
    draft = request.quality == "draft"
    steps, guidance_scale = card.num_inference_steps, card.guidance_scale
    if draft:
        steps = card.draft_steps or steps
        guidance_scale = card.draft_guidance_scale or guidance_scale
    segments, frames_of_each = split_segments(
        request.num_frames, card.frame_step, card.segment_frames or request.num_frames
    )
    return VideoSpec(
        model=card.name,
        checkpoint=(draft and card.draft_checkpoint) or card.checkpoint,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        fps=request.fps,
        num_inference_steps=request.num_inference_steps or steps,
        guidance_scale=request.guidance_scale or guidance_scale,
        seed=request.seed,
        quality=request.quality,
        fast_threshold=(request.quality == "fast" and card.fast_threshold) or 0.0,
        low_vram=request.low_vram,
        generated_width=width,
        generated_height=height,
        generated_frames=frames_of_each,
        conditioned=request.has_image,
        segments=segments,
        loras=request.loras,
    )


def refuse_impossible(
    request: VideoRequest, card: ModelCard, cards: Sequence[ModelCard] = ()
) -> None:
    """Raise InvalidRequest for what `card`'s model can never make of `request`.

    Args: cards: the configured models; the message names one of them that can.
    """
    if request.width * request.height > MAX_AREA:
        raise InvalidRequest(
            "width",
            f"{request.width} x {request.height} is more than {MAX_AREA} pixels (1920 x 1080)",
        )
    if request.has_image and not card.accepts_image:
        takers = " or ".join(other.name for other in cards if other.accepts_image)
        instead = f"leave the image out{f', or take {takers}' if takers else ''}"
        raise InvalidRequest("image", f"{card.name} makes videos from text only; {instead}")
    if request.num_frames > card.max_frames:
        able = [other for other in cards if other.accepts_image or not request.has_image]
        longest = max(able, key=lambda other: other.max_frames, default=card)
        more = f"; {longest.name} makes up to {min(MAX_FRAMES, longest.max_frames)}"
        raise InvalidRequest(
            "num_frames",
            f"{request.num_frames} frames: {card.name} makes at most {card.max_frames}"
            + (more if longest.max_frames > card.max_frames else ""),
        )
    if request.quality not in card.qualities:
        there = " and ".join(card.qualities)
        raise InvalidRequest(
            "quality", f"{card.name} has no {request.quality} mode; it has {there}"
        )


def generated_size(width: int, height: int, native_area: int) -> tuple[int, int]:
    """Return the (width, height) the network generates, both multiples of 16, for an asked size.

    Up to about the native area the asked size is rounded up and later cropped. Above it, the
    network makes the largest size of about the same aspect within the native area, and the encoder
    scales it up.
    """
    if width * height <= native_area * AREA_TOLERANCE:
        return _round_up(width), _round_up(height)
    shrink = math.sqrt(native_area / (width * height))
    candidates = [
        (w, h)
        for w in _around(width * shrink)
        for h in _around(height * shrink)
        if w * h <= native_area
    ]
    smallest = (PATCH, PATCH)

    def closeness(size: tuple[int, int]) -> tuple[float, int]:
        # Within 5 % the aspects count as equal, and the larger size wins.
        stretch = abs(math.log(size[0] * height / (size[1] * width)))
        return -(stretch // 0.05), size[0] * size[1]

    return max(candidates or [smallest], key=closeness)


def _round_up(side: int) -> int:
    return -(-side // PATCH) * PATCH


def _around(side: float) -> list[int]:
    below = max(PATCH, int(side // PATCH) * PATCH)
    return [below, below + PATCH]


def split_segments(num_frames: int, frame_step: int, segment_frames: int) -> tuple[int, int]:
    """Return how many segments make `num_frames`, and the frames of each.

    They are equally long, so that none is too short to move in, and as short as will do. A segment
    after the first begins with the last frame of the one before, which is not shown twice:
    together they have 1 + segments * (frames - 1) frames, of which the first `num_frames` are kept.

    Args: segment_frames: the longest segment, frame_step * k + 1 unless one segment is enough.
    """
    segments = 1
    if num_frames > segment_frames:
        segments = math.ceil((num_frames - 1) / (segment_frames - 1))
    return segments, frame_step * math.ceil((num_frames - 1) / (segments * frame_step)) + 1
