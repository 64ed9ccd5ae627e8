"""The jobs deployment: takes jobs in and tells how they stand.

One replica serves the job table; a second one exists only while it replaces the first. What runs
the jobs is in `dispatcher`, who gets in in `admission`, what is kept in `housekeeping`, what the
outside sees in `job_views`.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from deployments import metrics
from deployments.admission import Admission
from deployments.core.config import ServiceConfig
from deployments.core.deliveries import DeliveryStore, Outbox
from deployments.core.errors import InvalidRequest, NotFound
from deployments.core.events import Changes, JobPage, JobView, ReplicaState, ServiceState, Wanted
from deployments.core.job_store import JobStore
from deployments.core.log import logger
from deployments.core.loras import LoraFolders
from deployments.core.outlook import Figures, Outlook
from deployments.core.service import JobQuery, Submission
from deployments.core.spec import ModelCard, VideoRequest
from deployments.dispatcher import Dispatcher
from deployments.housekeeping import Housekeeping
from deployments.job_run import EncoderClient, ModelClient
from deployments.job_views import JobViews
from deployments.outlooks import Outlooks
from deployments.webhooks import Webhooks

MAX_WAIT_S = 2.0
TIDY_EVERY_S = 60.0


class Jobs:
    """The implementation of `JobsService`, plus `report` for the model replicas."""

    def __init__(
        self,
        config: ServiceConfig,
        cards: list[ModelCard],
        models: Mapping[str, ModelClient],
        encoder: EncoderClient,
        figures: Figures | None = None,
        loras: LoraFolders | None = None,
    ) -> None:
        loras = loras or LoraFolders({})
        self._changes: dict[str, asyncio.Event] = {}
        self._any_change = asyncio.Event()
        self._closing = False
        self._db_thread = ThreadPoolExecutor(1, thread_name_prefix="jobs-db")
        url = config.resolved_database_url
        outbox = Outbox([webhook.endpoint(os.environ) for webhook in config.webhooks])
        self._store = JobStore(url, outbox, on_end=metrics.record_end)
        self._webhooks = Webhooks(outbox, DeliveryStore(url), self._db)
        self._housekeeping = Housekeeping(config, self._store)
        self._housekeeping.clean()
        self._dispatcher = Dispatcher(
            config,
            {card.name: card for card in cards},
            models,
            encoder,
            store=self._store,
            db=self._db,
            announce=self._announce,
        )
        self._outlooks = Outlooks(
            cards, figures or {}, self._dispatcher, store=self._store, db=self._db, loras=loras
        )
        self._admission = Admission(
            config,
            cards,
            self._dispatcher,
            self._outlooks,
            store=self._store,
            db=self._db,
            loras=loras,
        )
        self._views = JobViews(
            self._dispatcher, self._outlooks, config.retention, store=self._store, db=self._db
        )
        self._tidying = asyncio.create_task(self._keep_tidy())

    # --- what the doors ask: see core/service.py ----------------------------------------

    async def submit(self, submission: Submission) -> JobView:
        """Store a new job, durably; the same id again returns the job that is there."""
        job_id = await self._admission.admit(submission)
        logger.info("video_id=%s: handed in", job_id)
        self._announce(job_id)
        return await self.get(job_id)

    async def estimate(self, request: VideoRequest) -> Outlook:
        """Return what the request would take, were it handed in now."""
        return await self._outlooks.of(request)

    async def get(self, job_id: str) -> JobView:
        """Return the job as it is now."""
        job = await self._db(self._store.get, job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id!r}.")
        return await self._views.view(job)

    async def image(self, job_id: str) -> bytes | None:
        """Return the picture that the job begins with, if it is kept."""
        await self.get(job_id)
        image: bytes | None = await self._db(self._store.image, job_id)
        return image

    async def list_jobs(self, query: JobQuery) -> JobPage:
        """Return the jobs that follow the job `query.after`, or the first ones."""
        one_more = query.model_copy(update={"limit": query.limit + 1})
        # Asked for first: a change in between is told twice, not lost.
        last_change = await self._db(self._store.last_change)
        found = await self._db(self._store.page, one_more)
        if found is None:
            raise InvalidRequest("after", f"there is no video {query.after!r}")
        views = await self._views.views(found[: query.limit])
        has_more = len(found) > query.limit
        return JobPage(jobs=tuple(views), has_more=has_more, last_change=last_change)

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
                async with asyncio.timeout(min(left, 0.5)):
                    await changed.wait()

    async def changes(
        self, after: int | None, timeout_s: float, previews_after: int | None = None
    ) -> Changes:
        """Return what changed after the change `after`, and the previews after `previews_after`, or
        nothing after `timeout_s`, at most two seconds; without a number that there has been, the
        jobs that are not done."""
        deadline = time.monotonic() + min(timeout_s, MAX_WAIT_S)
        while True:
            news = self._any_change
            changes = await self._views.changes(after, previews_after)
            left = deadline - time.monotonic()
            found = changes.jobs or changes.deleted or changes.previews
            if found or after is None or changes.last < after or left <= 0 or self._closing:
                return changes
            after = changes.last  # a change that changed no row counts too
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 0.5)):
                    await news.wait()

    async def cancel(self, job_id: str) -> JobView:
        """Stop the job: at once if it waits, within a step if it runs; nothing when it is done."""
        if await self._db(self._store.request_cancel, job_id):
            self._announce(job_id)
            await self._dispatcher.stop(job_id)
            await self._db(self._housekeeping.discard_unfinished, job_id)
        return await self.get(job_id)

    async def delete(self, job_id: str) -> None:
        """Forget a job that is done, and remove its files."""
        if await self._db(self._housekeeping.delete, job_id):
            logger.info("video_id=%s: deleted", job_id)
            self._announce(job_id)

    async def pin(self, job_id: str, pinned: bool) -> JobView:
        """Keep the job when old ones are removed, or do not any more."""
        if await self._db(partial(self._store.pin, job_id, pinned=pinned)):
            self._announce(job_id)
        return await self.get(job_id)

    async def abandon(self, job_id: str) -> None:
        """Stop a job for which nobody waits any more."""
        await self.cancel(job_id)

    async def find_output(self, file_name: str) -> JobView:
        """Return the completed job that owns the file."""
        job = await self._db(self._store.by_file_name, file_name)
        if job is None or job.status != "completed":
            raise NotFound(f"There is no video {file_name!r}.")
        return await self._views.view(job)

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
        metrics.record_gpus(state.node, state.gpus)
        self._dispatcher.wake()
        running = {job.id: job.owner for job in await self._db(self._store.in_progress)}
        return Wanted(
            job=state.job_id is not None and running.get(state.job_id) == state.job_owner,
            frames=frozenset(state.holding) & running.keys(),
        )

    # --- small things -------------------------------------------------------------------

    async def _db(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._db_thread, function, *args)

    def _announce(self, job_id: str) -> None:
        if (changed := self._changes.pop(job_id, None)) is not None:
            changed.set()
        self._any_change.set()
        self._any_change = asyncio.Event()

    async def _keep_tidy(self) -> None:
        """Remove what the operator's rules no longer keep, now and every minute.

        While one replica replaces another both do: what is removed twice is removed once.
        """
        while True:
            try:
                for job_id in await self._db(self._housekeeping.expired):
                    if await self._db(self._housekeeping.expire, job_id):
                        logger.info("video_id=%s: expired and removed", job_id)
                        self._announce(job_id)
            except Exception:
                logger.exception("old videos could not be removed; trying again")
            await asyncio.sleep(TIDY_EVERY_S)

    async def close(self) -> None:
        """Stop every run and put its job back into the queue, for the next replica."""
        self._closing = True
        self._tidying.cancel()
        await self._dispatcher.close()
        await self._webhooks.close()
        self._store.close()
