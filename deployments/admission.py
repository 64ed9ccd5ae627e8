"""Who gets a place in the queue: the checks that a new job passes before it is stored."""

from functools import partial
from pathlib import Path

from deployments.core import outputs
from deployments.core.config import ServiceConfig
from deployments.core.errors import BackendUnavailable, QueueFull
from deployments.core.job_store import Job, JobStore
from deployments.core.routing import route
from deployments.core.service import Submission
from deployments.core.spec import ModelCard
from deployments.dispatcher import Dispatcher
from deployments.job_run import Db


class Admission:
    """The door of the queue.

    Args: cards: what the configured models can do, in the order in which they are preferred.
    """

    def __init__(
        self,
        config: ServiceConfig,
        cards: list[ModelCard],
        dispatcher: Dispatcher,
        *,
        store: JobStore,
        db: Db,
    ) -> None:
        self._config, self._cards, self._dispatcher = config, cards, dispatcher
        self._store, self._db = store, db

    async def admit(self, submission: Submission) -> str:
        """Store a new job, durably, and return its id; the same id again is the same job.

        Raises: InvalidRequest, BackendUnavailable, QueueFull, InsufficientDisk.
        """
        if (known := await self._known(submission)) is not None:
            return known.id
        way = route(submission.request, self._cards)
        if reason := self._dispatcher.fleet.hopeless(way.models):
            raise BackendUnavailable(reason)
        queued = await self._db(self._store.count_queued)
        if queued >= self._config.limits.max_queued:
            raise QueueFull(queued, self._dispatcher.seconds_until_free())
        folder, minimum = Path(self._config.outputs_dir), self._config.limits.min_free_disk_mb
        await self._db(partial(outputs.require_free_disk, folder, minimum))
        await self._db(self._store.submit, submission, way.models, way.reason)
        self._dispatcher.wake()
        return submission.job_id

    async def _known(self, submission: Submission) -> Job | None:
        """Return the job that this submission has made already."""
        return await self._db(self._store.get, submission.job_id)
