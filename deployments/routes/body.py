"""From the bytes of a request body to named parts, or to an error that says what is wrong with it.

Own code, because FastAPI's parser cannot tell a repeated field or bad UTF-8, and has no cap. Knows
no field's name.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deployments.core.errors import InvalidRequest, PayloadTooLarge

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"
MAX_PARTS = 100


def shown(text: str) -> str:
    """Return `text` as it may stand in an error: quoted, escaped, short."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


@dataclass(frozen=True)
class Part:
    """One field of a body; `file_name` is None for plain text."""

    name: str
    data: bytes
    file_name: str | None = None


async def read_parts(request: Request, limit_bytes: int) -> list[Part]:
    """Read and split a form.

    Raises:
        PayloadTooLarge: before reading when the client says so, else as soon as it is known.
        InvalidRequest: the body is no form.
    """
    content_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(content_type)
    body = await _read_body(request, limit_bytes)
    if kind == MULTIPART.encode():
        return _split_multipart(body, options.get(b"boundary", b""))
    if kind == URLENCODED.encode() or not (content_type or body):
        return _split_urlencoded(body)
    sent = shown(content_type) if content_type else "a body without Content-Type"
    raise InvalidRequest("body", f"must be {MULTIPART} or {URLENCODED}, not {sent}")


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
