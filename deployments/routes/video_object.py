"""The video object: a job as OpenAI's clients read it, with our own keys below theirs."""

from typing import Literal

from fastapi import Response
from pydantic import BaseModel, Field

from deployments.core.events import JobPage, JobStatus, JobView, Phase
from deployments.core.spec import Quality
from deployments.routes.lora_field import ChosenLora
from deployments.routes.video_request import seconds_text

# OpenAI's clients keep the first value, so it suits the whole job: twenty looks, two a second at
# most.
POLLS, MIN_POLL_MS, MAX_POLL_MS = 20, 500, 10_000
# While nothing is known yet: what OpenAI's clients do by themselves.
UNKNOWN_POLL_MS = 1000


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
    expires_at: int | None = Field(
        default=None, description="Unix seconds, when its files are removed; null for never."
    )
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
    seconds_until_start: float | None = Field(
        description="About how long it still waits, from what videos took here before; null when "
        "it does not wait, and while nothing is known yet.",
        examples=[12.5],
    )
    seconds_left: float | None = Field(
        description="About how long until it is done, the waiting included; null when it is, and "
        "while nothing is known yet.",
        examples=[83.2],
    )
    memory_gb: float | None = Field(
        description="The most GPU memory that it takes, in GB (2^30 bytes), as its estimate says; "
        "null on the CPU, before a model is ready, and when it is done.",
        examples=[36.02],
    )
    heartbeat_at: int | None = Field(
        description="Unix seconds, when the model that works on it last gave a sign of life, every "
        "two seconds or so; null when it is not in progress."
    )
    stalled: bool = Field(
        description="Whether nothing has happened for much longer than such a video usually takes "
        "for a step, at least a minute."
    )
    pinned: bool = Field(description="Whether it is kept when old videos are removed.")
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
    negative_prompt: str
    num_inference_steps: int | None = Field(
        description="Steps of each segment; null while it is left to the model.", examples=[64]
    )
    guidance_scale: float | None = Field(
        description="Null while it is left to the model.", examples=[4.5]
    )
    quality: Quality
    low_vram: bool
    loras: list[ChosenLora] = Field(description="The LoRA files in it, in the order asked for.")
    has_image: bool = Field(
        description="Whether it begins with a picture, which is kept no longer than the making."
    )
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
    last_event_id: str = Field(
        description="`/v1/events` with this as `after` goes on from here: nothing is missed.",
        examples=["17"],
    )


class DeletedVideo(BaseModel):
    """What is left of a video: its id."""

    id: str = Field(examples=["video_5f0c3a9e8d7b6a5c4f3e2d1c"])
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


def video_object(job: JobView) -> Video:
    """Return `job` in its wire form."""
    asked, recipe = job.request, job.spec or job.request
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
        expires_at=None if job.expires_at is None else int(job.expires_at),
        prompt=asked.prompt,
        remixed_from_video_id=job.remixed_from,
        seconds=seconds_text(asked.num_frames, asked.fps),
        size=f"{asked.width}x{asked.height}",
        error=error,
        phase=job.phase,
        step=job.step,
        num_steps=job.num_steps,
        queue_position=job.queue_position,
        seconds_until_start=rounded(job.seconds_until_start),
        seconds_left=rounded(job.seconds_left),
        memory_gb=None if job.memory_gb is None else round(job.memory_gb, 3),
        heartbeat_at=None if job.heartbeat_at is None else int(job.heartbeat_at),
        stalled=job.stalled,
        pinned=job.pinned,
        notices=list(job.notices),
        video_url=f"/outputs/{job.file_name}"
        if job.file_name and job.status == "completed"
        else None,
        width=asked.width,
        height=asked.height,
        num_frames=asked.num_frames,
        fps=asked.fps,
        seed=asked.seed,
        negative_prompt=asked.negative_prompt,
        num_inference_steps=recipe.num_inference_steps,
        guidance_scale=recipe.guidance_scale,
        quality=asked.quality,
        low_vram=asked.low_vram,
        loras=[ChosenLora(**lora.model_dump()) for lora in asked.loras],
        has_image=asked.has_image,
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
    if not job.done:
        poll_ms = UNKNOWN_POLL_MS
        if job.seconds_left is not None:
            poll_ms = min(max(round(job.seconds_left * 1000 / POLLS), MIN_POLL_MS), MAX_POLL_MS)
        response.headers["openai-poll-after-ms"] = str(poll_ms)
    return video_object(job)


def rounded(seconds: float | None) -> float | None:
    """Return a guess of seconds as it goes over the wire."""
    return None if seconds is None else round(seconds, 1)


def video_list(page: JobPage) -> VideoList:
    """Return a page of jobs in its wire form."""
    videos = [video_object(job) for job in page.jobs]
    return VideoList(
        data=videos,
        first_id=videos[0].id if videos else None,
        last_id=videos[-1].id if videos else None,
        has_more=page.has_more,
        last_event_id=str(page.last_change),
    )
