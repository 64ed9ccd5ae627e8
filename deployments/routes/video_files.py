"""`/v1/videos/{id}/content`: the file of a finished video, and its pictures."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from deployments.core import outputs
from deployments.core.errors import NotFound
from deployments.core.events import JobView
from deployments.core.service import JobsService
from deployments.routes.door import Door, DoorDep
from deployments.routes.finished import finished_file, picture
from deployments.routes.outputs import VideoFile, file_answer
from deployments.routes.own_jobs import JobsDep
from deployments.routes.videos import VideoId
from deployments.routes.wire import error_docs

router = APIRouter(prefix="/v1/videos", tags=["videos"])

Variant = Literal["video", "thumbnail", "spritesheet", "picture"]
MEDIA_TYPES: dict[Variant, str] = {
    "video": "video/mp4",
    "thumbnail": "image/webp",
    "spritesheet": "image/jpeg",
    "picture": "image/png",
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
CONTENT: dict[str, Any] = dict.fromkeys(MEDIA_TYPES.values(), BINARY)
RESPONSES: dict[int | str, dict[str, Any]] = error_docs(
    {
        400: "There is no such `variant`.",
        404: (
            "There is no such video, or it has no such file: not yet, because it failed, or "
            "because it began without a picture."
        ),
    },
    openai=True,
) | {
    200: {"content": CONTENT, "description": "The file."},
    206: {"content": CONTENT, "description": "The part that the `Range` header asked for."},
    304: {"description": "Unchanged since the `ETag` in `If-None-Match`."},
    416: {"description": "The `Range` lies outside the file."},
}


@router.get(
    "/{video_id}/content",
    summary="Download a video",
    response_class=VideoFile,
    responses=RESPONSES,
)
async def content(
    video_id: VideoId,
    request: Request,
    door: DoorDep,
    jobs: JobsDep,
    variant: Annotated[
        Variant,
        Query(
            description=(
                "`video`: MP4. `thumbnail`: the first frame, WebP. `spritesheet`: up to 25 frames "
                "at equal distances, five in a row, JPEG. `picture`: the one that the video began "
                "with, PNG."
            )
        ),
    ] = "video",
) -> Response:
    """Return the video, or one of its pictures; players may ask for ranges of files."""
    job = await jobs.get(video_id)
    video = finished_file(job, door.config.outputs_dir)
    if variant == "picture":
        return await _picture_answer(jobs, job, door)
    poster, sheet = outputs.picture_paths(video)
    path = {"video": video, "thumbnail": poster, "spritesheet": sheet}[variant]
    return await file_answer(path, request, MEDIA_TYPES[variant], download=True)


async def _picture_answer(jobs: JobsService, job: JobView, door: Door) -> Response:
    found = await picture(jobs, job, door.config.outputs_dir)
    if found is None:
        raise NotFound("The video began without a picture.")
    headers = {"Cache-Control": "private, no-cache"}
    return Response(found, media_type=MEDIA_TYPES["picture"], headers=headers)
