"""Runs waiting jobs on free models, and takes over what dead owners left.

Whose turn it is, and on which model, is decided in `turns`; the job is bound to that model then. A
model that has no room for it hands it on to the others. Every end of a run is written to the row
here; what happens in between is in `job_run`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from deployments import housekeeping, metrics
from deployments.core import owner
from deployments.core.config import ServiceConfig
from deployments.core.errors import InsufficientVram, Interrupted, VideoServiceError
from deployments.core.job_store import Job, JobStore
from deployments.core.log import logger
from deployments.core.routing import also, first_free
from deployments.core.spec import ModelCard, VideoSpec
from deployments.core.wanted import why_late, why_unwanted
from deployments.disk_room import DiskRoom
from deployments.fleet import Fleet
from deployments.forecast import Forecast
from deployments.frame_refs import FramesUnknown
from deployments.job_run import Db, EncoderClient, JobRun, ModelClient, OwnershipLost
from deployments.latest_previews import LatestPreviews
from deployments.lost import cause_of, is_lost
from deployments.turns import Turns

LEASE_S, RENEW_EVERY_S = 10.0, 3.0
DISPATCH_EVERY_S = 1.0
CLOCK_SLACK_S = 0.05


class Dispatcher:
    """The runs of this process.

    Args:
        announce: told the id of every job whose row has changed.
    """

    def __init__(
        self,
        config: ServiceConfig,
        cards: Mapping[str, ModelCard],
        models: Mapping[str, ModelClient],
        encoder: EncoderClient,
        *,
        store: JobStore,
        db: Db,
        announce: Callable[[str], None],
    ) -> None:
        self._config, self._cards = config, cards
        self._models, self._encoder = models, encoder
        self._store, self._db, self._announce = store, db, announce
        self._owner = owner.this_process()
        self._room = DiskRoom(config, store)
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self.fleet = Fleet({model.name: model.num_replicas for model in config.models})
        self.forecast = Forecast(config, cards, self.fleet)
        self.turns = Turns(cards, self.fleet, store=store, db=db)
        self.previews = LatestPreviews()
        self._loops = [
            asyncio.create_task(_keep(self._dispatch, DISPATCH_EVERY_S, self._changed)),
            asyncio.create_task(_keep(self._tend_leases, RENEW_EVERY_S, asyncio.Event())),
        ]

    @property
    def running(self) -> int:
        """How many jobs are generated or encoded here."""
        return len(self._runs)

    def wake(self) -> None:
        """Look for something to start now: a job came, or a model became free."""
        self._changed.set()

    async def stop(self, job_id: str) -> None:
        """Cancel the run, if it is here, and return when its model and encoder have stopped."""
        if (task := self._runs.get(job_id)) is not None:
            _cancel_once(task)
            await asyncio.wait([task])

    async def close(self) -> None:
        """Stop every run and put its job back into the queue, for the next owner."""
        for loop in self._loops:
            loop.cancel()
        runs = list(self._runs.values())
        for run in runs:
            _cancel_once(run)
        if runs:
            await asyncio.wait(runs)
        self.forecast.close()

    # --- starting -----------------------------------------------------------------------

    async def _dispatch(self) -> None:
        waiting = await self._still_wanted(await self._db(self._store.queued))
        metrics.record_queue([job.created_at for job in waiting], self.running)
        if waiting and not await self._db(self._room.suffices, waiting):
            return
        able = []
        for job in waiting:
            try:
                able.append((job, self.turns.specs(job)))
            except VideoServiceError as never:
                await self._fail_waiting(job, never)
        while (turn := self.turns.next(able)) is not None:
            able = [(job, specs) for job, specs in able if job is not turn[0]]
            await self._start(*turn)

    async def _still_wanted(self, waiting: list[Job]) -> list[Job]:
        """Return those of the `waiting` jobs whose time is not over; the others fail now."""
        found = []
        for job in waiting:
            if (late := why_late(job)) is None:
                found.append(job)
            else:
                await self._fail_waiting(job, late)
        return found

    async def _fail_waiting(self, job: Job, error: VideoServiceError) -> None:
        if await self._db(self._store.fail_queued, job.id, error.code, str(error)):
            await self._discard(job.file_name)
        self._announce(job.id)

    async def _start(self, job: Job, spec: VideoSpec) -> None:
        name, routing = spec.model, job.routing
        if len(job.candidates) > 1:
            routing = also(routing, first_free(job.candidates))
        lease = time.time() + LEASE_S
        if not await self._db(self._store.claim, job.id, self._owner, lease, spec, routing):
            return
        logger.info("video_id=%s: given to %s", job.id, name)
        if not job.attempts:
            waited_s = time.time() - job.created_at
            metrics.PHASES.observe(waited_s, model=name, phase="queued")
        run = JobRun(
            job,
            spec,
            self._owner,
            db=self._db,
            store=self._store,
            config=self._config,
            forecast=self.forecast,
            on_change=partial(self._announce, job.id),
            on_preview=partial(self.previews.show, job.id, job.caller),
        )
        self.turns.began(job, name)
        task = asyncio.create_task(self._run(job, name, run), name=job.id)
        self._runs[job.id] = task
        # Not left to the task itself: one that is cancelled before its first step runs no
        # `finally`.
        task.add_done_callback(partial(self._end_of_run, job.id))
        if job.deadline_at is not None:
            # A little later: the wall clock, which decides, must be past it then.
            left_s = max(0.0, job.deadline_at - time.time()) + CLOCK_SLACK_S
            timer = asyncio.get_running_loop().call_later(left_s, _cancel_once, task)
            task.add_done_callback(lambda _: timer.cancel())
        self._announce(job.id)

    # --- one run --------------------------------------------------------------------------

    async def _run(self, job: Job, name: str, run: JobRun) -> None:
        """Run a claimed job to one of its ends and write that end to the row.

        Args: job: as it was before it was claimed for the model `name`.
        """
        job_id = job.id
        try:
            if not await run.adopt(self._encoder):
                await run.make(self._models[name], self._encoder, partial(self._free, job_id))
            logger.info("video_id=%s: completed", job_id)
        except OwnershipLost:
            logger.warning("video_id=%s: another owner took the job over", job_id)
        except asyncio.CancelledError:
            await self._end_stopped(job_id, run)
        except Exception as error:  # noqa: BLE001  a job ends here, and _end_failed logs it
            others = [other for other in job.candidates if self._may_take(other, name)]
            if isinstance(cause_of(error), FramesUnknown):
                # The encoder asks our successor already: this replica is about to be closed.
                await self._end_stopped(job_id, run)
            elif isinstance(cause_of(error), InsufficientVram) and run.refusable and others:
                await self._hand_on(job, name, others, cause_of(error))
            else:
                await self._end_failed(job_id, run, error)

    def _free(self, job_id: str) -> None:
        """The model is done with the job; the encoder may not be."""
        self.turns.ended(job_id)
        self.wake()

    def _end_of_run(self, job_id: str, task: asyncio.Task[None]) -> None:
        if self._runs.get(job_id) is task:
            del self._runs[job_id]
            self.forecast.ended(job_id)
            self.previews.ended(job_id)
            self._free(job_id)
        self._announce(job_id)

    async def _end_stopped(self, job_id: str, run: JobRun) -> None:
        """A user cancelled the job, its time is over, or this replica shuts down: then it waits for
        the next one.

        The row knows which; a reason in the CancelledError is lost on its way through Ray.
        """
        job = await self._db(self._store.get, job_id)
        if job is not None and (unwanted := why_unwanted(job)):
            await self._fail(job_id, self._owner, unwanted)
        else:
            # The attempt was ours to end, so it does not count.
            requeue = partial(self._store.requeue, count_attempt=not run.started)
            await self._db(requeue, job_id, self._owner)

    def _may_take(self, other: str, name: str) -> bool:
        """Whether the model `other` may get a job that `name` refused."""
        return other != name and other in self._cards and not self.fleet.hopeless([other])

    async def _hand_on(self, job: Job, name: str, others: list[str], why: BaseException) -> None:
        """Put a job back for the `others`: the model `name` has no memory for it."""
        logger.warning("video_id=%s: %s; handed on to %s", job.id, why, others)
        routing = also(job.routing, f"{name}: not enough GPU memory")
        current = await self._db(self._store.get, job.id)
        if current is not None and (unwanted := why_unwanted(current)):
            await self._fail(job.id, self._owner, unwanted)
        else:
            await self._db(self._store.reroute, job.id, self._owner, others, routing)

    async def _end_failed(self, job_id: str, run: JobRun, raised: Exception) -> None:
        error = cause_of(raised)
        if is_lost(error):
            logger.warning("video_id=%s: lost to %r", job_id, error)
            # Also when it was the encoder that told of it, as frames die with their model. One that
            # lives is back with its next report.
            self.fleet.forget(run.replica_id)
            await self._requeue_or_give_up(job_id, self._owner)
        elif isinstance(error, VideoServiceError):
            logger.warning("video_id=%s: failed, %s: %s", job_id, error.code, error)
            await self._fail(job_id, self._owner, error)
        else:
            logger.error("video_id=%s: failed", job_id, exc_info=error)
            what = f"Unexpected error ({type(error).__name__}); the service log has the details."
            await self._fail(job_id, self._owner, VideoServiceError(what))

    async def _requeue_or_give_up(self, job_id: str, job_owner: str) -> None:
        job = await self._db(self._store.get, job_id)
        if job is None:
            return
        if unwanted := why_unwanted(job):
            await self._fail(job_id, job_owner, unwanted)
        elif job.attempts >= self._config.limits.max_attempts and not await self._has_file(job):
            await self._fail(job_id, job_owner, Interrupted(job.attempts))
        else:
            requeue = partial(self._store.requeue, count_attempt=True)
            await self._db(requeue, job_id, job_owner)
        self._announce(job_id)
        self.wake()

    async def _fail(self, job_id: str, job_owner: str, error: VideoServiceError) -> None:
        """Write a running job's last state; of its file, made or in the making, nothing stays."""
        job = await self._db(self._store.get, job_id)
        failed = await self._db(self._store.fail, job_id, job_owner, error.code, str(error))
        if failed:
            await self._discard(job.file_name)

    async def _discard(self, name: str | None) -> None:
        if name is not None:
            folder = Path(self._config.outputs_dir)
            await self._db(housekeeping.discard, folder, self._store, name)

    async def _has_file(self, job: Job) -> bool:
        """Whether the job's video is there: its owner died before it could say so."""
        path = Path(self._config.outputs_dir) / (job.file_name or "")
        return await self._db(path.is_file)

    # --- leases -------------------------------------------------------------------------

    async def _tend_leases(self) -> None:
        """Renew ours, stop what others cancelled, take over what dead owners left."""
        renew = partial(self._store.renew, self._owner, time.time() + LEASE_S)
        for job_id in await self._db(renew):
            await self.stop(job_id)
        for job in await self._db(self._store.in_progress):
            mine = job.owner == self._owner
            left = mine and job.id not in self._runs  # a run that could not write its own end
            expired = not mine and (job.lease_until < time.time() or owner.is_dead(job.owner))
            if left or expired:
                logger.warning("video_id=%s: its owner is gone, taking it over", job.id)
                await self._requeue_or_give_up(job.id, job.owner)


def _cancel_once(run: asyncio.Task[None]) -> None:
    """Stop a run, whoever wants it: a second cancel would break off the writing of its end."""
    if not run.cancelling():
        run.cancel()


async def _keep(work: Callable[[], Any], every_s: float, wake: asyncio.Event) -> None:
    """Do `work` every `every_s` seconds, and at once when woken; survive its errors."""
    while True:
        wake.clear()
        try:
            await work()
        except Exception:
            logger.exception("%s failed; trying again", getattr(work, "__name__", work))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await wake.wait()
