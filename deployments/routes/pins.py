"""`/v1/videos/{id}/pin`: keep a video when old ones are removed."""

from fastapi import APIRouter, Response

from deployments.routes.own_jobs import JobsDep
from deployments.routes.video_object import Video, video_answer
from deployments.routes.videos import MISSING, VideoId

router = APIRouter(prefix="/v1/videos", tags=["videos"])


@router.put("/{video_id}/pin", summary="Pin a video", responses=MISSING)
async def pin_video(video_id: VideoId, response: Response, jobs: JobsDep) -> Video:
    """Keep the video, whatever the service's rules on age and space remove; `expires_at` is null
    then. One that is still in the making may be pinned too."""
    return video_answer(await jobs.pin(video_id, True), response)


@router.delete("/{video_id}/pin", summary="Unpin a video", responses=MISSING)
async def unpin_video(video_id: VideoId, response: Response, jobs: JobsDep) -> Video:
    """Let the service's rules apply to the video again."""
    return video_answer(await jobs.pin(video_id, False), response)
