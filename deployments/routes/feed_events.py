"""What is told of jobs, as events: their states, their deletion, and their previews."""

import base64
import json
from operator import attrgetter

from deployments.core.events import Changes, JobPreview, JobView
from deployments.routes.listener import Event
from deployments.routes.video_object import video_object

# A guess that differs by less from the one shown is no news.
NEWS_S, NEWS_SHARE = 1.0, 0.05


def change_events(changes: Changes) -> list[Event]:
    """Return the changes of all kinds in their order."""
    deleted = [
        Event(
            kind="deleted",
            job_id=gone.id,
            caller=gone.caller,
            sequence=gone.sequence,
            data=json.dumps({"id": gone.id}),
            final=True,
        )
        for gone in changes.deleted
    ]
    return sorted([*map(job_event, changes.jobs), *deleted], key=attrgetter("sequence"))


def job_event(job: JobView, *, numbered: bool = True) -> Event:
    """Return the state of a job as an event, with the number of its last change or without."""
    return Event(
        kind="video",
        job_id=job.id,
        caller=job.caller,
        sequence=job.sequence if numbered else None,
        data=video_object(job).model_dump_json(),
        final=job.done,
    )


def preview_event(preview: JobPreview) -> Event:
    """Return a preview as an event without a number: it is not told again."""
    picture = f"data:image/jpeg;base64,{base64.b64encode(preview.picture).decode()}"
    return Event(
        kind="preview",
        job_id=preview.id,
        caller=preview.caller,
        sequence=None,
        data=json.dumps({"id": preview.id, "step": preview.step, "picture": picture}),
    )


def has_moved(shown: JobView, job: JobView) -> bool:
    """Whether the job differs noticeably from what was last told of it."""
    if (shown.queue_position, shown.stalled, shown.heartbeat_at) != (
        job.queue_position,
        job.stalled,
        job.heartbeat_at,
    ):
        return True
    before, now = shown.seconds_left, job.seconds_left
    if before is None or now is None:
        return before is not now
    return abs(now - before) > max(NEWS_S, NEWS_SHARE * before)
