"""`/v1/videos/estimate`: what a video would take, without making it."""

from fastapi import APIRouter, Request

from deployments.routes.body import read_parts
from deployments.routes.door import DoorDep
from deployments.routes.estimate_object import VideoEstimate, video_estimate
from deployments.routes.own_jobs import JobsDep
from deployments.routes.reference import image_bytes
from deployments.routes.video_forms import CREATE
from deployments.routes.video_request import Defaults, video_request
from deployments.routes.videos import MAKING, form_body, in_openais_words
from deployments.routes.wire import error_docs

router = APIRouter(prefix="/v1/videos", tags=["videos"])
# Nobody has to agree to anything, and there is room for every question.
ANSWERS = {status: text for status, text in MAKING.items() if status not in (403, 429)}


@router.post(
    "/estimate",
    summary="Estimate a video",
    responses=error_docs(ANSWERS, openai=True),
    openapi_extra=form_body(CREATE),
)
async def estimate_video(request: Request, door: DoorDep, jobs: JobsDep) -> VideoEstimate:
    """Say which model would make the video of these fields, with how much GPU memory, and when it
    would be done; and if it does not fit, what would.

    Takes what creating a video takes, and refuses what that refuses, but needs no consent. Nothing
    is stored; of a picture only that there is one counts.
    """
    limit = door.config.limits.max_upload_mb * 2**20
    form, files = CREATE.read(await read_parts(request, limit, json_too=True))
    has_image = image_bytes(files) is not None
    wanted = video_request(form, door.cards, Defaults(), has_image=has_image)
    with in_openais_words():
        return video_estimate(await jobs.estimate(wanted))
