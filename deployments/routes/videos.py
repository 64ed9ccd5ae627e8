"""`/v1/videos/{id}`: a job as OpenAI's clients read it, and its cancellation.

Creating and listing come with the whole API.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from deployments.core.events import JobStatus, JobView, Phase
from deployments.routes.door import DoorDep
from deployments.routes.wire import error_docs

router = APIRouter(prefix="/v1/videos", tags=["videos"])

MISSING: dict[int | str, dict[str, Any]] = error_docs({404: "There is no such video."}, openai=True)
VideoId = Annotated[
    str,
    Path(description="The job's id.", examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"]),
]


class VideoError(BaseModel):
    """Why a video failed."""

    code: str = Field(description="The error's name; `cancelled` for a cancelled one.")
    message: str = Field(description="One sentence for people.")


class Video(BaseModel):
    """OpenAI's video object; what stands below `error` is ours."""

    id: str = Field(examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"])
    object: Literal["video"] = "video"
    model: str = Field(
        description="The model; until one is chosen, what was asked for.", examples=["mochi"]
    )
    status: JobStatus = Field(description="A cancelled video is `failed` with code `cancelled`.")
    progress: int = Field(description="Per cent, 0 to 100.", examples=[42])
    created_at: int = Field(description="Unix seconds.")
    completed_at: int | None = Field(description="Unix seconds, when it ended, also in failure.")
    expires_at: int | None = Field(default=None, description="Videos do not expire.")
    prompt: str | None
    remixed_from_video_id: str | None = None
    seconds: str = Field(description="Length of the video.", examples=["2.67"])
    size: str = Field(description="Width x height.", examples=["512x512"])
    error: VideoError | None

    phase: Phase = Field(description="What is being done.")
    step: int = Field(description="Denoising steps done.", examples=[12])
    num_steps: int = Field(
        description="Denoising steps in all, of every segment; 0 until known.", examples=[64]
    )
    queue_position: int = Field(description="1 for the next one; 0 when it does not wait.")
    notices: list[str] = Field(description="What else the user should know.")
    video_url: str | None = Field(
        description="Where to fetch the MP4 once it is completed.",
        examples=["/outputs/20250127_143022_serene_lake.mp4"],
    )
    width: int
    height: int
    num_frames: int
    fps: int
    seed: int
    checkpoint: str | None = Field(description="The weights that are loaded, once it has begun.")
    generated_width: int | None = Field(description="Width the network makes, once it has begun.")
    generated_height: int | None = Field(description="Height the network makes.")
    segments: int | None = Field(
        description="How many pieces the clip is made in, once it has begun.", examples=[1]
    )
    routing: str = Field(
        description="Why this model makes it; grows when one has to pass it on.",
        examples=["240 frames: more than mochi's 163"],
    )
    started_at: int | None = Field(description="Unix seconds.")
    attempts: int = Field(description="How often it was begun; above 1 after a crash.")


def video_object(job: JobView) -> Video:
    """Return `job` in its wire form."""
    failed = job.error_code is not None
    return Video(
        id=job.id,
        model=job.model,
        status=job.status,
        progress=job.progress,
        created_at=int(job.created_at),
        completed_at=None if job.finished_at is None else int(job.finished_at),
        prompt=job.prompt,
        seconds=f"{job.num_frames / job.fps:.2f}".rstrip("0").rstrip("."),
        size=f"{job.width}x{job.height}",
        error=VideoError(code=job.error_code or "", message=job.error_message or "")
        if failed
        else None,
        phase=job.phase,
        step=job.step,
        num_steps=job.num_steps,
        queue_position=job.queue_position,
        notices=list(job.notices),
        video_url=f"/outputs/{job.file_name}"
        if job.file_name and job.status == "completed"
        else None,
        width=job.width,
        height=job.height,
        num_frames=job.num_frames,
        fps=job.fps,
        seed=job.seed,
        checkpoint=job.spec.checkpoint if job.spec else None,
        generated_width=job.spec.generated_width if job.spec else None,
        generated_height=job.spec.generated_height if job.spec else None,
        segments=job.spec.segments if job.spec else None,
        routing=job.routing,
        started_at=None if job.started_at is None else int(job.started_at),
        attempts=job.attempts,
    )


@router.get("/{video_id}", summary="Get a video's progress", responses=MISSING)
async def get_video(video_id: VideoId, door: DoorDep) -> Video:
    """Return the video as it stands now.

    Ask again every half second or slower until it is `completed` or `failed`.
    """
    return video_object(await door.jobs.get(video_id))


@router.post("/{video_id}/cancel", summary="Cancel a video", responses=MISSING)
async def cancel_video(video_id: VideoId, door: DoorDep) -> Video:
    """Stop the video: at once while it waits, within a step while it runs.

    One that has ended stays as it is.
    """
    return video_object(await door.jobs.cancel(video_id))
