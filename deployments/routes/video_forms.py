"""The forms under `/v1/videos`: what they may hold, for reading them and for OpenAPI.

The names are OpenAI's, and those that other engines have in common. What a form asks for is worked
out in `video_request`.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from deployments.core.images import TAKEN
from deployments.core.spec import AUTO, MAX_SIDE, MIN_SIDE
from deployments.routes.fields import (
    STEP,
    DeadlineS,
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
)
from deployments.routes.form_reader import Form
from deployments.routes.lora_field import FIELD as LORAS
from deployments.routes.lora_field import LIST_OR_TEXT, LorasText, text_of_list

CONSENT_HEADER = "X-Lawful-Use-Consent"
SECONDS_PATTERN = r"^([0-9]{1,6}(\.[0-9]{1,6})?)?$"
SIZE_PATTERN = r"^([0-9]{3,4}x[0-9]{3,4})?$"
EMPTY_IS_ABSENT = frozenset(
    {"model", "seconds", "size", "width", "height", "num_frames", "fps", "seed"}
    | {"num_inference_steps", "guidance_scale", "quality", "deadline_s"}
)

_SideOf = [Field(ge=MIN_SIDE, le=MAX_SIDE, json_schema_extra=STEP), WholeNumber]
Width = Annotated[
    int | None,
    Field(description="Width in pixels, in place of `size`; 720 when left out.", examples=[512]),
    *_SideOf,
]
Height = Annotated[
    int | None,
    Field(description="Height in pixels, in place of `size`; 1280 when left out.", examples=[512]),
    *_SideOf,
]


class Agreed(BaseModel):
    """What every form has."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    lawful_use_consent: Annotated[
        bool | None,
        Field(
            description=(
                f"You agree to use the service lawfully. The header `{CONSENT_HEADER}: true` says "
                "the same, or the operator says it for all in the config; else the answer is a 403."
            ),
            examples=[True],
            json_schema_extra={"type": "boolean"},
        ),
    ] = None
    deadline_s: DeadlineS = None


class RemixForm(Agreed):
    """The fields of `POST /v1/videos/{id}/remix`."""


class VideoForm(Agreed):
    """The fields of `POST /v1/videos`, as text; each description and example is shown at /docs."""

    model: Annotated[
        str,
        Field(
            description=(
                "A model's name in `/v1/models`. Left out, `auto`, or any name that begins with "
                "`sora-2`: whichever can make it; `routing` says why that one."
            ),
            examples=["mochi"],
        ),
    ] = AUTO
    seconds: Annotated[
        str | None,
        Field(
            description=(
                "Length of the video, exactly: a decimal number. 4 when neither this nor "
                "`num_frames` is there. Seconds times `fps` are 8 to 240 frames, a whole number."
            ),
            examples=["4"],
            json_schema_extra={"pattern": SECONDS_PATTERN},
        ),
    ] = None
    size: Annotated[
        str | None,
        Field(
            description=(
                "Width x height, exactly. Each side 256 to 1920 in steps of 8, together at most "
                "1920 x 1080 pixels. 720x1280 when left out."
            ),
            examples=["1280x720"],
            json_schema_extra={"pattern": SIZE_PATTERN},
        ),
    ] = None
    width: Width = None
    height: Height = None
    num_frames: Annotated[
        NumFrames | None,
        Field(description="How many frames, in place of `seconds`.", examples=[96]),
    ] = None
    fps: Annotated[
        Fps | None,
        Field(description="Frames per second; 24 when left out.", examples=[24]),
    ] = None
    seed: Seed
    negative_prompt: NegativePrompt = ""
    num_inference_steps: NumInferenceSteps = None
    guidance_scale: GuidanceScale = None
    low_vram: LowVram = False
    quality: QualityOf = "exact"
    loras: LorasText = ""


# --- the forms and their schemas ---------------------------------------------------------

REFERENCE, REFERENCE_URL = "input_reference", "input_reference[image_url]"
VIDEO, VIDEO_ID = "video", "video[id]"
_DATA_URL = {
    "type": "string",
    "pattern": "^data:",
    "description": f"The picture itself as a data URL; nothing is fetched. A {TAKEN} file.",
}


def _object_with(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: value},
        "required": [name],
        "additionalProperties": False,
    }


# JSON knows numbers and lists; other engines take this one as a number.
_IN_JSON = {
    LORAS: LIST_OR_TEXT,
    "seconds": {
        "type": ["string", "number", "null"],
        "pattern": SECONDS_PATTERN,
        "exclusiveMinimum": 0,
        "description": VideoForm.model_fields["seconds"].description,
    },
}
_LISTS = {LORAS: text_of_list}
CREATE = Form(
    VideoForm,
    {
        REFERENCE: {
            "type": "string",
            "format": "binary",
            "description": (
                f"The picture that the video begins with: a {TAKEN} file. Only a model with "
                "`accepts_image` takes one, and `auto` chooses it then."
            ),
        },
        REFERENCE_URL: _DATA_URL,
    },
    EMPTY_IS_ABSENT,
    _IN_JSON
    | {REFERENCE: {"anyOf": [_DATA_URL, _object_with("image_url", _DATA_URL), {"type": "null"}]}},
    _LISTS,
)
EXTEND = Form(
    VideoForm,
    {
        VIDEO: {
            "type": "string",
            "format": "binary",
            "description": "An MP4 file, whose last frame the new video begins with.",
        },
        VIDEO_ID: {"type": "string", "description": "The same, for a video that was made here."},
    },
    EMPTY_IS_ABSENT,
    _IN_JSON | {VIDEO: _object_with("id", {"type": "string"})},
    _LISTS,
)
REMIX = Form(RemixForm, {}, EMPTY_IS_ABSENT)
