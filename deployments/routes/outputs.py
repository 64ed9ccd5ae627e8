"""`/outputs/{file_name}`: the finished videos.

A name is looked up in the job table, never joined from the URL.
"""

import re
from pathlib import Path as FilePath
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Path, Request
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse
from starlette.types import Receive, Scope, Send

from deployments.core.errors import NotFound
from deployments.routes.door import DoorDep
from deployments.routes.own_jobs import JobsDep
from deployments.routes.wire import error_docs

router = APIRouter(tags=["generate"])

BYTE_RANGES = re.compile(r"bytes=\s*(\d+-\d*|-\d+)(\s*,\s*(\d+-\d*|-\d+))*\s*", re.ASCII)
VIDEO: dict[str, Any] = {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}
RESPONSES: dict[int | str, dict[str, Any]] = error_docs({404: "There is no such video."}) | {
    200: {"content": VIDEO, "description": "The MP4 file (H.264)."},
    206: {"content": VIDEO, "description": "The part that the `Range` header asked for."},
    304: {"description": "Unchanged since the `ETag` in `If-None-Match`."},
    416: {"description": "The `Range` lies outside the file."},
}


class VideoFile(FileResponse):
    """A file that is sent whole, in ranges, or not at all for a HEAD."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if scope.get("is_head"):
            scope = {**scope, "method": "HEAD"}
        if not BYTE_RANGES.fullmatch(Headers(scope=scope).get("range", "")):
            # A Range that cannot be read is ignored (RFC 9110, 14.2); Starlette would answer 400.
            kept = [pair for pair in scope["headers"] if pair[0] != b"range"]
            scope = {**scope, "headers": kept}
        await super().__call__(scope, receive, send)


@router.get(
    "/outputs/{filename}",
    summary="Download a video",
    response_class=VideoFile,
    responses=RESPONSES,
)
async def output(
    filename: Annotated[
        str,
        Path(
            description="The file name from `video_url`.",
            examples=["20250127_143022_serene_lake.mp4"],
        ),
    ],
    request: Request,
    door: DoorDep,
    jobs: JobsDep,
) -> Response:
    """Return a finished video; players may ask for ranges of it."""
    job = await jobs.find_output(filename)
    path = FilePath(door.config.outputs_dir) / (job.file_name or filename)
    return await file_answer(path, request, "video/mp4")


async def file_answer(
    path: FilePath, request: Request, media_type: str, *, download: bool = False
) -> Response:
    """Answer with a file, a part of it, or that it is unchanged.

    Args: download: give it the name under which a browser saves it.
    Raises: NotFound: the file is gone.
    """
    try:
        stat = await anyio.Path(path).stat()
    except (FileNotFoundError, ValueError):
        raise NotFound("This video's file is no longer there.") from None
    response = VideoFile(
        path,
        media_type=media_type,
        stat_result=stat,
        headers={"Cache-Control": "private, no-cache"},
        filename=path.name if download else None,
    )
    known = [
        tag.strip().removeprefix("W/")
        for tag in request.headers.get("if-none-match", "").split(",")
    ]
    if response.headers["etag"] in known:
        return NotModifiedResponse(response.headers)
    return response
