"""`/v1/videos`: make, look at, list, cancel and delete videos as OpenAI's clients do."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from deployments.core.errors import InvalidRequest, UnsupportedOperation
from deployments.core.events import JobStatus, JobView
from deployments.core.routing import route
from deployments.core.service import JobQuery, JobsService, Order, Submission, new_job_id
from deployments.core.spec import VideoRequest, request_again
from deployments.routes.body import JSON, MULTIPART, URLENCODED, Part, read_parts
from deployments.routes.door import Door, DoorDep
from deployments.routes.fields import FALSE, TRUE
from deployments.routes.finished import finished_spec, picture
from deployments.routes.form_reader import Form
from deployments.routes.own_jobs import JobsDep
from deployments.routes.reference import image_bytes
from deployments.routes.repeats import Repeat, RepeatDep
from deployments.routes.video_forms import CONSENT_HEADER, CREATE, REFERENCE, REMIX, Agreed
from deployments.routes.video_object import (
    DeletedVideo,
    Video,
    VideoList,
    video_answer,
    video_list,
)
from deployments.routes.video_request import (
    Defaults,
    require_consent,
    video_request,
)
from deployments.routes.wire import error_docs

router = APIRouter(prefix="/v1/videos", tags=["videos"])

WAIT_SLICE_S, IDLE_EVERY_S = 2.0, 0.1

MISSING: dict[int | str, dict[str, Any]] = error_docs({404: "There is no such video."}, openai=True)
MAKING = {
    400: "A field is wrong; the text names it, what is wrong and what is allowed.",
    403: "Nobody agreed to lawful use, or the request comes from a foreign page or host.",
    413: "The body is larger than the server takes.",
    429: "The queue is full; `Retry-After` says when to come back.",
    503: "No model can serve it now: still loading, failed, or too little disk.",
}
VideoId = Annotated[
    str,
    Path(description="The job's id.", examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"]),
]
ConsentHeader = Annotated[
    str,
    Header(
        alias=CONSENT_HEADER,
        description="`true`: the same as the field `lawful_use_consent`.",
        examples=["true"],
        json_schema_extra={"enum": ["", *TRUE, *FALSE]},
    ),
]


def form_body(form: Form[Any]) -> dict[str, Any]:
    """Return OpenAPI's words for a body that comes in any of three ways."""
    schemas = {
        MULTIPART: form.schema(with_files=True),
        JSON: form.json_schema(),
        URLENCODED: form.schema(with_files=False),
    }
    return {
        "requestBody": {
            "required": True,
            "content": {kind: {"schema": schema} for kind, schema in schemas.items()},
        }
    }


# --- making ------------------------------------------------------------------------------


@router.post(
    "",
    summary="Create a video",
    responses=error_docs(MAKING, openai=True),
    openapi_extra=form_body(CREATE),
)
async def create_video(
    request: Request,
    response: Response,
    door: DoorDep,
    jobs: JobsDep,
    repeat: RepeatDep,
    consent: ConsentHeader = "",
) -> Video:
    """Begin a video of a text, or of a picture and a text, and answer at once.

    `openai-poll-after-ms` says how often it is worth asking how far it is.
    """
    parts = await read_agreed(request, door, consent)
    form, files = CREATE.read(parts)
    image = image_bytes(files)
    wanted = video_request(form, door.cards, Defaults(), has_image=image is not None)
    job = await submit(door, jobs, wanted, image, **repeat.fields(parts), **deadline(form, repeat))
    return video_answer(job, response)


@router.post(
    "/{video_id}/remix",
    summary="Remix a video",
    responses=error_docs({**MAKING, 404: "There is no such video, or not yet."}, openai=True),
    openapi_extra=form_body(REMIX),
)
async def remix_video(
    video_id: VideoId,
    request: Request,
    response: Response,
    door: DoorDep,
    jobs: JobsDep,
    repeat: RepeatDep,
    consent: ConsentHeader = "",
) -> Video:
    """Make a video again with another prompt: same model, size, length, seed and settings.

    A video that began with a picture begins with it again.
    """
    parts = await read_agreed(request, door, consent)
    form, _ = REMIX.read(parts)
    source = await jobs.get(video_id)
    spec = finished_spec(source)
    image = await picture(jobs, source, door.config.outputs_dir)
    wanted = request_again(form.prompt, spec)
    more = {"remixed_from": video_id, **repeat.fields(parts), **deadline(form, repeat)}
    return video_answer(await submit(door, jobs, wanted, image, **more), response)


@router.post("/edits", include_in_schema=False)
@router.post("/characters", include_in_schema=False)
@router.get("/characters/{character_id}", include_in_schema=False)
async def unsupported(request: Request) -> Response:
    """Refuse what no model here can do."""
    raise UnsupportedOperation(
        f"{request.url.path} is not supported: no model here edits videos or keeps characters; "
        "there are /v1/videos, /v1/videos/{id}/remix and /v1/videos/extensions."
    )


async def read_agreed(request: Request, door: Door, consent: str) -> list[Part]:
    """Return the body in parts, if somebody agreed to lawful use.

    Raises: PayloadTooLarge, InvalidRequest, ConsentRequired.
    """
    limit = door.config.limits.max_upload_mb * 2**20
    parts = await read_parts(request, limit, json_too=True)
    require_consent(parts, consent, door.config.consent)
    return parts


def deadline(form: Agreed, repeat: Repeat) -> dict[str, Any]:
    """Return what a `Submission` says of the form's deadline."""
    left_s = form.deadline_s
    return {"deadline_at": None if left_s is None else repeat.received_at + left_s}


async def submit(
    door: Door, jobs: JobsService, wanted: VideoRequest, image: bytes | None, **more: Any
) -> JobView:
    """Store the job, of a picture that nobody has looked into yet.

    Args: more: what else is in its `Submission`.
    """
    with in_openais_words():
        route(wanted, door.cards, await door.loras.stock_for(wanted))
        seen = None if image is None else await door.read_image(image)
        submission = Submission(job_id=new_job_id(), request=wanted, image=seen, **more)
        return await jobs.submit(submission)


@contextmanager
def in_openais_words() -> Iterator[None]:
    """Name a field as this door knows it."""
    names = {"image": REFERENCE, "prefer_backend": "model"}
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(names.get(error.field, error.field), error.reason) from error


# --- looking -----------------------------------------------------------------------------


@router.get(
    "",
    summary="List the videos",
    responses=error_docs({400: "A parameter is wrong, or `after` is unknown."}, openai=True),
)
async def list_videos(
    jobs: JobsDep,
    after: Annotated[
        str | None, Query(description="The `last_id` of the page before.", examples=[None])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Videos on a page.")] = 20,
    order: Annotated[Order, Query(description="`desc`: the newest first.")] = "desc",
    search: Annotated[
        str, Query(max_length=200, description="A part of the prompt.", examples=["ball"])
    ] = "",
    model: Annotated[
        str | None, Query(max_length=64, description="Those of one model.", examples=[None])
    ] = None,
    status: Annotated[
        JobStatus | None, Query(description="Those in one state.", examples=[None])
    ] = None,
    pinned: Annotated[
        bool | None, Query(description="Those that are pinned, or are not.", examples=[None])
    ] = None,
) -> VideoList:
    """Return the videos of both doors, page by page; a deleted one is still good for `after`."""
    query = JobQuery(
        after=after,
        limit=limit,
        order=order,
        search=search,
        model=model,
        status=status,
        pinned=pinned,
    )
    return video_list(await jobs.list_jobs(query))


@router.get("/{video_id}", summary="Get a video's progress", responses=MISSING)
async def get_video(video_id: VideoId, response: Response, jobs: JobsDep) -> Video:
    """Return the video as it stands now.

    Ask again until it is `completed` or `failed`, as often as `openai-poll-after-ms` says.
    """
    return video_answer(await jobs.get(video_id), response)


# --- ending ------------------------------------------------------------------------------


@router.post("/{video_id}/cancel", summary="Cancel a video", responses=MISSING)
async def cancel_video(video_id: VideoId, response: Response, jobs: JobsDep) -> Video:
    """Stop the video: at once while it waits, within a step while it runs.

    One that has ended stays as it is.
    """
    return video_answer(await jobs.cancel(video_id), response)


@router.delete("/{video_id}", summary="Delete a video", responses=MISSING)
async def delete_video(video_id: VideoId, jobs: JobsDep) -> DeletedVideo:
    """Remove the video with all of its files; one that is in the making is cancelled first.

    The answer comes when the model is idle.
    """
    job = await jobs.cancel(video_id)
    while not job.done:
        job = await jobs.wait(video_id, WAIT_SLICE_S)
    await _until_idle(jobs, video_id)
    await jobs.delete(video_id)
    return DeletedVideo(id=video_id)


async def _until_idle(jobs: JobsService, video_id: str) -> None:
    """Return when no model works on the video any more."""
    while True:
        replicas = (await jobs.state()).replicas
        if all(replica.job_id != video_id or replica.state == "lost" for replica in replicas):
            return
        await asyncio.sleep(IDLE_EVERY_S)
