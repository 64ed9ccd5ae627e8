"""The jobs deployment: takes jobs in and tells how they stand.

One replica serves the job table; a second one exists only while it replaces the first. What runs
the jobs is in `dispatcher`, what is known of the models in `fleet`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from deployments.core import outputs
from deployments.core.config import ServiceConfig
from deployments.core.errors import BackendUnavailable, InvalidRequest, NotFound, QueueFull
from deployments.core.events import JobPage, JobView, ReplicaState, ServiceState, Wanted
from deployments.core.job_store import Job, JobStore
from deployments.core.log import logger
from deployments.core.routing import route
from deployments.core.service import Order
from deployments.core.spec import ModelCard, VideoRequest
from deployments.dispatcher import Dispatcher
from deployments.job_run import EncoderClient, ModelClient

MAX_WAIT_S = 2.0


class Jobs:
    """The implementation of `JobsService`, plus `report` for the model replicas."""

    def __init__(
        self,
        config: ServiceConfig,
        cards: list[ModelCard],
        models: Mapping[str, ModelClient],
        encoder: EncoderClient,
    ) -> None:
        self._config, self._cards = config, cards
        self._changes: dict[str, asyncio.Event] = {}
        self._closing = False
        self._db_thread = ThreadPoolExecutor(1, thread_name_prefix="jobs-db")
        self._store = JobStore(config.resolved_database_url)
        self._clean_outputs()
        self._dispatcher = Dispatcher(
            config,
            {card.name: card for card in cards},
            models,
            encoder,
            store=self._store,
            db=self._db,
            announce=self._announce,
        )

    # --- what the doors ask: see core/service.py ----------------------------------------

    async def submit(
        self,
        job_id: str,
        request: VideoRequest,
        image: bytes | None,
        remixed_from: str | None = None,
    ) -> JobView:
        """Store a new job, durably; the same id again returns the job that is there."""
        if (known := await self._db(self._store.get, job_id)) is not None:
            return await self._view(known)
        way = route(request, self._cards)
        if reason := self._dispatcher.fleet.hopeless(way.models):
            raise BackendUnavailable(reason)
        queued = await self._db(self._store.count_queued)
        if queued >= self._config.limits.max_queued:
            raise QueueFull(queued, self._dispatcher.seconds_until_free())
        folder, minimum = Path(self._config.outputs_dir), self._config.limits.min_free_disk_mb
        await self._db(outputs.require_free_disk, folder, minimum)
        await self._db(
            self._store.submit, job_id, request, image, way.models, way.reason, remixed_from
        )
        self._dispatcher.wake()
        return await self.get(job_id)

    async def get(self, job_id: str) -> JobView:
        """Return the job as it is now."""
        job = await self._db(self._store.get, job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id!r}.")
        return await self._view(job)

    async def list_jobs(self, after: str | None, limit: int, order: Order) -> JobPage:
        """Return the jobs that follow the job `after`, or the first ones."""
        found = await self._db(
            partial(self._store.page, after, limit + 1, descending=order == "desc")
        )
        if found is None:
            raise InvalidRequest("after", f"there is no video {after!r}")
        views = [await self._view(job) for job in found[:limit]]
        return JobPage(jobs=tuple(views), has_more=len(found) > limit)

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """Return the job when it is done, or as it is after `timeout_s`, at most two seconds."""
        deadline = time.monotonic() + min(timeout_s, MAX_WAIT_S)
        while True:
            changed = self._changes.setdefault(job_id, asyncio.Event())
            view = await self.get(job_id)
            left = deadline - time.monotonic()
            if view.done or left <= 0 or self._closing:
                if view.done:
                    self._announce(job_id)
                return view
            with contextlib.suppress(TimeoutError):
                # Another owner's changes are not announced here, hence a look twice a second.
                await asyncio.wait_for(changed.wait(), min(left, 0.5))

    async def cancel(self, job_id: str) -> JobView:
        """Stop the job: at once if it waits, within a step if it runs; nothing when it is done."""
        if await self._db(self._store.request_cancel, job_id):
            self._announce(job_id)
            await self._dispatcher.stop(job_id)
        return await self.get(job_id)

    async def delete(self, job_id: str) -> None:
        """Forget a job that is done, and remove its files."""
        job = await self._db(self._store.get, job_id)
        if job is None or job.status not in ("completed", "failed"):
            return
        # The files first: after a crash in between the job is still there to be deleted.
        if job.file_name:
            await self._db(outputs.remove, Path(self._config.outputs_dir), job.file_name)
        await self._db(self._store.delete, job_id)
        logger.info("video_id=%s: deleted", job_id)

    async def abandon(self, job_id: str) -> None:
        """Stop a job for which nobody waits any more."""
        await self.cancel(job_id)

    async def find_output(self, file_name: str) -> JobView:
        """Return the completed job that owns the file."""
        job = await self._db(self._store.by_file_name, file_name)
        if job is None or job.status != "completed":
            raise NotFound(f"There is no video {file_name!r}.")
        return await self._view(job)

    async def state(self) -> ServiceState:
        """Return the state of the models and the queue."""
        return ServiceState(
            replicas=self._dispatcher.fleet.replicas(),
            jobs_queued=await self._db(self._store.count_queued),
            jobs_running=self._dispatcher.running,
            taken_at=time.time(),
        )

    async def report(self, state: ReplicaState) -> Wanted:
        """Take a model replica's state; the answer says which of its work is still wanted."""
        self._dispatcher.fleet.report(state)
        self._dispatcher.wake()
        running = {job.id: job.owner for job in await self._db(self._store.in_progress)}
        return Wanted(
            job=state.job_id is not None and running.get(state.job_id) == state.job_owner,
            frames=frozenset(state.holding) & running.keys(),
        )

    # --- small things -------------------------------------------------------------------

    async def _view(self, job: Job) -> JobView:
        position, turn_s = 0, self._dispatcher.seconds_until_free()
        if job.status == "queued":
            position = await self._db(self._store.position, job.number)
        return job_view(job, position, seconds_left(job, position, turn_s))

    async def _db(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._db_thread, function, *args)

    def _clean_outputs(self) -> None:
        """Remove what a crash left half-written."""
        folder = Path(self._config.outputs_dir)
        folder.mkdir(parents=True, exist_ok=True)
        living = [*self._store.queued(), *self._store.in_progress()]
        held = {job.file_name for job in living if job.file_name}
        for name in outputs.remove_orphans(folder, held):
            logger.info("removed %s, left by a crash", name)

    def _announce(self, job_id: str) -> None:
        if (changed := self._changes.pop(job_id, None)) is not None:
            changed.set()

    async def close(self) -> None:
        """Stop every run and put its job back into the queue, for the next replica."""
        self._closing = True
        await self._dispatcher.close()
        self._store.close()


def seconds_left(job: Job, position: int, turn_s: float) -> float | None:
    """Return about how long the job still takes, None when it is done.

    Args:
        position: its place among the waiting.
        turn_s: how often a model becomes free.
    """
    if job.status == "queued":
        return (position + 1) * turn_s
    if job.status != "in_progress":
        return None
    ran_s = time.time() - (job.started_at or time.time())
    # The first per cents say little of the rest.
    return ran_s * (100 - job.progress) / job.progress if job.progress >= 10 else turn_s


def job_view(job: Job, position: int, left_s: float | None) -> JobView:
    """Return what the outside may see of a row; `position` is its place among the waiting."""
    request = job.request
    return JobView(
        id=job.id,
        status=job.status,
        phase=job.phase,
        progress=job.progress,
        step=job.step,
        num_steps=job.num_steps,
        queue_position=position,
        prompt=request.prompt,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        fps=request.fps,
        seed=request.seed,
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
        seconds_left=left_s,
    )
