"""What a finished video has that another one can be made of: its recipe, its file, its frames."""

from pathlib import Path

from deployments.core import stills
from deployments.core.errors import JobNotReady, NotFound
from deployments.core.events import JobView
from deployments.core.service import JobsService
from deployments.core.spec import VideoSpec


def finished_spec(job: JobView) -> VideoSpec:
    """Return the recipe. Raises: NotFound, JobNotReady: the video is not completed."""
    _require_completed(job)
    if job.spec is None:
        raise NotFound("The video's recipe is not known.")
    return job.spec


def finished_file(job: JobView, outputs_dir: str) -> Path:
    """Return where the MP4 lies. Raises: NotFound, JobNotReady: the video is not completed."""
    _require_completed(job)
    if job.file_name is None:
        raise NotFound("The video has no file.")
    return Path(outputs_dir) / job.file_name


async def picture(jobs: JobsService, job: JobView, outputs_dir: str) -> bytes | None:
    """Return the picture that the video began with, a PNG; None where it began with none.

    Raises: NotFound, JobNotReady, EncodingFailed.
    """
    if not finished_spec(job).conditioned:
        return None
    kept = await jobs.image(job.id)
    # Of a version that kept no pictures there is what the video shows of it.
    return kept or await stills.first_frame(_there(finished_file(job, outputs_dir)))


async def last_frame(job: JobView, outputs_dir: str) -> bytes:
    """Return the last frame as a PNG. Raises: NotFound, JobNotReady, EncodingFailed."""
    return await stills.last_frame(_there(finished_file(job, outputs_dir)))


def _require_completed(job: JobView) -> None:
    if job.status == "failed":
        raise NotFound(f"The video has no file, because it failed: {job.error_message}")
    if job.status != "completed":
        # Not a 409: OpenAI's clients would ask two more times.
        raise JobNotReady(f"The video is not ready: it is {job.status}, at {job.progress} %.")


def _there(path: Path) -> Path:
    if not path.exists():
        raise NotFound("This video's file is no longer there.")
    return path
