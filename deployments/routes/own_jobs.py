"""The jobs as one caller sees them: his own. The one place where that is decided."""

from collections.abc import Awaitable
from typing import Annotated

from fastapi import Depends

from deployments.core.errors import NotFound
from deployments.core.events import (
    Changes,
    DeletedJob,
    JobPage,
    JobPreview,
    JobView,
    ServiceState,
)
from deployments.core.outlook import Outlook
from deployments.core.service import JobQuery, JobsService, Submission
from deployments.core.spec import VideoRequest
from deployments.routes.caller import CallerDep
from deployments.routes.door import DoorDep


class CallerJobs:
    """A `JobsService` in which there are no jobs but the caller's.

    Another's job answers like one that never was, to the letter.

    Args: caller: None sees and may do everything; see `CallerDep`.
    """

    def __init__(self, jobs: JobsService, caller: str | None) -> None:
        self._jobs, self._caller = jobs, caller
        self._known: set[str] = set()  # a job's caller never changes: asked once per request

    async def submit(self, submission: Submission) -> JobView:
        """See `JobsService.submit`; the job becomes the caller's."""
        mine = submission.model_copy(update={"caller": self._caller or ""})
        return self._own(await self._jobs.submit(mine))

    async def estimate(self, request: VideoRequest) -> Outlook:
        """See `JobsService.estimate`."""
        return await self._jobs.estimate(request)

    async def get(self, job_id: str) -> JobView:
        """See `JobsService.get`."""
        return self._own(await self._seen(self._jobs.get(job_id), f"There is no job {job_id!r}."))

    async def image(self, job_id: str) -> bytes | None:
        """See `JobsService.image`."""
        await self._require(job_id)
        return await self._jobs.image(job_id)

    async def list_jobs(self, query: JobQuery) -> JobPage:
        """See `JobsService.list_jobs`."""
        return await self._jobs.list_jobs(query.model_copy(update={"caller": self._caller}))

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """See `JobsService.wait`."""
        await self._require(job_id)
        return await self._jobs.wait(job_id, timeout_s)

    async def changes(
        self, after: int | None, timeout_s: float, previews_after: int | None = None
    ) -> Changes:
        """See `JobsService.changes`; returns early, with nothing, for the changes of others."""
        found = await self._jobs.changes(after, timeout_s, previews_after)
        return found.model_copy(
            update={
                "jobs": tuple(filter(self._is_own, found.jobs)),
                "deleted": tuple(filter(self._is_own, found.deleted)),
                "previews": tuple(filter(self._is_own, found.previews)),
            }
        )

    async def cancel(self, job_id: str) -> JobView:
        """See `JobsService.cancel`."""
        await self._require(job_id)
        return await self._jobs.cancel(job_id)

    async def delete(self, job_id: str) -> None:
        """See `JobsService.delete`. Raises: NotFound: it is another's."""
        await self._require(job_id)
        await self._jobs.delete(job_id)

    async def pin(self, job_id: str, pinned: bool) -> JobView:
        """See `JobsService.pin`."""
        await self._require(job_id)
        return await self._jobs.pin(job_id, pinned)

    async def abandon(self, job_id: str) -> None:
        """See `JobsService.abandon`."""
        await self._require(job_id)
        await self._jobs.abandon(job_id)

    async def find_output(self, file_name: str) -> JobView:
        """See `JobsService.find_output`."""
        return await self._seen(
            self._jobs.find_output(file_name), f"There is no video {file_name!r}."
        )

    async def state(self) -> ServiceState:
        """See `JobsService.state`."""
        return await self._jobs.state()

    async def _require(self, job_id: str) -> None:
        if self._caller is not None and job_id not in self._known:
            await self.get(job_id)

    async def _seen(self, asked: Awaitable[JobView], missing: str) -> JobView:
        """Return the job that was asked for. Raises: NotFound: one sentence for both reasons."""
        if self._caller is None:
            return await asked
        try:
            job = await asked
        except NotFound:
            raise NotFound(missing) from None
        if not self._is_own(job):
            raise NotFound(missing)
        return job

    def _is_own(self, job: JobView | DeletedJob | JobPreview) -> bool:
        return self._caller in (None, job.caller)

    def _own(self, job: JobView) -> JobView:
        self._known.add(job.id)
        return job


def _own_jobs(door: DoorDep, caller: CallerDep) -> JobsService:
    return CallerJobs(door.jobs, caller)


JobsDep = Annotated[JobsService, Depends(_own_jobs)]
"""The jobs of whoever calls: what a route asks instead of `door.jobs`."""
