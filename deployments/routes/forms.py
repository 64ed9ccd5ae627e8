"""From the parts of a form to a `VideoRequest`, or to an error that names the field.

Each field is described once, in `GenerateForm`: its range, its words at /docs and its errors follow
from that.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from deployments.core.errors import ConsentRequired, InvalidRequest
from deployments.core.images import TAKEN
from deployments.core.spec import (
    AUTO,
    MAX_FRAMES,
    MAX_SEED,
    MAX_SIDE,
    MIN_SIDE,
    SIDE_STEP,
    ModelCard,
    Quality,
    VideoRequest,
    random_seed,
)
from deployments.routes.body import Part, shown

MAX_HEIGHT = 1080
CONSENT = "lawful_use_consent"
IMAGE = "image"
# What an HTML form sends for an input that was left empty counts as not sent.
EMPTY_IS_ABSENT = frozenset(
    {"seed", "prefer_backend", "num_inference_steps", "guidance_scale", "quality"}
)
# The two the seed knows may always be named; which of them is configured is another question.
SEED_BACKENDS = ("opensora", "mochi")

_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
TEXT_PATTERN = rf"^[^{_CONTROL}]*$"
PROMPT_PATTERN = rf"^[^{_CONTROL}]*[^{_CONTROL}\s][^{_CONTROL}]*$"
_TRUE, _FALSE = ("true", "1", "on", "yes"), ("false", "0", "off", "no")
# A form knows no types: the same 1 may be meant as a number, a word or a boolean.
_BOOLEAN = {
    "type": ["boolean", "string", "integer"],
    "enum": [True, False, 1, 0, *_TRUE, *_FALSE],
}


# --- what a field may hold ---------------------------------------------------------------


def _boolean(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(f"{shown(text)} is not a boolean")
    return word in _TRUE


def _whole_number(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]+", text, re.ASCII):
        raise ValueError(f"{shown(text)} is not a whole number in decimal digits")
    if len(text) > 20:  # outside every range, and Python refuses to read 5000 digits
        raise ValueError(f"{shown(text)} has {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?", text, re.ASCII):
        raise ValueError(f"{shown(text)} is not a number")
    return float(text)


def _text(value: str) -> str:
    if not re.fullmatch(TEXT_PATTERN, value):
        raise ValueError("holds a control character; only tab and line breaks may stand in a text")
    return value


def _prompt(value: str) -> str:
    if not value.strip():
        raise ValueError("holds only white space")
    return value


def _multiple(value: int) -> int:
    if value % SIDE_STEP:
        below = value - value % SIDE_STEP
        nearest = f"the nearest are {below} and {below + SIDE_STEP}"
        raise ValueError(f"{value} is not a multiple of {SIDE_STEP}; {nearest}")
    return value


Boolean = Annotated[bool, BeforeValidator(_boolean)]
WholeNumber = BeforeValidator(_whole_number)
_STEP = {"multipleOf": SIDE_STEP}


class GenerateForm(BaseModel):
    """The fields of `POST /generate`, as text; each description and example is shown at /docs."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[
        str,
        Field(
            min_length=3,
            max_length=1000,
            description=(
                "What the video shows. Taken as sent: 3 to 1000 characters, not only white space, "
                "no control characters but tab and line breaks."
            ),
            examples=["A serene lake at sunset with mountains in the background"],
            json_schema_extra={"pattern": PROMPT_PATTERN},
        ),
        AfterValidator(_text),
        AfterValidator(_prompt),
    ]
    fps: Annotated[
        int, Field(ge=1, le=60, description="Frames per second.", examples=[24]), WholeNumber
    ] = 24
    num_frames: Annotated[
        int,
        Field(
            ge=8,
            le=MAX_FRAMES,
            description=(
                "How many frames the video has, exactly. A model may make fewer at most: "
                "`/v1/models` says so (mochi: 163, opensora: 240)."
            ),
            examples=[48],
        ),
        WholeNumber,
    ] = 64
    width: Annotated[
        int,
        Field(
            ge=MIN_SIDE,
            le=MAX_SIDE,
            description="Width of the video in pixels, a multiple of 8.",
            examples=[512],
            json_schema_extra=_STEP,
        ),
        WholeNumber,
        AfterValidator(_multiple),
    ] = 720
    height: Annotated[
        int,
        Field(
            ge=MIN_SIDE,
            le=MAX_HEIGHT,
            description="Height of the video in pixels, a multiple of 8.",
            examples=[512],
            json_schema_extra=_STEP,
        ),
        WholeNumber,
        AfterValidator(_multiple),
    ] = 720
    seed: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_SEED,
            default_factory=random_seed,
            description=(
                "The same request with the same seed gives the same video. Random when left out or "
                "empty; the answer names it."
            ),
            examples=[42],
        ),
        WholeNumber,
    ]
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
    low_vram: Annotated[
        Boolean, Field(description="Trade speed for GPU memory.", examples=[False])
    ] = False
    lawful_use_consent: Annotated[
        Boolean,
        Field(
            description=(
                "Must be true: you agree to use the service lawfully. Missing or false is a 403."
            ),
            examples=[True],
        ),
    ]
    negative_prompt: Annotated[
        str,
        Field(
            max_length=1000,
            description="What the video should not show.",
            examples=["blurry, text"],
            json_schema_extra={"pattern": TEXT_PATTERN},
        ),
        AfterValidator(_text),
    ] = ""
    num_inference_steps: Annotated[
        int | None,
        Field(description="Denoising steps; the model's own number when left out.", examples=[64]),
        Field(ge=2, le=200),
        WholeNumber,
    ] = None
    guidance_scale: Annotated[
        float | None,
        Field(
            description="How closely the video follows the prompt; the model's own when left out.",
            examples=[4.5],
        ),
        Field(ge=1, le=20),
        BeforeValidator(_number),
    ] = None
    quality: Annotated[
        Quality,
        Field(
            description=(
                "`exact` makes every step; `draft` is faster and rougher, where the model has it."
            ),
            examples=["exact"],
        ),
    ] = "exact"


def form_schema(*, with_image: bool) -> dict[str, Any]:
    """Return the JSON schema of the form for OpenAPI."""
    schema = GenerateForm.model_json_schema()
    properties: dict[str, Any] = schema["properties"]
    for name, field in properties.items():
        if field.get("type") == "boolean":
            field |= _BOOLEAN
        numbers = [kind for kind in field.pop("anyOf", []) if kind["type"] != "null"]
        properties[name] = {**(numbers[0] if numbers else {}), **field}
        if properties[name].get("default", "") is None:
            del properties[name]["default"]
    if with_image:
        properties[IMAGE] = {
            "type": "string",
            "format": "binary",
            "description": (
                f"The picture that the video begins with: a {TAKEN} file. It fills the frame, and "
                "what stands over at the sides is cropped. Only a model with `accepts_image` takes "
                "one, and `auto` chooses it then."
            ),
        }
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


_PROPERTIES = form_schema(with_image=True)["properties"]


# --- the request -------------------------------------------------------------------------


def read_generate(parts: list[Part], cards: list[ModelCard]) -> tuple[VideoRequest, bytes | None]:
    """Return the request and its image, a file that nobody has looked into yet.

    Raises:
        ConsentRequired: before anything else is looked at.
        InvalidRequest: a field is wrong.
    """
    _require_consent(parts)
    texts: dict[str, str] = {}
    image: bytes | None = None
    names = [part.name for part in parts]
    for part in parts:
        if names.count(part.name) > 1:
            raise InvalidRequest(part.name, "is sent more than once")
        if part.name == IMAGE:
            image = _image(part)
        elif part.name not in _PROPERTIES:
            raise InvalidRequest(
                shown(part.name),
                f"is not a field of this form; the fields are {', '.join(_PROPERTIES)}",
            )
        else:
            text = _decoded(part)
            if text or part.name not in EMPTY_IS_ABSENT:
                texts[part.name] = text
    try:
        form = GenerateForm.model_validate(texts)
    except ValidationError as error:
        raise _named(error.errors()[0]) from None
    request = VideoRequest(
        **form.model_dump(exclude={CONSENT, "prefer_backend"}),
        prefer_backend=_backend(form.prefer_backend, cards),
        has_image=image is not None,
    )
    return request, image


def _require_consent(parts: list[Part]) -> None:
    given = [part for part in parts if part.name == CONSENT]
    if not given:
        raise ConsentRequired
    if len(given) > 1:
        raise InvalidRequest(CONSENT, "is sent more than once")
    try:
        agreed = _boolean(_decoded(given[0]))
    except ValueError as error:
        raise InvalidRequest(CONSENT, f"{error}; allowed: {allowed(CONSENT)}") from None
    if not agreed:
        raise ConsentRequired


def _decoded(part: Part) -> str:
    if part.file_name is not None:
        raise InvalidRequest(part.name, "must be a text field, not a file")
    try:
        return part.data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(part.name, "is not valid UTF-8 text") from None


def _image(part: Part) -> bytes | None:
    if not part.data and not part.file_name:
        return None
    if part.file_name is None:
        raise InvalidRequest(IMAGE, f"must be a {TAKEN} file, not text")
    if not part.data:
        raise InvalidRequest(IMAGE, f"the file is empty; send a {TAKEN} file")
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


def _named(error: ErrorDetails) -> InvalidRequest:
    """Turn pydantic's first complaint into one sentence: field, what is wrong, what is allowed."""
    field = str(error["loc"][0])
    given, context = error.get("input"), error.get("ctx", {})
    match error["type"]:
        case "missing":
            what = "is required"
        case "string_too_short" | "string_too_long":
            what = f"has {len(str(given))} characters"
        case "greater_than_equal":
            what = f"{given} is less than {context['ge']:g}"
        case "less_than_equal":
            what = f"{given} is more than {context['le']:.10g}"
        case "value_error":
            what = str(context["error"])
        case _:
            what = f"{shown(str(given))} is not one of the values"
    return InvalidRequest(field, f"{what}; allowed: {allowed(field)}")


def allowed(field: str) -> str:
    """Return in words what `field` may hold, from its schema."""
    rule: dict[str, Any] = _PROPERTIES[field]
    if rule.get("enum") == _BOOLEAN["enum"]:
        return ", ".join(_TRUE + _FALSE)
    if "enum" in rule:
        return " or ".join(rule["enum"])
    match rule["type"]:
        case "integer" | "number":
            kind = "whole numbers" if rule["type"] == "integer" else "numbers"
            step = f", multiples of {rule['multipleOf']}" if "multipleOf" in rule else ""
            return f"{kind} from {rule['minimum']:.10g} to {rule['maximum']:.10g}{step}"
        case _:
            return f"{rule.get('minLength', 0)} to {rule.get('maxLength', 'any')} characters"
