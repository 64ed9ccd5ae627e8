"""The seam between the HTTP doors and the jobs deployment: what a door may ask, and nothing else.

`deployments.jobs.Jobs` is the implementation; in a running graph the ingress talks to it through
`deployments.ingress.RemoteJobs`, in tests directly. Every method raises only errors of
`deployments.core.errors`.
"""

import secrets
from typing import Literal, Protocol

from deployments.core.events import Changes, JobPage, JobStatus, JobView, ServiceState
from deployments.core.outlook import Outlook
from deployments.core.spec import Frozen, VideoRequest

Order = Literal["asc", "desc"]
# The header of a door that names the key of a submission.
IDEMPOTENCY_KEY = "Idempotency-Key"


class Submission(Frozen):
    """A new job, as a door hands it in.

    Attributes:
        image: the first frame, as `core.images` left it.
        remixed_from: the job whose recipe it has.
        caller: the name of the API key it came with; "" without keys.
        idempotency_key: a second submission of the caller with the same key is the same job.
        fingerprint: of what the client sent, before the service filled anything in; "" for none.
        is_retry: the client says that it repeats a call that got no answer.
        received_at: when the call came in, in Unix seconds: a repetition may overtake it.
        deadline_at: Unix seconds after which nobody wants the video.
    """

    job_id: str
    request: VideoRequest
    image: bytes | None = None
    remixed_from: str | None = None
    caller: str = ""
    idempotency_key: str | None = None
    fingerprint: str = ""
    is_retry: bool = False
    received_at: float | None = None
    deadline_at: float | None = None


class JobQuery(Frozen):
    """Which jobs to list.

    Attributes:
        after: the job that stands before the first one wanted.
        order: the newest come first with `desc`.
        caller: whose jobs; None for everybody's.
        search: a part of the prompt, in any case of its letters.
    """

    after: str | None = None
    limit: int = 20
    order: Order = "desc"
    caller: str | None = None
    search: str = ""
    model: str | None = None
    status: JobStatus | None = None
    pinned: bool | None = None


class JobsService(Protocol):
    """Submit, watch and cancel jobs."""

    async def submit(self, submission: Submission) -> JobView:
        """Store a new job, durably, before answering. The same `job_id` again returns the job that
        is there. Raises: InvalidRequest, BackendUnavailable, InsufficientVram, QueueFull,
        InsufficientDisk.
        """

    async def estimate(self, request: VideoRequest) -> Outlook:
        """Return what the request would take, were it submitted now; stores nothing. Raises:
        InvalidRequest, BackendUnavailable."""

    async def get(self, job_id: str) -> JobView:
        """Return the job. Raises: NotFound."""

    async def image(self, job_id: str) -> bytes | None:
        """Return the picture that the job begins with, as `core.images` left it; None for a job
        without one, and for one that has ended without a video. Raises: NotFound."""

    async def list_jobs(self, query: JobQuery) -> JobPage:
        """Return the jobs that follow the job `query.after`, or the first ones. Raises:
        InvalidRequest: there never was such a job."""

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """Return the job as soon as it is done, else as it is after `timeout_s` (at most 2 s, so
        that a shutdown never waits for a caller). Raises: NotFound."""

    async def changes(
        self, after: int | None, timeout_s: float, previews_after: int | None = None
    ) -> Changes:
        """Return what changed after the change number `after`, as soon as something has, at the
        latest after `timeout_s` (at most 2 s). None, and a number that no change has had yet, stand
        for the present: every job that is not done, at once. With `previews_after` also the
        previews above that number; 0 stands for all that there are."""

    async def cancel(self, job_id: str) -> JobView:
        """Stop the job: at once if it waits, within a step if it runs; no effect when it is done.
        Raises: NotFound."""

    async def delete(self, job_id: str) -> None:
        """Forget a job that is done, and remove its files. No effect on one that is not, or that is
        not there."""

    async def pin(self, job_id: str, pinned: bool) -> JobView:
        """Keep the job when old ones are removed, or do not any more. Raises: NotFound."""

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
