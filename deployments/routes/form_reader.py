"""From named parts to the checked fields of a form, or to an error that names the field.

Ranges, words at /docs and errors all come from the form's pydantic model.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deployments.core.errors import InvalidRequest
from deployments.routes.body import Part, shown
from deployments.routes.fields import BOOLEAN, FALSE, TRUE, boolean

CONSENT = "lawful_use_consent"

F = TypeVar("F", bound=BaseModel)
_A = {
    "string": "a string",
    "number": "a number",
    "boolean": "a boolean",
    "array": "a list",
}


class Form(Generic[F]):
    """One form: how it reads, and its schema for OpenAPI.

    Args:
        files: the schema of each field that is a file, or a text in its place.
        in_json: the schema of each field that is another one in a JSON object.
        lists: how the JSON list of such a field reads as the field's text.
        empty_is_absent: what an HTML form sends for an input that was left empty counts as not
            sent.
    """

    def __init__(
        self,
        model: type[F],
        files: Mapping[str, dict[str, Any]],
        empty_is_absent: frozenset[str] = frozenset(),
        in_json: Mapping[str, dict[str, Any]] | None = None,
        lists: Mapping[str, Callable[[str], str]] | None = None,
    ) -> None:
        self._lists = lists or {}
        self._model, self._files, self._empty_is_absent = model, files, empty_is_absent
        self._schema = _flat_schema(model)
        self._rules: dict[str, Any] = self._schema["properties"]
        self._names = [*self._rules, *files]
        required = self._schema.get("required", [])
        self._told_rules = {
            name: _or_empty(rule) if name in empty_is_absent else rule
            for name, rule in self._rules.items()
        }
        self._json_rules = {
            name: rule if name in required else _nullable(rule)
            for name, rule in self._told_rules.items()
        } | dict(in_json or {})

    def schema(self, *, with_files: bool) -> dict[str, Any]:
        """Return the JSON schema of the form for OpenAPI."""
        files = self._files if with_files else {}
        return {**self._schema, "properties": {**self._told_rules, **files}}

    def json_schema(self) -> dict[str, Any]:
        """Return the schema of the same as a JSON object; null leaves a field out."""
        return {**self._schema, "properties": self._json_rules}

    def read(self, parts: list[Part]) -> tuple[F, dict[str, Part]]:
        """Return the checked fields, and the files as they came. Raises: InvalidRequest."""
        texts: dict[str, str] = {}
        files: dict[str, Part] = {}
        names = [part.name for part in parts]
        for part in parts:
            if names.count(part.name) > 1:
                raise InvalidRequest(part.name, "is sent more than once")
            if part.name in self._files:
                files[part.name] = part
            elif part.name not in self._rules:
                raise InvalidRequest(
                    shown(part.name),
                    f"is not a field of this form; the fields are {', '.join(self._names)}",
                )
            else:
                text = self._text(part)
                if text or part.name not in self._empty_is_absent:
                    texts[part.name] = text
        try:
            return self._model.model_validate(texts), files
        except ValidationError as error:
            raise self._named(error.errors()[0]) from None

    def _text(self, part: Part) -> str:
        types = _listed(self._json_rules[part.name]["type"])
        taken = {"number" if kind == "integer" else kind for kind in types} - {"null"}
        if part.kind is not None and part.kind not in taken:
            allowed = " or ".join(_A[kind] for kind in sorted(taken))
            raise InvalidRequest(part.name, f"must be {allowed}, not {_A[part.kind]}")
        text = decoded(part)
        return self._lists[part.name](text) if part.kind == "array" else text

    def _named(self, error: ErrorDetails) -> InvalidRequest:
        """Turn pydantic's first complaint into a sentence: field, what is wrong, what is
        allowed."""
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
        return InvalidRequest(field, f"{what}; allowed: {self._allowed(field)}")

    def _allowed(self, field: str) -> str:
        """Return in words what `field` may hold, from its schema."""
        rule: dict[str, Any] = self._rules[field]
        if rule.get("enum") == BOOLEAN["enum"]:
            return ", ".join(TRUE + FALSE)
        if "enum" in rule:
            return " or ".join(rule["enum"])
        match rule["type"]:
            case "integer" | "number":
                kind = "whole numbers" if rule["type"] == "integer" else "numbers"
                step = f", multiples of {rule['multipleOf']}" if "multipleOf" in rule else ""
                return f"{kind} from {rule['minimum']:.10g} to {rule['maximum']:.10g}{step}"
            case _:
                return f"{rule.get('minLength', 0)} to {rule.get('maxLength', 'any')} characters"


def _flat_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema as a form has it: without null, without a title."""
    schema = model.model_json_schema()
    properties: dict[str, Any] = schema["properties"]
    for name, field in properties.items():
        if field.get("type") == "boolean":
            field |= BOOLEAN
        kinds = [kind for kind in field.pop("anyOf", []) if kind["type"] != "null"]
        properties[name] = {**(kinds[0] if kinds else {}), **field}
        if properties[name].get("default", "") is None:
            del properties[name]["default"]
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _or_empty(rule: dict[str, Any]) -> dict[str, Any]:
    return {**rule, "enum": ["", *rule["enum"]]} if "enum" in rule else rule


def _nullable(rule: dict[str, Any]) -> dict[str, Any]:
    found = {**rule, "type": [*_listed(rule["type"]), "null"]}
    if "enum" in rule:
        found["enum"] = [*rule["enum"], None]
    return found


def _listed(types: str | list[str]) -> list[str]:
    return [types] if isinstance(types, str) else types


def decoded(part: Part) -> str:
    """Return the text of a part. Raises: InvalidRequest: it is a file, or no text."""
    if part.file_name is not None:
        raise InvalidRequest(part.name, "must be a text field, not a file")
    try:
        return part.data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(part.name, "is not valid UTF-8 text") from None


def consent_in(parts: list[Part]) -> bool | None:
    """Return what the form says of the lawful use, None when it says nothing.

    Raises: InvalidRequest: it says something else.
    """
    given = [part for part in parts if part.name == CONSENT]
    if not given:
        return None
    if len(given) > 1:
        raise InvalidRequest(CONSENT, "is sent more than once")
    try:
        return boolean(decoded(given[0]))
    except ValueError as error:
        raise InvalidRequest(CONSENT, f"{error}; allowed: {', '.join(TRUE + FALSE)}") from None
