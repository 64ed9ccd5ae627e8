"""The field `loras`: which LoRA files, and how much of each.

A form has it as text, `name:0.8, other:0.5`; JSON may also have a list of `{name, strength}`.
"""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, Field

from deployments.core.errors import InvalidRequest
from deployments.core.spec import LORA_NAME, MAX_LORA_STRENGTH, MAX_LORAS, Lora
from deployments.routes.body import shown

FIELD = "loras"
_NAME = LORA_NAME.strip("^$")
_NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"
_ONE = rf" *{_NAME}(:{_NUMBER})? *"
PATTERN = rf"^({_ONE}(,{_ONE}){{0,{MAX_LORAS - 1}}})?$"
HOW = f"send NAME:STRENGTH, up to {MAX_LORAS} of them with commas between, like style:0.8"

LorasText = Annotated[
    str,
    Field(
        description=(
            "LoRA files of the model, as `name` or `name:strength`, with commas between: at most "
            f"{MAX_LORAS}, each once, strengths -{MAX_LORA_STRENGTH:g} to {MAX_LORA_STRENGTH:g}, 1 "
            "when left out. `/v1/models` lists what each model has."
        ),
        examples=[""],
        json_schema_extra={"pattern": PATTERN},
    ),
]
LIST_OR_TEXT: dict[str, Any] = {
    "type": ["string", "array", "null"],
    "pattern": PATTERN,
    "maxItems": MAX_LORAS,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": LORA_NAME},
            "strength": {
                "type": "number",
                "minimum": -MAX_LORA_STRENGTH,
                "maximum": MAX_LORA_STRENGTH,
                "default": 1,
            },
        },
        "required": ["name"],
        "additionalProperties": False,
    },
    "description": "The text of the form's field, or a list of the same.",
}


class ChosenLora(BaseModel):
    """A LoRA file of the model, and how much of it."""

    name: str = Field(examples=["watercolour"])
    strength: float = Field(examples=[0.8])


def read_loras(text: str) -> tuple[Lora, ...]:
    """Return the LoRA files that the text of the field asks for. Raises: InvalidRequest."""
    if not text:
        return ()
    found = [_one(part.strip(" ")) for part in text.split(",")]
    names = [lora.name for lora in found]
    if len(found) > MAX_LORAS:
        raise InvalidRequest(FIELD, f"{len(found)} are too many; {HOW}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidRequest(FIELD, f"{twice[0]} stands there twice; send it once")
    return tuple(found)


def text_of_list(items_json: str) -> str:
    """Return what the text of the field would be for a JSON list. Raises: InvalidRequest."""
    return ", ".join(_text_of(item) for item in json.loads(items_json))


def _one(text: str) -> Lora:
    name, colon, strength = text.partition(":")
    if not re.fullmatch(LORA_NAME, name) or (colon and not re.fullmatch(_NUMBER, strength)):
        raise InvalidRequest(FIELD, f"{shown(text)} is none; {HOW}")
    return Lora(name=name, strength=_in_range(name, float(strength) if colon else 1.0))


def _in_range(name: str, strength: float) -> float:
    if not -MAX_LORA_STRENGTH <= strength <= MAX_LORA_STRENGTH:
        raise InvalidRequest(
            FIELD,
            f"{name}: {strength:g} is no strength; allowed: numbers from -{MAX_LORA_STRENGTH:g} to "
            f"{MAX_LORA_STRENGTH:g}",
        )
    return strength


def _text_of(item: Any) -> str:
    if not isinstance(item, dict) or not item.keys() <= {"name", "strength"}:
        raise InvalidRequest(FIELD, "a list has to hold objects of name and strength only")
    name, strength = item.get("name"), item.get("strength", 1)
    if not isinstance(name, str) or not re.fullmatch(LORA_NAME, name):
        raise InvalidRequest(FIELD, "each entry has to have a name, that of a LoRA file")
    if isinstance(strength, bool) or not isinstance(strength, int | float):
        raise InvalidRequest(FIELD, f"{name}: the strength has to be a number")
    return f"{name}:{_in_range(name, strength)!r}"
