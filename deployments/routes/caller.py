"""Who calls: the API key or the session that every request needs where the config has keys.

All but `OPEN` is closed, so that an address that is added later is too.
"""

from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import Scope

from deployments.core.config import ServiceConfig
from deployments.core.errors import Unauthorized
from deployments.core.keys import Keyring
from deployments.core.sessions import Sessions
from deployments.routes.pages import PAGES

OPEN = frozenset({*PAGES, "/openapi.json", "/health", "/session"})
OPEN_FOLDER = "/static/"
# Cookies know no ports: the name must be ours alone among all that run on this host.
COOKIE = "video_service_session"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HOW = "send `Authorization: Bearer KEY`, or log in on the page"


class Callers:
    """Tells who calls.

    Raises: ValueError: the config's file of keys cannot be read.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self.keys = Keyring(config)
        self.sessions = Sessions(self.keys, Path(config.state_dir)) if self.keys.required else None

    def admitted(self, scope: Scope) -> Scope:
        """Return the scope of a request that may go on, with what `CallerDep` reads from it.

        Raises: Unauthorized.
        """
        path = scope["path"]
        if self.sessions is None:
            caller = None
        elif path in OPEN or path.startswith(OPEN_FOLDER):
            return scope  # without a caller: what is open to all asks for nobody's jobs
        else:
            caller = self._caller(scope, self.sessions)
        return {**scope, "state": {**scope.get("state", {}), "caller": caller}}

    def _caller(self, scope: Scope, sessions: Sessions) -> str:
        headers = Headers(scope=scope)
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if (entry := self.keys.owner_of(key.strip())) is None:
                raise Unauthorized("This API key is not known here.")
            return entry.name
        token = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        if token is None:
            raise Unauthorized(f"An API key is needed: {HOW}.")
        if scope["method"] not in SAFE_METHODS:
            _refuse_other_pages(headers)
        if (caller := sessions.caller_of(token)) is None:
            raise Unauthorized(f"The session has ended, or its key was removed: {HOW}.")
        return caller

    def document(self, schema: dict[str, Any]) -> None:
        """Say in an OpenAPI document which operations need a key, where there are keys."""
        if self.sessions is None:
            return
        schema["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
        }
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                if path not in OPEN:
                    operation["security"] = [{"key": []}, {"session": []}]


def _refuse_other_pages(headers: Headers) -> None:
    """Let the cookie count for our own page alone.

    To `SameSite`, and to the check of `Origin`, another port of this host is the same; to this
    header, which every browser sends to localhost and over https, it is not.
    """
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Unauthorized("The session's cookie counts only for this service's own page.")


def _caller(request: Request) -> str | None:
    caller: str | None = request.state.caller
    return caller


CallerDep = Annotated[str | None, Depends(_caller)]
"""Whose request it is: the name of the API key, or None where the config has no keys.

None stands for everybody, as in `JobQuery.caller`: on an open service all see all videos. A job
carries `caller or ""`.
"""
