"""The video object: a job as OpenAI's clients read it, with our own keys below theirs."""

from typing import Literal

from fastapi import Response
from pydantic import BaseModel, Field

from deployments.core.events import JobPage, JobStatus, JobView, Phase
from deployments.routes.video_request import seconds_text

# OpenAI's clients keep the first value, so it suits the whole job: twenty looks, two a second at
# most.
POLLS, MIN_POLL_MS, MAX_POLL_MS = 20, 500, 10_000


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
    remixed_from_video_id: str | None = Field(description="The video whose recipe it has.")
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


class VideoList(BaseModel):
    """Some of all videos; `after` = `last_id` asks for those that follow."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None = Field(examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"])
    last_id: str | None = Field(examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"])
    has_more: bool = Field(description="Whether others follow.")


class DeletedVideo(BaseModel):
    """What is left of a video: its id."""

    id: str = Field(examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"])
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


def video_object(job: JobView) -> Video:
    """Return `job` in its wire form."""
    error = None
    if job.error_code is not None:
        error = VideoError(code=job.error_code, message=job.error_message or "")
    return Video(
        id=job.id,
        model=job.model,
        status=job.status,
        progress=job.progress,
        created_at=int(job.created_at),
        completed_at=None if job.finished_at is None else int(job.finished_at),
        prompt=job.prompt,
        remixed_from_video_id=job.remixed_from,
        seconds=seconds_text(job.num_frames, job.fps),
        size=f"{job.width}x{job.height}",
        error=error,
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


def video_answer(job: JobView, response: Response) -> Video:
    """Return `job` in its wire form, and say in a header when to look at it again."""
    if job.seconds_left is not None:
        poll_ms = round(job.seconds_left * 1000 / POLLS)
        poll_ms = min(max(poll_ms, MIN_POLL_MS), MAX_POLL_MS)
        response.headers["openai-poll-after-ms"] = str(poll_ms)
    return video_object(job)


def video_list(page: JobPage) -> VideoList:
    """Return a page of jobs in its wire form."""
    videos = [video_object(job) for job in page.jobs]
    return VideoList(
        data=videos,
        first_id=videos[0].id if videos else None,
        last_id=videos[-1].id if videos else None,
        has_more=page.has_more,
    )
