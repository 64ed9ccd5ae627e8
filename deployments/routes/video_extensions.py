"""`/v1/videos/extensions`: a video that goes on from the last frame of another one."""

import asyncio
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, Request, Response
from PIL import Image

from deployments.core import stills
from deployments.core.errors import EncodingFailed, InvalidRequest
from deployments.core.service import JobsService
from deployments.routes.body import Part
from deployments.routes.door import Door, DoorDep
from deployments.routes.finished import finished_spec, last_frame
from deployments.routes.form_reader import decoded
from deployments.routes.own_jobs import JobsDep
from deployments.routes.repeats import RepeatDep
from deployments.routes.video_forms import EXTEND, VIDEO, VIDEO_ID
from deployments.routes.video_object import Video, video_answer
from deployments.routes.video_request import Defaults, video_request
from deployments.routes.videos import (
    MAKING,
    ConsentHeader,
    deadline,
    form_body,
    read_agreed,
    submit,
)
from deployments.routes.wire import error_docs

router = APIRouter(prefix="/v1/videos", tags=["videos"])


@router.post(
    "/extensions",
    summary="Extend a video",
    responses=error_docs({**MAKING, 404: "There is no such video, or not yet."}, openai=True),
    openapi_extra=form_body(EXTEND),
)
async def extend_video(
    request: Request,
    response: Response,
    door: DoorDep,
    jobs: JobsDep,
    repeat: RepeatDep,
    consent: ConsentHeader = "",
) -> Video:
    """Make a video that begins with the last frame of another one: one of here, or an MP4 file.

    It has the size of that one unless another is asked for, and the frame rate of one of here. Only
    a model with `accepts_image` can do it. The two are not joined.
    """
    parts = await read_agreed(request, door, consent)
    form, files = EXTEND.read(parts)
    frame, defaults = await _last_frame(files, door, jobs)
    wanted = video_request(form, door.cards, defaults, has_image=True)
    job = await submit(door, jobs, wanted, frame, **repeat.fields(parts), **deadline(form, repeat))
    return video_answer(job, response)


async def _last_frame(
    files: Mapping[str, Part], door: Door, jobs: JobsService
) -> tuple[bytes, Defaults]:
    """Return the last frame, a PNG, and what the new video has of the old one."""
    if len(files) != 1:
        what = "is required" if not files else "is sent twice: as a file and as an id; send one"
        raise InvalidRequest(VIDEO, f"{what}: an MP4 file, or {VIDEO_ID} of a video of here")
    [part] = files.values()
    if part.name == VIDEO_ID:
        job = await jobs.get(decoded(part))
        spec = finished_spec(job)
        frame = await last_frame(job, door.config.outputs_dir)
        return frame, Defaults(size=(spec.width, spec.height), fps=spec.fps)
    if part.file_name is None:
        raise InvalidRequest(VIDEO, "must be an MP4 file, not text")
    frame = await _last_frame_of_file(part.data)
    with Image.open(io.BytesIO(frame)) as opened:
        return frame, Defaults(size=opened.size, size_field=VIDEO)


async def _last_frame_of_file(data: bytes) -> bytes:
    if data[4:8] != b"ftyp":
        raise InvalidRequest(VIDEO, "is not an MP4 file")
    with tempfile.NamedTemporaryFile(prefix="extend-", suffix=".mp4") as file:
        path = Path(file.name)
        await asyncio.to_thread(path.write_bytes, data)
        try:
            return await stills.last_frame(path)
        except EncodingFailed:
            raise InvalidRequest(
                VIDEO, "is damaged, too large, or holds no frame that can be read"
            ) from None
