"""How an error looks on the wire: the one place that knows both shapes.

Under `/v1` it is the OpenAI error object; everywhere else the shape of the API reference.
"""

import json
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from deployments.core.errors import (
    ConsentRequired,
    ForeignOrigin,
    GenerationFailed,
    InsufficientVram,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    Unauthorized,
    VideoServiceError,
)

OPENAI_PREFIX = "/v1"
ErrorType = Literal[
    "invalid_request_error", "authentication_error", "rate_limit_error", "server_error"
]


class ErrorBody(BaseModel):
    """Every error outside `/v1`."""

    success: Literal[False] = False
    video_url: None = None
    error: str = Field(
        description="One sentence for people: the field, what is wrong with it, what would do.",
        examples=["Insufficient VRAM: mochi needs ~6.0GB, but only 4.2GB available."],
    )


class OpenAIError(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str = Field(description="One sentence for people.", examples=["No such video."])
    type: ErrorType = Field(description="The kind of error, as OpenAI's clients know it.")
    code: str = Field(
        description="The error's name, for programs.",
        examples=["not_found", "queue_full", "insufficient_vram"],
    )
    param: str | None = Field(
        default=None, description="The field that is wrong, where one is.", examples=["seed"]
    )


class OpenAIErrorBody(BaseModel):
    """Every error under `/v1`."""

    error: OpenAIError


def error_response(path: str, error: VideoServiceError) -> JSONResponse:
    """Answer a request for `path` with `error`."""
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, QueueFull) else {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if error.code == InsufficientVram.code:
        # A GPU does not grow: OpenAI's clients would ask two more times.
        headers["X-Should-Retry"] = "false"
    param = error.field if isinstance(error, InvalidRequest | PayloadTooLarge) else None
    if isinstance(error, ConsentRequired):
        param = "lawful_use_consent"
    return _response(path, error.status, error.code, str(error), param, headers)


def http_error_response(path: str, error: HTTPException) -> JSONResponse:
    """Answer with what the router itself raises: an unknown path or a method that is not there."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        return error_response(path, NotFound("There is nothing at this address; see /docs."))
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("Allow", "").split(", ")
        if "GET" in allowed and "HEAD" not in allowed:
            headers["Allow"] = ", ".join([*allowed, "HEAD"])
        message = f"This method is not allowed here; allowed: {headers.get('Allow', 'none')}."
        return _response(path, error.status_code, "method_not_allowed", message, None, headers)
    return _response(path, error.status_code, "http_error", str(error.detail), None, headers)


def server_error_response(path: str, request_id: str) -> JSONResponse:
    """Answer for an exception nobody expected: its cause stands in the log, never here."""
    message = f"Internal error; the log has its cause under request id {request_id}."
    return _response(path, 500, VideoServiceError.code, message, None, {})


def _response(
    path: str, status: int, code: str, message: str, param: str | None, headers: dict[str, str]
) -> JSONResponse:
    body: BaseModel = ErrorBody(error=message)
    if path == OPENAI_PREFIX or path.startswith(OPENAI_PREFIX + "/"):
        body = OpenAIErrorBody(
            error=OpenAIError(message=message, type=_type(status), code=code, param=param)
        )
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def _type(status: int) -> ErrorType:
    if status == HTTPStatus.UNAUTHORIZED:
        return "authentication_error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"


def error_docs(
    descriptions: dict[int, str], *, openai: bool = False, keyless: bool = False
) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's `responses` for a route's errors; any route can also answer 403 and 500.

    Args: keyless: the route is open to all, so that it cannot answer 401.
    """
    everywhere = {} if keyless else {401: "The config has API keys, and no known one was sent."}
    everywhere |= {
        403: "The `Host` is not one of `allowed_hosts`, or the `Origin` is another web page's.",
        500: "An internal error; the log has the cause.",
    }
    model = OpenAIErrorBody if openai else ErrorBody
    path = OPENAI_PREFIX if openai else "/"
    return {
        status: {
            "model": model,
            "description": text,
            "content": {"application/json": {"example": _example(path, status)}},
        }
        for status, text in sorted((everywhere | descriptions).items())
    }


def _example(path: str, status: int) -> Any:
    errors: dict[int, VideoServiceError] = {
        400: InvalidRequest("fps", "61 is more than 60; allowed: whole numbers from 1 to 60"),
        401: Unauthorized("This API key is not known here."),
        403: ForeignOrigin("Origin", "https://other.example"),
        404: NotFound("There is no such video."),
        413: PayloadTooLarge("body", 32 * 2**20),
        429: QueueFull(100, 60),
        500: GenerationFailed("The generation failed; the log has the cause."),
        503: InsufficientVram("mochi", 6.0, 4.2),
    }
    return json.loads(bytes(error_response(path, errors[status]).body))
