"""From the bytes of a request body to named parts, or to an error that says what is wrong with it.

Own code, because FastAPI's parser cannot tell a repeated field or bad UTF-8, and has no cap. Knows
no field's name.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal, NoReturn
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deployments.core.errors import InvalidRequest, PayloadTooLarge

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
JSON = "application/json"
MAX_PARTS = 100


def shown(text: str) -> str:
    """Return `text` as it may stand in an error: quoted, escaped, short."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


@dataclass(frozen=True)
class Part:
    """One field of a body; `file_name` is None for plain text, `kind` is what JSON calls it."""

    name: str
    data: bytes
    file_name: str | None = None
    kind: Literal["string", "number", "boolean", "array"] | None = None


async def read_parts(request: Request, limit_bytes: int, *, json_too: bool = False) -> list[Part]:
    """Read and split a form, or with `json_too` also a JSON object.

    Raises:
        PayloadTooLarge: before reading when the client says so, else as soon as it is known.
        InvalidRequest: the body is neither.
    """
    content_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(content_type)
    body = await _read_body(request, limit_bytes)
    if kind == MULTIPART.encode():
        return _split_multipart(body, options.get(b"boundary", b""))
    if kind == URLENCODED.encode() or not (content_type or body):
        return _split_urlencoded(body)
    if json_too and kind == JSON.encode():
        return _split_json(body)
    sent = shown(content_type) if content_type else "a body without Content-Type"
    taken = f"{MULTIPART}, {URLENCODED} or {JSON}" if json_too else f"{MULTIPART} or {URLENCODED}"
    raise InvalidRequest("body", f"must be {taken}, not {sent}")


async def _read_body(request: Request, limit_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit_bytes:
        raise PayloadTooLarge("body", limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise PayloadTooLarge("body", limit_bytes)
    return bytes(body)


def _split_urlencoded(body: bytes) -> list[Part]:
    pairs = [pair.partition(b"=") for pair in body.split(b"&", MAX_PARTS + 1) if pair]
    _refuse_many(len(pairs))
    return [Part(_name(_unquote(name)), _unquote(value)) for name, _, value in pairs]


def _unquote(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


# --- JSON --------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """An object as it stands there: a repeated key is seen."""


class _Number(str):
    """A number as it stands there: nothing is rounded on the way."""

    __slots__ = ()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _split_json(body: bytes) -> list[Part]:
    """An object in an object becomes parts like `input_reference[image_url]`, as OpenAI's clients
    write it in a form; null counts as left out."""
    try:
        found = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_Pairs,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        raise InvalidRequest("body", f"is not well-formed {JSON}") from None
    if not isinstance(found, _Pairs):
        raise InvalidRequest("body", "must be one JSON object")
    parts = []
    for name, value in found:
        inner = [(f"{name}[{key}]", of) for key, of in value] if isinstance(value, _Pairs) else []
        if isinstance(value, _Pairs) and not inner:
            raise InvalidRequest(shown(name), "is an empty object")
        parts += [_json_part(*pair) for pair in inner or [(name, value)] if pair[1] is not None]
    _refuse_many(len(parts))
    return parts


def _json_part(name: str, value: Any) -> Part:
    if isinstance(value, bool):
        return Part(name, b"true" if value else b"false", kind="boolean")
    if isinstance(value, list) and not isinstance(value, _Pairs):
        return Part(name, json.dumps([_item(name, of) for of in value]).encode(), kind="array")
    if not isinstance(value, str):
        raise InvalidRequest(shown(name), "must be one value, not an object in an object")
    try:
        data = value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(shown(name), "holds half a character (a lone surrogate)") from None
    return Part(name, data, kind="number" if isinstance(value, _Number) else "string")


def _item(name: str, value: Any) -> Any:
    """Return an entry of a list: a value, or an object of values."""
    if not isinstance(value, _Pairs):
        return _value(name, value)
    found = {key: _value(name, of) for key, of in value}
    if len(found) < len(value):
        raise InvalidRequest(shown(name), "has an object with the same key twice")
    return found


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list):
        raise InvalidRequest(shown(name), "has a list or an object too deep in it")
    return float(value) if isinstance(value, _Number) else value


# --- multipart ---------------------------------------------------------------------------


def _split_multipart(body: bytes, boundary: bytes) -> list[Part]:
    collector = _PartCollector()
    try:  # an empty boundary is refused below: such a body never ends
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError:
        collector.ended = False
    if not collector.ended:
        raise InvalidRequest("body", f"is not well-formed {MULTIPART}")
    return collector.parts


class _PartCollector:
    """Gathers what the multipart parser calls out."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._data = bytearray()
        self._field, self._value = b"", b""
        self._disposition = b""

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._data = bytearray()
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _part_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise FormParserError("a part without a name")
        file_name = options.get(b"filename")
        self.parts.append(
            Part(
                _name(options[b"name"]),
                bytes(self._data),
                None if file_name is None else file_name.decode("utf-8", "replace"),
            )
        )
        _refuse_many(len(self.parts))

    def _end(self) -> None:
        self.ended = True


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _refuse_many(parts: int) -> None:
    if parts > MAX_PARTS:
        raise InvalidRequest("body", f"has more than {MAX_PARTS} fields")
