"""`/session`: a browser gives its API key once and has a cookie from then on.

`<video>` and `EventSource` send cookies and cannot send a header.
"""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from deployments.core.errors import InvalidRequest, NotFound, Unauthorized
from deployments.core.sessions import LASTS_S
from deployments.routes.body import JSON, read_parts
from deployments.routes.caller import COOKIE
from deployments.routes.door import DoorDep
from deployments.routes.form_reader import Form
from deployments.routes.wire import error_docs

router = APIRouter(tags=["system"])

MAX_BYTES = 4096  # of JSON: a character may take twelve


class KeyForm(BaseModel):
    """The fields of `POST /session`."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[
        str, Field(min_length=1, max_length=256, description="The API key.", examples=["vs_..."])
    ]


KEY = Form(KeyForm, {})
REQUEST_BODY = {"required": True, "content": {JSON: {"schema": KEY.json_schema()}}}


@router.post(
    "/session",
    summary="Begin a session",
    status_code=204,
    responses=error_docs(
        {
            400: "The body is not a JSON object with a `key`.",
            401: "The key is not known here.",
            404: "No keys are configured, so that none is needed.",
            413: "The body is larger than a key can be.",
        }
    ),
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def begin(request: Request, response: Response, door: DoorDep) -> None:
    """Exchange an API key for a cookie, which then stands for it in the same browser.

    `HttpOnly`, `SameSite=Strict`, and `Secure` over https; good for 30 days, a restart of the
    service included, and until the key is removed from the config.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        # A page on another port of this host could send a form, and so log somebody in as another.
        raise InvalidRequest("body", f"must be {JSON}, an object with a `key`")
    form, _ = KEY.read(await read_parts(request, MAX_BYTES, json_too=True))
    if door.callers.sessions is None:
        raise NotFound("No API keys are configured here, so none is needed.")
    if (entry := door.callers.keys.owner_of(form.key)) is None:
        raise Unauthorized("This API key is not known here.")
    token = door.callers.sessions.open(entry)
    _set_cookie(request, response, token, LASTS_S)


@router.delete(
    "/session", summary="End the session", status_code=204, responses=error_docs({}, keyless=True)
)
async def end(request: Request, response: Response) -> None:
    """Have the browser forget its cookie; without one nothing happens."""
    _set_cookie(request, response, "", 0)


def _set_cookie(request: Request, response: Response, value: str, lasts_s: int) -> None:
    # Behind a reverse proxy only its word tells; a client that lies here harms itself alone.
    forwarded = request.headers.get("x-forwarded-proto", "").split(",")[0].strip()
    secure = "https" in (request.url.scheme, forwarded)
    response.set_cookie(
        COOKIE, value, max_age=lasts_s, path="/", httponly=True, samesite="strict", secure=secure
    )
