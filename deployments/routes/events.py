"""`/v1/events` and `/v1/videos/{id}/events`: jobs as they change, as server-sent events.

The wire format is that of https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event

from deployments.routes.caller import CallerDep
from deployments.routes.door import DoorDep
from deployments.routes.listener import Event
from deployments.routes.own_jobs import JobsDep
from deployments.routes.videos import MISSING, VideoId
from deployments.routes.wire import error_docs

router = APIRouter(prefix="/v1", tags=["videos"])

# How long a browser waits before it connects again.
RETRY_MS = 2000
# No cache keeps a stream, and nginx passes it on at once.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Server-sent events. FastAPI's own class would write the events itself, and could not answer
    with a 204."""

    media_type = "text/event-stream"


EXAMPLE = """event: video
data: {"id": "video_5f0c3a9e8d7b6a5c4f3e2d1c", "status": "in_progress", "progress": 42, ...}
id: 17

"""
# Of each event, as OpenAPI 3.2 describes a stream of them.
EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["video", "deleted", "preview"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string"},
        "retry": {"type": "integer"},
    },
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `video` with the video object, `deleted` with its id, "
        "`preview` with `id`, `step` and `picture`, a data URL of a small JPEG.",
        "content": {EventStream.media_type: {"itemSchema": EVENT, "example": EXAMPLE}},
    }
}
# Text, because a header and a parameter have no word for "none": it is left out, or a number.
NUMBER = r"^[0-9]{1,18}$"
LastEventId = Annotated[
    str,
    Header(
        pattern=NUMBER,
        description="The `id` of the last event that was read; browsers send it by themselves.",
        examples=["17"],
    ),
]


@router.get(
    "/events",
    summary="Follow all videos",
    response_class=Response,
    responses=STREAM
    | error_docs({400: "`after` or `Last-Event-ID` is not a whole number."}, openai=True),
)
async def follow_videos(
    request: Request,
    door: DoorDep,
    caller: CallerDep,
    last_event_id: LastEventId = "",
    after: Annotated[
        str,
        Query(
            pattern=NUMBER,
            description="The same, for whoever cannot set headers.",
            examples=["17"],
        ),
    ] = "",
) -> Response:
    """Send the state of each video whenever it changes.

    The stream begins with every video that is not done; with `Last-Event-ID`, with the last state
    of every video that has changed since. A change has an `id`; an event without one tells what
    moves by itself, at most every two seconds a video: `queue_position`, `seconds_left`,
    `heartbeat_at`, `stalled`.

    `preview` shows a running video as the model foresees it, a few times on the way. It has no `id`
    and is not sent again later; the stream begins with the newest of each running video.
    """
    start = last_event_id or after
    return _stream(request, door.feed.follow(int(start) if start else None, caller))


@router.get(
    "/videos/{video_id}/events",
    summary="Follow a video",
    response_class=Response,
    responses=STREAM
    | MISSING
    | {204: {"description": "It is done, and its last event was `Last-Event-ID`: no news follow."}}
    | error_docs({400: "`Last-Event-ID` is not a whole number."}, openai=True),
)
async def follow_video(
    video_id: VideoId,
    request: Request,
    door: DoorDep,
    jobs: JobsDep,
    caller: CallerDep,
    last_event_id: LastEventId = "",
) -> Response:
    """Send the state of the video now and whenever it changes, up to its last.

    A browser that connects again after that gets a 204, which ends its `EventSource`.
    """
    job = await jobs.get(video_id)
    if job.done and last_event_id and job.sequence <= int(last_event_id):
        return Response(status_code=204)
    return _stream(request, door.feed.follow_one(video_id, caller))


def _stream(request: Request, events: AsyncIterator[Event | None]) -> Response:
    if request.scope.get("is_head"):
        return EventStream(iter(()), headers=HEADERS)
    return EventStream(_lines(events), headers=HEADERS)


async def _lines(events: AsyncIterator[Event | None]) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=RETRY_MS)
    async for event in events:
        if event is None:
            yield format_sse_event(comment="still here")
        else:
            yield format_sse_event(
                id=None if event.sequence is None else str(event.sequence),
                event=event.kind or None,
                data_str=event.data or None,
            )
