"""From the parts of a form to the `VideoRequest` of `POST /generate`, or to an error that names the
field.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from deployments.core.errors import ConsentRequired, InvalidRequest
from deployments.core.images import TAKEN
from deployments.core.spec import AUTO, MAX_SIDE, MIN_SIDE, ModelCard, VideoRequest
from deployments.routes.body import Part, shown
from deployments.routes.fields import (
    STEP,
    Consent,
    Fps,
    GuidanceScale,
    LowVram,
    NegativePrompt,
    NumFrames,
    NumInferenceSteps,
    Prompt,
    QualityOf,
    Seed,
    WholeNumber,
    multiple,
)
from deployments.routes.form_reader import CONSENT, Form, consent_in
from deployments.routes.lora_field import FIELD as LORAS
from deployments.routes.lora_field import LorasText, read_loras

MAX_HEIGHT = 1080
IMAGE = "image"
EMPTY_IS_ABSENT = frozenset(
    {"seed", "prefer_backend", "num_inference_steps", "guidance_scale", "quality"}
)
# The two the seed knows may always be named; which of them is configured is another question.
SEED_BACKENDS = ("opensora", "mochi")


class GenerateForm(BaseModel):
    """The fields of `POST /generate`, as text; each description and example is shown at /docs."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    fps: Fps = 24
    num_frames: NumFrames = 64
    width: Annotated[
        int,
        Field(
            ge=MIN_SIDE,
            le=MAX_SIDE,
            description="Width of the video in pixels, a multiple of 8.",
            examples=[512],
            json_schema_extra=STEP,
        ),
        WholeNumber,
        AfterValidator(multiple),
    ] = 720
    height: Annotated[
        int,
        Field(
            ge=MIN_SIDE,
            le=MAX_HEIGHT,
            description="Height of the video in pixels, a multiple of 8.",
            examples=[512],
            json_schema_extra=STEP,
        ),
        WholeNumber,
        AfterValidator(multiple),
    ] = 720
    seed: Seed
    prefer_backend: Annotated[
        str,
        Field(
            description=(
                "Which model makes the video: its name in `/v1/models`. Empty or `auto`: of those "
                "that can, the first in configured order that is ready and free; the answer says "
                "why in `routing`."
            ),
            examples=["mochi"],
        ),
    ] = AUTO
    low_vram: LowVram = False
    lawful_use_consent: Consent
    negative_prompt: NegativePrompt = ""
    num_inference_steps: NumInferenceSteps = None
    guidance_scale: GuidanceScale = None
    quality: QualityOf = "exact"
    loras: LorasText = ""


IMAGE_RULE = {
    "type": "string",
    "format": "binary",
    "description": (
        f"The picture that the video begins with: a {TAKEN} file. It fills the frame, and what "
        "stands over at the sides is cropped. Only a model with `accepts_image` takes one, and "
        "`auto` chooses it then."
    ),
}
FORM = Form(GenerateForm, {IMAGE: IMAGE_RULE}, EMPTY_IS_ABSENT)


def form_schema(*, with_image: bool) -> dict[str, Any]:
    """Return the JSON schema of the form for OpenAPI."""
    return FORM.schema(with_files=with_image)


def read_generate(parts: list[Part], cards: list[ModelCard]) -> tuple[VideoRequest, bytes | None]:
    """Return the request and its image, a file that nobody has looked into yet.

    Raises:
        ConsentRequired: before anything else is looked at.
        InvalidRequest: a field is wrong.
    """
    if not consent_in(parts):
        raise ConsentRequired
    form, files = FORM.read(parts)
    image = image_in(files[IMAGE]) if IMAGE in files else None
    request = VideoRequest(
        **form.model_dump(exclude={CONSENT, "prefer_backend", LORAS}),
        loras=read_loras(form.loras),
        prefer_backend=_backend(form.prefer_backend, cards),
        has_image=image is not None,
    )
    return request, image


def image_in(part: Part) -> bytes | None:
    """Return the bytes of an image's part, None for an input that was left empty."""
    if not part.data and not part.file_name:
        return None
    if part.file_name is None:
        raise InvalidRequest(part.name, f"must be a {TAKEN} file, not text")
    if not part.data:
        raise InvalidRequest(part.name, f"the file is empty; send a {TAKEN} file")
    return part.data


def _backend(name: str, cards: list[ModelCard]) -> str:
    configured = [card.name for card in cards]
    known = [AUTO, *dict.fromkeys([*configured, *SEED_BACKENDS])]
    if name not in known:
        raise InvalidRequest(
            "prefer_backend",
            f"{shown(name)} is unknown; allowed: empty, {', '.join(known)} "
            f"(configured here: {', '.join(configured)})",
        )
    return name
