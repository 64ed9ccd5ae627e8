"""What the fields that both doors know may hold.

Each is described once: its range, its words at /docs and its errors follow from that.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.config import JsonDict

from deployments.core.spec import MAX_FRAMES, MAX_SEED, SIDE_STEP, Quality, random_seed
from deployments.routes.body import shown

MAX_DEADLINE_S = 7 * 24 * 3600
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
TEXT_PATTERN = rf"^[^{_CONTROL}]*$"
PROMPT_PATTERN = rf"^[^{_CONTROL}]*[^{_CONTROL}\s][^{_CONTROL}]*$"
TRUE, FALSE = ("true", "1", "on", "yes"), ("false", "0", "off", "no")
# A form knows no types: the same 1 may be meant as a number, a word or a boolean.
BOOLEAN = {
    "type": ["boolean", "string", "integer"],
    "enum": [True, False, 1, 0, *TRUE, *FALSE],
}


# --- what a field may hold ---------------------------------------------------------------


def boolean(text: str) -> bool:
    """Read one of the words for yes and no. Raises: ValueError."""
    word = text.lower()
    if word not in TRUE + FALSE:
        raise ValueError(f"{shown(text)} is not a boolean")
    return word in TRUE


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


def multiple(value: int) -> int:
    """Return a side that is a multiple of eight. Raises: ValueError: names the nearest."""
    if value % SIDE_STEP:
        below = value - value % SIDE_STEP
        nearest = f"the nearest are {below} and {below + SIDE_STEP}"
        raise ValueError(f"{value} is not a multiple of {SIDE_STEP}; {nearest}")
    return value


Boolean = Annotated[bool, BeforeValidator(boolean)]
WholeNumber = BeforeValidator(_whole_number)
STEP: JsonDict = {"multipleOf": SIDE_STEP}

Prompt = Annotated[
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
Fps = Annotated[
    int, Field(ge=1, le=60, description="Frames per second.", examples=[24]), WholeNumber
]
NumFrames = Annotated[
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
]
Seed = Annotated[
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
LowVram = Annotated[Boolean, Field(description="Trade speed for GPU memory.", examples=[False])]
DeadlineS = Annotated[
    float | None,
    Field(
        description=(
            "The video is of use only for so many seconds from now: if it is not ready then, it "
            "fails with `deadline_exceeded`, waiting or running. No deadline when left out."
        ),
        examples=[600],
    ),
    Field(ge=1, le=MAX_DEADLINE_S),
    BeforeValidator(_number),
]
Consent = Annotated[
    Boolean,
    Field(
        description=(
            "Must be true: you agree to use the service lawfully. Missing or false is a 403."
        ),
        examples=[True],
    ),
]
NegativePrompt = Annotated[
    str,
    Field(
        max_length=1000,
        description="What the video should not show.",
        examples=["blurry, text"],
        json_schema_extra={"pattern": TEXT_PATTERN},
    ),
    AfterValidator(_text),
]
NumInferenceSteps = Annotated[
    int | None,
    Field(description="Denoising steps; the model's own number when left out.", examples=[64]),
    Field(ge=2, le=200),
    WholeNumber,
]
GuidanceScale = Annotated[
    float | None,
    Field(
        description="How closely the video follows the prompt; the model's own when left out.",
        examples=[4.5],
    ),
    Field(ge=1, le=20),
    BeforeValidator(_number),
]
QualityOf = Annotated[
    Quality,
    Field(
        description=(
            "`exact` makes every step in full; `fast` reuses most of a pass that begins much like "
            "the last one; `draft` takes few steps. `/v1/models` says which of them a model has."
        ),
        examples=["exact"],
    ),
]
