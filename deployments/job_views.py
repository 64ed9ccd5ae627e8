"""What the outside sees of a job: its row, its place among the waiting, and how long it takes."""

from collections.abc import Mapping, Sequence

from deployments.core.config import RetentionConfig
from deployments.core.events import Changes, DeletedJob, JobView
from deployments.core.job_store import Job, JobStore
from deployments.dispatcher import Dispatcher
from deployments.housekeeping import expires_at
from deployments.job_run import Db
from deployments.outlooks import Outlooks, plan_queue

# More changes than these are told in several answers.
CHANGES_AT_ONCE = 200


class JobViews:
    """Turns rows into views."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        outlooks: Outlooks,
        retention: RetentionConfig,
        *,
        store: JobStore,
        db: Db,
    ) -> None:
        self._dispatcher, self._outlooks, self._retention = dispatcher, outlooks, retention
        self._store, self._db = store, db

    async def view(self, job: Job) -> JobView:
        """Return how the job stands now."""
        [view] = await self.views([job])
        return view

    async def views(self, jobs: Sequence[Job]) -> list[JobView]:
        """Return how the jobs stand now; the queue is looked at once for all that wait."""
        places: Mapping[str, int] = {}
        if any(job.status == "queued" for job in jobs):
            await plan_queue(self._dispatcher, self._store, self._db)
            places = await self._dispatcher.turns.places()
        return [self._view(job, places) for job in jobs]

    def _view(self, job: Job, places: Mapping[str, int]) -> JobView:
        return job_view(job).model_copy(
            update={
                "expires_at": expires_at(job.finished_at, self._retention, pinned=job.pinned),
                **self._outlook(job, places),
            }
        )

    async def changes(self, after: int | None, previews_after: int | None = None) -> Changes:
        """Return what changed after the change `after`: see `JobsService.changes`."""
        last, jobs, deleted, more = await self._db(_changes, self._store, after)
        return Changes(
            jobs=tuple(await self.views(jobs)),
            deleted=tuple(deleted),
            # Looked at after the rows: what is shown of a job later than its end never comes.
            previews=self._dispatcher.previews.after(previews_after),
            last=last,
            more=more,
        )

    def _outlook(self, job: Job, places: Mapping[str, int]) -> dict[str, int | float | bool | None]:
        """Return what the row does not say: what changes while it stays the same."""
        forecast = self._dispatcher.forecast
        if job.status == "queued":
            wait = forecast.wait(job)
            return {
                "queue_position": places.get(job.id, 1),  # 1 also for one that begins this moment
                "seconds_until_start": wait.start_s,
                "seconds_left": wait.end_s,
                "memory_gb": self._outlooks.memory_gb(job),
            }
        if job.status == "in_progress":
            return {
                "seconds_left": forecast.seconds_left(job.id),
                "heartbeat_at": self._dispatcher.fleet.heartbeat(job.id),
                "stalled": forecast.is_stalled(job),
                "memory_gb": self._outlooks.memory_gb(job),
            }
        return {}


def job_view(job: Job) -> JobView:
    """Return what the outside may see of a row."""
    return JobView(
        id=job.id,
        status=job.status,
        phase=job.phase,
        progress=job.progress,
        step=job.step,
        num_steps=job.num_steps,
        queue_position=0,
        request=job.request,
        model=job.model,
        routing=job.routing,
        spec=job.spec,
        notices=job.notices,
        attempts=job.attempts,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        file_name=job.file_name if job.status == "completed" else None,
        file_bytes=job.file_bytes,
        error_code=job.error_code,
        error_message=job.error_message,
        remixed_from=job.remixed_from,
        caller=job.caller,
        pinned=job.pinned,
        sequence=job.sequence,
        changed_at=job.changed_at,
    )


def _changes(
    store: JobStore, after: int | None
) -> tuple[int, Sequence[Job], Sequence[DeletedJob], bool]:
    """Return the number up to which the rest is complete, the changed jobs, the deleted ones, and
    whether later changes are left. Blocks."""
    # Read first: what changes meanwhile has a higher number, and is told the next time.
    last = store.last_change()
    if after is None or after > last:
        present = {job.id: job for job in [*store.queued(), *store.in_progress()]}
        return last, list(present.values()), [], False
    if after == last:
        return last, [], [], False
    changed = store.changed_after(after, CHANGES_AT_ONCE)
    deleted = store.deleted_after(after, CHANGES_AT_ONCE)
    full = [found[-1].sequence for found in (changed, deleted) if len(found) == CHANGES_AT_ONCE]
    upto = min([last, *full])
    return (
        upto,
        [job for job in changed if job.sequence <= upto],
        [job for job in deleted if job.sequence <= upto],
        upto < last,
    )
