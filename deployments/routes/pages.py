"""The web page and the documentation viewers: files of `static/`, nothing from elsewhere."""

from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

STATIC_DIR = Path(__file__).resolve().parents[2] / "static"
PAGES = {
    "/": "index.html",
    "/docs": "docs/swagger.html",
    "/redoc": "docs/redoc.html",
    "/favicon.ico": "favicon.svg",
}
# Checked with the server on each visit, so that an update of the service shows at once.
CACHE_CONTROL = {"Cache-Control": "no-cache"}


class PageFiles(StaticFiles):
    """The files below `/static`."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, to be checked again on the next visit."""
        response = await super().get_response(path, scope)
        response.headers.update(CACHE_CONTROL)
        return response


def add_pages(app: FastAPI, static_dir: Path) -> None:
    """Serve the pages of `static_dir` at their addresses, and its files at `/static`."""
    # The page comes in many small files, as they lie in the folder: they are packed on the way.
    for address, file_name in PAGES.items():
        route = Route(address, _packed(_page(static_dir / file_name)), name=file_name)
        route.methods = {"GET"}  # and HEAD, which the guard makes one of
        app.router.routes.append(route)
    app.mount("/static", _packed(PageFiles(directory=static_dir)), name="static")


def _packed(files: ASGIApp) -> ASGIApp:
    return GZipMiddleware(files, compresslevel=6)


def _page(path: Path) -> ASGIApp:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await FileResponse(path, headers=CACHE_CONTROL)(scope, receive, send)

    return page
