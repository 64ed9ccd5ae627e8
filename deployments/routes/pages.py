"""The web page and the documentation viewers: files of `static/`, nothing from elsewhere."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

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
    router = APIRouter(include_in_schema=False)
    for address, file_name in PAGES.items():
        router.add_api_route(address, _page(static_dir / file_name), name=file_name)
    app.include_router(router)
    # The page comes in many small files, as they lie in the folder: they are packed on the way.
    files = GZipMiddleware(PageFiles(directory=static_dir), compresslevel=6)
    app.mount("/static", files, name="static")


def _page(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(path, headers=CACHE_CONTROL)

    return page
