"""What every request passes: who may call, its id, security headers, and the last net.

A local service listens on loopback, yet any web page can post a form to localhost: requests whose
`Host` is not configured or whose `Origin` is foreign are refused before anything is read.
"""

import re
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.core.errors import ForeignOrigin, Unauthorized
from deployments.core.log import logger
from deployments.routes.caller import Callers
from deployments.routes.wire import error_response, server_error_response

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# The two documentation viewers write <style> elements; Redoc searches in a worker.
DOCS_SECURITY_POLICY = (
    CONTENT_SECURITY_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    + "; worker-src blob:"
)
DOCS_PATHS = ("/docs", "/redoc")
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-site",
}
# What a document may do, and who may frame it. The page has some forty scripts and styles, to which
# these mean nothing.
DOCUMENT_HEADERS = {"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"}
NO_DOCUMENTS = ("text/javascript", "text/css")
ANY_HOST = "*"
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        allowed_hosts: tuple[str, ...],
        callers: Callers,
        *,
        echo_request_id: bool,
    ) -> None:
        self._app, self._callers = app, callers
        self._hosts = frozenset(host_name(host) for host in allowed_hosts)
        self._echo_request_id = echo_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reply = _Reply(send, scope, self._echo_request_id)
        path = scope["path"]
        try:
            self._refuse_foreign(headers)
            await self._app(self._callers.admitted(reply.inner_scope), receive, reply.send)
        except (ForeignOrigin, Unauthorized) as error:
            await error_response(path, error)(scope, receive, reply.send)
        except ClientDisconnect:
            logger.info("client went away: %s", path)
        except Exception:  # the end of a request: nothing above may show the traceback
            logger.exception("request %s failed", reply.request_id)
            if reply.started:
                raise
            await server_error_response(path, reply.request_id)(scope, receive, reply.send)

    def _refuse_foreign(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if ANY_HOST not in self._hosts and host_name(host) not in self._hosts:
            raise ForeignOrigin("Host", host)
        origin = headers.get("origin")
        # With "*" any host is served, but still only to its own pages.
        if origin is not None and _origin_host(origin) not in self._hosts | {host_name(host)}:
            raise ForeignOrigin("Origin", origin)


class _Reply:
    """One answer on its way out: adds the headers, and keeps the body of a HEAD back."""

    def __init__(self, send: Send, scope: Scope, echo_request_id: bool) -> None:
        self._send = send
        self._echo = echo_request_id
        self._head = scope["method"] == "HEAD"
        # Each GET route answers HEAD too; FileResponse reads `is_head` and then opens no file.
        self.inner_scope = {**scope, "method": "GET", "is_head": True} if self._head else scope
        self._policy = (
            DOCS_SECURITY_POLICY if scope["path"] in DOCS_PATHS else CONTENT_SECURITY_POLICY
        )
        given = Headers(scope=scope).get("x-request-id", "")
        self.request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.started = False

    async def send(self, message: Message) -> None:
        """Pass one ASGI message on."""
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers.update(SECURITY_HEADERS)
            if not headers.get("Content-Type", "").startswith(NO_DOCUMENTS):
                headers.update(DOCUMENT_HEADERS)
                headers["Content-Security-Policy"] = self._policy
            if self._echo:
                headers["X-Request-ID"] = self.request_id
        elif self._head and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def host_name(host: str) -> str:
    """Return a Host header's name without its port, in lower case: `[::1]:8000` gives `[::1]`."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")


def _origin_host(origin: str) -> str:
    parts = urlsplit(origin)
    return host_name(parts.netloc) if parts.scheme in ("http", "https") else "null"
