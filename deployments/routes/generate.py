"""`POST /generate`: the API of the seed, word for word.

Submits a job and, unless asked not to, waits for its video.
"""

import asyncio
import contextlib
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from deployments.core.config import ServiceConfig
from deployments.core.errors import StoredError, VideoServiceError
from deployments.core.events import JobView
from deployments.core.routing import route
from deployments.core.service import JobsService, Submission, new_job_id
from deployments.routes.body import MULTIPART, URLENCODED, read_parts
from deployments.routes.door import Door, DoorDep
from deployments.routes.forms import form_schema, read_generate
from deployments.routes.own_jobs import JobsDep
from deployments.routes.repeats import RepeatDep
from deployments.routes.wire import error_docs

router = APIRouter(tags=["generate"])

WAIT_SLICE_S = 2.0


class GenerateResult(BaseModel):
    """A finished video."""

    success: bool = Field(description="Always true here.", examples=[True])
    video_url: str = Field(
        description="Where to fetch the MP4.",
        examples=["/outputs/20250127_143022_serene_lake.mp4"],
    )
    mp4_path: str = Field(
        description="The same file on the server's disk.",
        examples=["/srv/video/outputs/20250127_143022_serene_lake.mp4"],
    )
    frames: int = Field(description="Frames in the file.", examples=[48])
    fps: int = Field(description="Frames per second.", examples=[24])
    width: int = Field(description="Width in pixels.", examples=[512])
    height: int = Field(description="Height in pixels.", examples=[512])
    seed: int = Field(description="The seed that was used.", examples=[42])
    backend: str = Field(description="The model that made it.", examples=["mochi"])
    elapsed_time: float = Field(
        description="Seconds from the request to the video, time in the queue included.",
        examples=[127.45],
    )
    error: None = Field(default=None, description="Always null here.")
    job_id: str = Field(
        description="The job behind it, for `/v1/videos/{id}`.",
        examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"],
    )
    checkpoint: str = Field(
        description="The weights that were loaded.", examples=["genmo/mochi-1-preview"]
    )
    generated_width: int = Field(
        description="Width the network made; smaller than `width` when it was scaled up.",
        examples=[512],
    )
    generated_height: int = Field(description="Height the network made.", examples=[512])
    segments: int = Field(
        description=(
            "How many pieces the clip was made in; each after the first goes on from the last "
            "frame of the one before."
        ),
        examples=[1],
    )
    routing: str = Field(
        description="Why this model made it.",
        examples=["image given: opensora makes videos from images", "prefer_backend"],
    )
    notices: list[str] = Field(
        description="What else the user should know, for example that the prompt was cut.",
        examples=[[]],
    )


class Accepted(BaseModel):
    """A job that was taken; ask `status_url` for the rest."""

    success: bool = Field(default=True, description="Always true here.")
    job_id: str = Field(description="The job.", examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"])
    status_url: str = Field(
        description="Where the job's progress stands.",
        examples=["/v1/videos/video_5f0c3a9e8d7b6a5c4f3e2d1c"],
    )
    video_url: None = Field(default=None, description="Not known yet.")
    error: None = Field(default=None, description="None so far.")


RESPONSES: dict[int | str, dict[str, Any]] = error_docs(
    {
        400: "A field is wrong; the text names it, what is wrong and what is allowed.",
        403: "The consent is missing or false, or the request comes from a foreign page or host.",
        413: "The body is larger than the server takes.",
        429: "The queue is full; `Retry-After` says when to come back.",
        500: "The generation failed.",
        503: "No model can serve it now: not configured, still loading, too little memory.",
    }
) | {202: {"model": Accepted, "description": "Taken: the answer to `Prefer: respond-async`."}}

REQUEST_BODY = {
    "required": True,
    "content": {
        MULTIPART: {"schema": form_schema(with_image=True)},
        URLENCODED: {"schema": form_schema(with_image=False)},
    },
}


@router.post(
    "/generate",
    summary="Generate a video",
    response_model=GenerateResult,
    responses=RESPONSES,
    openapi_extra={"requestBody": REQUEST_BODY},
)
async def generate(
    request: Request,
    door: DoorDep,
    jobs: JobsDep,
    repeat: RepeatDep,
    prefer: Annotated[
        str,
        Header(
            description="`respond-async`: answer 202 at once instead of waiting (RFC 7240).",
            examples=["respond-async"],
        ),
    ] = "",
) -> JSONResponse:
    """Make a video from a text, or from a picture and a text, and wait for it.

    With an `image` the video begins with it. `backend` and `routing` say which model made the
    video, and why that one.

    A client that closes the connection cancels its video, unless it sent an `Idempotency-Key`, with
    which it can come back for it. With the header `Prefer: respond-async`
    the answer comes at once, the video is made whether or not anyone waits, and `status_url` says
    how far it is.
    """
    parts = await read_parts(request, door.config.limits.max_upload_mb * 2**20)
    video_request, upload = read_generate(parts, door.cards)
    route(video_request, door.cards, await door.loras.stock_for(video_request))
    image = None if upload is None else await door.read_image(upload)
    submission = Submission(
        job_id=new_job_id(),
        request=video_request,
        image=image,
        # Nobody repeats a call here of its own accord, and a broken connection cancels the job.
        **repeat.fields(parts, fold=False),
    )
    if _wants_async(prefer):
        return _accepted((await jobs.submit(submission)).id)
    job = await _submit_and_wait(request, door, jobs, submission)
    if job.error_code is not None:
        raise StoredError(job.error_code, job.error_message or "The generation failed.")
    return JSONResponse(_result(job, door.config).model_dump())


def _wants_async(prefer: str) -> bool:
    preferences = [item.partition(";")[0].strip().lower() for item in prefer.split(",")]
    return "respond-async" in preferences


def _accepted(job_id: str) -> JSONResponse:
    url = f"/v1/videos/{job_id}"
    return JSONResponse(
        Accepted(job_id=job_id, status_url=url).model_dump(),
        status_code=HTTPStatus.ACCEPTED,
        headers={"Location": url, "Preference-Applied": "respond-async"},
    )


async def _submit_and_wait(
    request: Request, door: Door, jobs: JobsService, submission: Submission
) -> JobView:
    """Return the job when it is done; whatever ends the waiting earlier cancels the job, unless
    another call can wait for it too."""
    submitted = door.start(jobs.submit(submission))
    done = False
    try:
        job = await asyncio.shield(submitted)
        job = await _wait(request, jobs, job.id)
        done = job.done
    finally:
        if not done and submission.idempotency_key is None:
            door.start(_abandon(jobs, submission.job_id, submitted))
    return job


async def _wait(request: Request, jobs: JobsService, job_id: str) -> JobView:
    gone = asyncio.create_task(_disconnect(request))
    try:
        while True:
            slice_ = asyncio.create_task(jobs.wait(job_id, WAIT_SLICE_S))
            try:
                await asyncio.wait({gone, slice_}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not slice_.done():
                    slice_.cancel()
            if not slice_.done():
                raise ClientDisconnect
            job = slice_.result()
            if job.done:
                return job
    finally:
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _abandon(jobs: JobsService, job_id: str, submitted: "asyncio.Task[JobView]") -> None:
    with contextlib.suppress(VideoServiceError):
        await submitted
    # Also after a failed submit: the job may have been stored.
    with contextlib.suppress(VideoServiceError):
        await jobs.abandon(job_id)


def _result(job: JobView, config: ServiceConfig) -> GenerateResult:
    if job.file_name is None or job.spec is None or job.finished_at is None:
        raise VideoServiceError("The job is completed but has no file.")
    return GenerateResult(
        success=True,
        video_url=f"/outputs/{job.file_name}",
        mp4_path=str(Path(config.outputs_dir) / job.file_name),
        frames=job.request.num_frames,
        fps=job.request.fps,
        width=job.request.width,
        height=job.request.height,
        seed=job.request.seed,
        backend=job.model,
        elapsed_time=round(job.finished_at - job.created_at, 2),
        job_id=job.id,
        checkpoint=job.spec.checkpoint,
        generated_width=job.spec.generated_width,
        generated_height=job.spec.generated_height,
        segments=job.spec.segments,
        routing=job.routing,
        notices=list(job.notices),
    )
