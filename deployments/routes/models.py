"""`/v1/models`: what each model can do, as data.

Answered at once, from the config and a copy of the state in memory.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from deployments.core.config import Weights
from deployments.core.errors import NotFound
from deployments.core.events import ModelState
from deployments.core.loras import Stock
from deployments.core.qualities import describe
from deployments.core.spec import (
    MAX_AREA,
    MAX_FRAMES,
    MAX_LORA_STRENGTH,
    MAX_LORAS,
    MAX_SEED,
    MAX_SIDE,
    MIN_SIDE,
    SIDE_STEP,
    ModelCard,
    Quality,
)
from deployments.routes.door import Door, DoorDep
from deployments.routes.forms import MAX_HEIGHT
from deployments.routes.system import model_status, replicas_of
from deployments.routes.video_request import (
    DEFAULT_FPS,
    DEFAULT_SECONDS,
    DEFAULT_SIZE,
    MIN_FRAMES,
)
from deployments.routes.wire import error_docs

router = APIRouter(tags=["system"])


class Range(BaseModel):
    """The values a field takes."""

    minimum: float
    maximum: float
    multiple_of: int | None = None


class QualityMode(BaseModel):
    """One of the values of `quality`."""

    quality: Quality
    description: str = Field(
        description="What it changes.", examples=["28 steps instead of 64: quick and rough."]
    )


class ModelLimits(BaseModel):
    """What this model takes at `/generate`, for forms to follow."""

    prompt: Range = Field(description="Characters.")
    width: Range
    height: Range
    num_frames: Range
    fps: Range
    seed: Range
    num_inference_steps: Range
    guidance_scale: Range
    loras: Range = Field(description="How many at once.")
    lora_strength: Range
    accepts_image: bool = Field(description="Whether a video may begin with a given picture.")
    draft: bool = Field(description="Whether `quality: draft` is there.")
    qualities: list[QualityMode] = Field(description="The values of `quality` that it has.")
    native_area: int = Field(description="Pixels it makes at most; larger videos are scaled up.")
    segment_frames: int = Field(
        description=(
            "Longest clip it makes in one go; longer ones are made in segments, each beginning "
            "with the last frame of the one before."
        ),
        examples=[129],
    )
    max_upload_mb: int = Field(description="Size of a whole request body in MiB.")
    max_image_megapixels: int = Field(description="Pixels of a picture, in millions.")


class ModelDefaults(BaseModel):
    """What `/generate` uses when a field is left out."""

    width: int = 720
    height: int = 720
    num_frames: int
    fps: int = 24
    num_inference_steps: int
    guidance_scale: float
    quality: Quality = "exact"


class VideoLimits(BaseModel):
    """Where `/v1/videos` has other limits than `/generate`."""

    width: Range
    height: Range
    area: Range = Field(description="Pixels: width times height.")
    seconds: Range = Field(
        description="Length at 24 frames a second; `num_frames` over `fps` is what counts."
    )


class VideoDefaults(BaseModel):
    """What `/v1/videos` uses when a field is left out."""

    seconds: str = Field(examples=["4"])
    size: str = Field(examples=["720x1280"])
    fps: int
    quality: Quality = "exact"


class VideosDoor(BaseModel):
    """What differs at `/v1/videos`."""

    limits: VideoLimits
    defaults: VideoDefaults


class ModelLora(BaseModel):
    """A LoRA file of a model's folder."""

    name: str = Field(description="For the field `loras`.", examples=["watercolour"])
    size_bytes: int
    rank: int = Field(description="The largest of its layers; 0 where the file cannot be used.")
    problem: str = Field(
        description="Why the model cannot use it, with the first key that is wrong; empty if it can"
    )


class Model(BaseModel):
    """One model, as OpenAI's clients list it; what stands below `owned_by` is ours."""

    id: str = Field(description="The name for `prefer_backend` and `model`.", examples=["mochi"])
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds: when this service started.")
    owned_by: str = "local"
    state: ModelState
    reason: str
    checkpoint: str = Field(examples=["genmo/mochi-1-preview"])
    bundled: bool
    weights: Weights = Field(
        description=(
            "How the transformer's weights lie: `resident`, `streamed` through the GPU, or stored "
            "as `fp8`, `int8` or `nf4`, which changes the frames. `auto`: not decided yet, or on "
            "the CPU."
        )
    )
    licence: str = Field(
        description="The licence of the weights and what it asks of you; empty where none is known."
    )
    limits: ModelLimits
    defaults: ModelDefaults
    videos: VideosDoor
    example_prompts: list[str] = Field(description="Prompts that these weights draw well.")
    loras: list[ModelLora] = Field(
        description="What the model's folder of LoRA files holds, on the node that answers."
    )


class ModelList(BaseModel):
    """Every configured model, the preferred one first."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models", summary="List the models", responses=error_docs({}, openai=True))
async def models(door: DoorDep) -> ModelList:
    """Return the configured models with their limits and defaults, the preferred one first."""
    stock = await door.loras.stock()
    return ModelList(data=[_model(card, door, stock) for card in door.cards])


@router.get(
    "/v1/models/{model}",
    summary="Look at a model",
    responses=error_docs({404: "There is no such model."}, openai=True),
)
async def one_model(
    model: Annotated[str, Path(description="Its name.", examples=["mochi"])], door: DoorDep
) -> Model:
    """Return one of the configured models with its limits and defaults."""
    for card in door.cards:
        if card.name == model:
            return _model(card, door, await door.loras.stock())
    names = ", ".join(card.name for card in door.cards)
    raise NotFound(f"There is no model {model!r}; there is {names}.")


def _model(card: ModelCard, door: Door, stock: Stock) -> Model:
    status = model_status(card, door)
    return Model(
        id=card.name,
        created=door.opened_at,
        state=status.state,
        reason=status.reason,
        checkpoint=status.checkpoint,
        bundled=status.bundled,
        weights=_weights(card, door),
        licence=card.licence,
        limits=ModelLimits(
            prompt=Range(minimum=3, maximum=1000),
            width=Range(minimum=MIN_SIDE, maximum=MAX_SIDE, multiple_of=SIDE_STEP),
            height=Range(minimum=MIN_SIDE, maximum=MAX_HEIGHT, multiple_of=SIDE_STEP),
            num_frames=Range(minimum=8, maximum=min(MAX_FRAMES, card.max_frames)),
            fps=Range(minimum=1, maximum=60),
            seed=Range(minimum=0, maximum=MAX_SEED),
            num_inference_steps=Range(minimum=2, maximum=200),
            guidance_scale=Range(minimum=1, maximum=20),
            loras=Range(minimum=0, maximum=MAX_LORAS),
            lora_strength=Range(minimum=-MAX_LORA_STRENGTH, maximum=MAX_LORA_STRENGTH),
            accepts_image=card.accepts_image,
            draft="draft" in card.qualities,
            qualities=[
                QualityMode(quality=quality, description=text)
                for quality, text in describe(card).items()
            ],
            native_area=card.native_area,
            segment_frames=card.segment_frames or card.max_frames,
            max_upload_mb=door.config.limits.max_upload_mb,
            max_image_megapixels=door.config.limits.max_image_megapixels,
        ),
        defaults=ModelDefaults(
            num_frames=min(64, card.max_frames),
            num_inference_steps=card.num_inference_steps,
            guidance_scale=card.guidance_scale,
        ),
        videos=_videos_door(card),
        example_prompts=list(card.example_prompts),
        loras=[
            ModelLora(**file.model_dump(include=set(ModelLora.model_fields)))
            for file in stock.get(card.name, ())
        ],
    )


def _weights(card: ModelCard, door: Door) -> Weights:
    for replica in replicas_of(card, door):
        if replica.placement is not None:
            return replica.placement.mode.transformer
    configured = {model.name: model.weights for model in door.config.models}
    return configured.get(card.name, "auto")


def _videos_door(card: ModelCard) -> VideosDoor:
    side = Range(minimum=MIN_SIDE, maximum=MAX_SIDE, multiple_of=SIDE_STEP)
    most = min(MAX_FRAMES, card.max_frames)
    return VideosDoor(
        limits=VideoLimits(
            width=side,
            height=side,
            area=Range(minimum=MIN_SIDE * MIN_SIDE, maximum=MAX_AREA),
            seconds=Range(
                minimum=round(MIN_FRAMES / DEFAULT_FPS, 2), maximum=round(most / DEFAULT_FPS, 2)
            ),
        ),
        defaults=VideoDefaults(
            seconds=str(DEFAULT_SECONDS), size="{}x{}".format(*DEFAULT_SIZE), fps=DEFAULT_FPS
        ),
    )
