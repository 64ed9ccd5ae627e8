"""Whether anybody still wants a job: it may have been cancelled, or its time is over."""

import time

from deployments.core.errors import Cancelled, DeadlineExceeded, VideoServiceError
from deployments.core.job_table import Job


def why_unwanted(job: Job) -> VideoServiceError | None:
    """Return what ends the job, None while it is wanted."""
    return Cancelled("The job was cancelled.") if job.cancel_requested else why_late(job)


def why_late(job: Job) -> DeadlineExceeded | None:
    """Return what ends the job because of its deadline, None before that."""
    if job.deadline_at is None or time.time() < job.deadline_at:
        return None
    return DeadlineExceeded("The video was not ready by its deadline.")
