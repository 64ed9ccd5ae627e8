"""The seam between the HTTP doors and the jobs deployment: what a door may ask, and nothing else.

`deployments.jobs.Jobs` is the implementation; in a running graph the ingress talks to it through
`deployments.ingress.RemoteJobs`, in tests directly. Every method raises only errors of
`deployments.core.errors`.
"""

import secrets
from typing import Literal, Protocol

from deployments.core.events import JobPage, JobView, ServiceState
from deployments.core.spec import VideoRequest

Order = Literal["asc", "desc"]


class JobsService(Protocol):
    """Submit, watch and cancel jobs."""

    async def submit(
        self,
        job_id: str,
        request: VideoRequest,
        image: bytes | None,
        remixed_from: str | None = None,
    ) -> JobView:
        """Store a new job, durably, before answering. The same `job_id` again returns the job that
        is there.

        Args: remixed_from: the job whose recipe it has.
        Raises: InvalidRequest, BackendUnavailable, QueueFull, InsufficientDisk.
        """

    async def get(self, job_id: str) -> JobView:
        """Return the job. Raises: NotFound."""

    async def list_jobs(self, after: str | None, limit: int, order: Order) -> JobPage:
        """Return the jobs that follow the job `after`, or the first ones: the newest come first
        with `desc`. Raises: InvalidRequest: there never was such a job."""

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """Return the job as soon as it is done, else as it is after `timeout_s` (at most 2 s, so
        that a shutdown never waits for a caller). Raises: NotFound."""

    async def cancel(self, job_id: str) -> JobView:
        """Stop the job: at once if it waits, within a step if it runs; no effect when it is done.
        Raises: NotFound."""

    async def delete(self, job_id: str) -> None:
        """Forget a job that is done, and remove its files. No effect on one that is not, or that is
        not there."""

    async def abandon(self, job_id: str) -> None:
        """The client that waited for the job has gone: cancel it, unless the connection broke
        because the service itself is being stopped or replaced."""

    async def find_output(self, file_name: str) -> JobView:
        """Return the completed job that owns the file `file_name`. Raises: NotFound."""

    async def state(self) -> ServiceState:
        """Return the state of the models and the queue."""


def new_job_id() -> str:
    """Return a job id that nobody can guess."""
    return f"video_{secrets.token_hex(12)}"
