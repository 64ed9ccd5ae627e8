"""Who gets a place in the queue: the checks that a new job passes before it is stored.

A request that comes again is never refused and never runs twice: the job that it made is answered.
"""

import asyncio
import time
from functools import partial
from http import HTTPStatus
from pathlib import Path

from deployments.core import outputs
from deployments.core.config import ServiceConfig
from deployments.core.errors import BackendUnavailable, QueueFull, VideoServiceError
from deployments.core.job_intake import REPEATED_WITHIN_S
from deployments.core.job_store import JobStore
from deployments.core.loras import LoraFolders
from deployments.core.routing import Route, route
from deployments.core.service import Submission
from deployments.core.spec import ModelCard
from deployments.dispatcher import Dispatcher
from deployments.job_run import Db
from deployments.outlooks import Outlooks

# What OpenAI's clients ask for again, of all that a refusal may be.
REPEATED_STATUSES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
MAX_REFUSALS = 10_000


class Admission:
    """The door of the queue.

    Args:
        cards: what the configured models can do, in the order in which they are preferred.
        loras: their LoRA files.
    """

    def __init__(
        self,
        config: ServiceConfig,
        cards: list[ModelCard],
        dispatcher: Dispatcher,
        outlooks: Outlooks,
        *,
        store: JobStore,
        db: Db,
        loras: LoraFolders,
    ) -> None:
        self._config, self._cards, self._dispatcher = config, cards, dispatcher
        self._outlooks = outlooks
        self._store, self._db, self._loras = store, db, loras
        self._refusals = Refusals()
        # One at a time: who is counted before the queue is full must be in it before the next one.
        self._turn = asyncio.Lock()

    async def admit(self, submission: Submission) -> str:
        """Store a new job, durably, and return its id; of a request that has come before, the id of
        the job that it made.

        Raises: InvalidRequest, BackendUnavailable, InsufficientVram, QueueFull, InsufficientDisk.
        """
        async with self._turn:
            if submission.is_retry and self._refusals.take(submission):
                # What it repeats was refused here, so no job before it can be its own.
                submission = submission.model_copy(update={"is_retry": False})
            known: str | None = await self._db(self._store.known, submission)
            if known is not None:
                return known
            try:
                way = await self._admissible(submission)
            except VideoServiceError as refusal:
                if refusal.status in REPEATED_STATUSES:
                    self._refusals.add(submission)
                raise
            job_id: str = await self._db(self._store.submit, submission, way.models, way.reason)
        self._dispatcher.wake()
        return job_id

    async def _admissible(self, submission: Submission) -> Route:
        """Return the models that may make it, if there is room for it."""
        stock = await self._loras.stock_for(submission.request)
        way = route(submission.request, self._cards, stock)
        if reason := self._dispatcher.fleet.hopeless(way.models):
            raise BackendUnavailable(reason)
        await self._outlooks.refuse_too_large(submission.request, way.models)
        limits = self._config.limits
        queued = await self._db(self._store.count_queued)
        if queued >= limits.max_queued:
            raise QueueFull(queued, self._dispatcher.forecast.seconds_until_free())
        if submission.caller:
            own = await self._db(self._store.count_queued, submission.caller)
            if own >= limits.max_queued_per_key:
                raise QueueFull(own, self._dispatcher.forecast.seconds_until_free(), True)
        folder = Path(self._config.outputs_dir)
        await self._db(partial(outputs.require_free_disk, folder, limits.min_free_disk_mb))
        return way


class Refusals:
    """Which requests were refused lately, so that a repetition of one is known for a new request.

    Two requests of one caller and one content cannot be told apart, and need not be: as many are
    taken in as were asked for.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[int, float]] = {}

    def add(self, submission: Submission) -> None:
        """Note that this one was refused."""
        key = submission.caller, submission.fingerprint
        count, _ = self._counts.pop(key, (0, 0.0))
        self._counts[key] = count + 1, time.monotonic()
        if len(self._counts) > MAX_REFUSALS:  # the first one is the one noted longest ago
            del self._counts[next(iter(self._counts))]

    def take(self, submission: Submission) -> bool:
        """Whether a request like this was refused; it is forgotten then."""
        key = submission.caller, submission.fingerprint
        count, at = self._counts.pop(key, (0, 0.0))
        if not count or time.monotonic() - at > REPEATED_WITHIN_S:
            return False
        if count > 1:
            self._counts[key] = count - 1, at
        return True
