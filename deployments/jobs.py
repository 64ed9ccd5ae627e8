"""The jobs deployment: takes jobs in, runs them on free models, and tells how they stand.

One replica owns the queue in the job table; a second one exists only while it replaces the first. A
job is bound to a model at the moment a replica of that model is free, so position and cancel of a
waiting job are exact. The work of one run is in `job_run`, what is known of the models in `fleet`.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from deployments.core import outputs, owner
from deployments.core.config import ServiceConfig
from deployments.core.errors import (
    BackendUnavailable,
    Cancelled,
    Interrupted,
    NotFound,
    QueueFull,
    VideoServiceError,
)
from deployments.core.events import JobView, ReplicaState, ServiceState, Wanted
from deployments.core.job_store import Job, JobStore
from deployments.core.log import logger
from deployments.core.spec import ModelCard, VideoRequest, choose_models, resolve
from deployments.fleet import Fleet
from deployments.job_run import (
    EncoderClient,
    JobRun,
    ModelClient,
    OwnershipLost,
)
from deployments.lost import cause_of, is_dead, is_lost

LEASE_S, RENEW_EVERY_S = 10.0, 3.0
DISPATCH_EVERY_S = 1.0
MAX_WAIT_S = 2.0
TYPICAL_JOB_S = 60.0


class Jobs:
    """The implementation of `JobsService`, plus `report` for the model replicas."""

    def __init__(
        self,
        config: ServiceConfig,
        cards: list[ModelCard],
        models: Mapping[str, ModelClient],
        encoder: EncoderClient,
    ) -> None:
        self._config, self._models, self._encoder = config, models, encoder
        self._cards = {card.name: card for card in cards}
        self._fleet = Fleet({model.name: model.num_replicas for model in config.models})
        self._owner = owner.this_process()
        self._generating: defaultdict[str, set[str]] = defaultdict(set)
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._changes: dict[str, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._closing = False
        self._job_s = TYPICAL_JOB_S
        self._db_thread = ThreadPoolExecutor(1, thread_name_prefix="jobs-db")
        self._store = JobStore(config.resolved_database_url)
        self._clean_outputs()
        self._loops = [
            asyncio.create_task(self._keep(self._dispatch, DISPATCH_EVERY_S, self._wake)),
            asyncio.create_task(self._keep(self._tend_leases, RENEW_EVERY_S, asyncio.Event())),
        ]

    # --- what the doors ask: see core/service.py ----------------------------------------

    async def submit(self, job_id: str, request: VideoRequest, image: bytes | None) -> JobView:
        """Store a new job, durably; the same id again returns the job that is there."""
        if (known := await self._db(self._store.get, job_id)) is not None:
            return await self._view(known)
        candidates = choose_models(request, list(self._cards.values()))
        if reason := self._fleet.hopeless(candidates):
            raise BackendUnavailable(reason)
        queued = await self._db(self._store.queued)
        if len(queued) >= self._config.limits.max_queued:
            raise QueueFull(len(queued), self._seconds_until_free())
        folder, minimum = Path(self._config.outputs_dir), self._config.limits.min_free_disk_mb
        await self._db(outputs.require_free_disk, folder, minimum)
        await self._db(self._store.submit, job_id, request, image, candidates)
        self._wake.set()
        return await self.get(job_id)

    async def get(self, job_id: str) -> JobView:
        """Return the job as it is now."""
        job = await self._db(self._store.get, job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id!r}.")
        return await self._view(job)

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """Return the job when it is done, or as it is after `timeout_s`, at most two seconds."""
        deadline = time.monotonic() + min(timeout_s, MAX_WAIT_S)
        while True:
            changed = self._changes.setdefault(job_id, asyncio.Event())
            view = await self.get(job_id)
            left = deadline - time.monotonic()
            if view.done or left <= 0 or self._closing:
                return view
            with contextlib.suppress(TimeoutError):
                # Another owner's changes are not announced here, hence a look twice a second.
                await asyncio.wait_for(changed.wait(), min(left, 0.5))

    async def cancel(self, job_id: str) -> JobView:
        """Stop the job: at once if it waits, within a step if it runs; nothing when it is done."""
        if await self._db(self._store.request_cancel, job_id):
            self._announce(job_id)
            await self._stop_run(job_id)
        return await self.get(job_id)

    async def find_output(self, file_name: str) -> JobView:
        """Return the completed job that owns the file."""
        job = await self._db(self._store.by_file_name, file_name)
        if job is None or job.status != "completed":
            raise NotFound(f"There is no video {file_name!r}.")
        return await self._view(job)

    async def state(self) -> ServiceState:
        """Return the state of the models and the queue."""
        return ServiceState(
            replicas=self._fleet.replicas(),
            jobs_queued=len(await self._db(self._store.queued)),
            jobs_running=len(self._runs),
            taken_at=time.time(),
        )

    async def report(self, state: ReplicaState) -> Wanted:
        """Take a model replica's state; the answer says which of its work is still wanted."""
        self._fleet.report(state)
        self._wake.set()
        running = {job.id: job.owner for job in await self._db(self._store.in_progress)}
        return Wanted(
            job=state.job_id is not None and running.get(state.job_id) == state.job_owner,
            frames=frozenset(state.holding) & running.keys(),
        )

    # --- running ------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        """Start what can start: the oldest waiting job first, on its first model that is free."""
        if self._closing:
            return
        for job in await self._db(self._store.queued):
            if reason := self._fleet.hopeless(job.candidates):
                await self._db(self._store.fail_queued, job.id, BackendUnavailable.code, reason)
                self._announce(job.id)
                continue
            for name in job.candidates:
                if len(self._generating[name]) < self._fleet.ready(name):
                    await self._start(job, name)
                    break

    async def _start(self, job: Job, name: str) -> None:
        spec = resolve(job.request, self._cards[name])
        lease = time.time() + LEASE_S
        if not await self._db(self._store.claim, job.id, self._owner, lease, spec):
            return
        run = JobRun(
            job,
            spec,
            self._owner,
            db=self._db,
            store=self._store,
            config=self._config,
            on_change=partial(self._announce, job.id),
        )
        self._generating[name].add(job.id)
        task = asyncio.create_task(self._run(job.id, name, run), name=job.id)
        self._runs[job.id] = task
        # Not left to the task itself: one that is cancelled before its first step runs no
        # `finally`.
        task.add_done_callback(partial(self._end_of_run, job.id, name))
        self._announce(job.id)

    async def _run(self, job_id: str, name: str, run: JobRun) -> None:
        """Run a claimed job to one of its ends and write that end to the row."""
        began = time.monotonic()
        try:
            refs = await run.generate(self._models[name])
            self._free(job_id, name)
            await run.encode(self._encoder, refs)
            self._job_s = 0.7 * self._job_s + 0.3 * (time.monotonic() - began)
            logger.info("video_id=%s: completed", job_id)
        except OwnershipLost:
            logger.warning("video_id=%s: another owner took the job over", job_id)
        except asyncio.CancelledError:
            await self._end_stopped(job_id, run)
        except Exception as error:  # noqa: BLE001  a job ends here, and _end_failed logs it
            await self._end_failed(job_id, run, error)

    def _free(self, job_id: str, name: str) -> None:
        """The model is done with the job; the encoder may not be."""
        self._generating[name].discard(job_id)
        self._wake.set()

    def _end_of_run(self, job_id: str, name: str, task: asyncio.Task[None]) -> None:
        if self._runs.get(job_id) is task:
            del self._runs[job_id]
            self._free(job_id, name)
        self._announce(job_id)

    async def _end_stopped(self, job_id: str, run: JobRun) -> None:
        """A user cancelled the job, or this replica shuts down: then it waits for the next one.

        The row knows which; a reason in the CancelledError is lost on its way through Ray.
        """
        job = await self._db(self._store.get, job_id)
        if job is not None and job.cancel_requested:
            await self._fail(job_id, self._owner, Cancelled("The job was cancelled."))
        else:
            # The attempt was ours to end, so it does not count.
            requeue = partial(self._store.requeue, count_attempt=not run.started)
            await self._db(requeue, job_id, self._owner)

    async def _end_failed(self, job_id: str, run: JobRun, raised: Exception) -> None:
        error = cause_of(raised)
        if is_lost(error):
            logger.warning("video_id=%s: lost to %r", job_id, error)
            if is_dead(error):
                self._fleet.forget(run.replica_id)
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
        if job.cancel_requested:
            await self._fail(job_id, job_owner, Cancelled("The job was cancelled."))
        elif job.attempts >= self._config.limits.max_attempts:
            await self._fail(job_id, job_owner, Interrupted(job.attempts))
        else:
            requeue = partial(self._store.requeue, count_attempt=True)
            await self._db(requeue, job_id, job_owner)
        self._announce(job_id)
        self._wake.set()

    async def _fail(self, job_id: str, job_owner: str, error: VideoServiceError) -> None:
        """Write a running job's last state and give its file name back."""
        job = await self._db(self._store.get, job_id)
        failed = await self._db(self._store.fail, job_id, job_owner, error.code, str(error))
        if failed and job.file_name:
            await self._db(outputs.release, Path(self._config.outputs_dir), job.file_name)

    async def _stop_run(self, job_id: str) -> None:
        """Cancel the run, if it is here, and return when its model and encoder have stopped."""
        if (task := self._runs.get(job_id)) is not None:
            task.cancel()
            await asyncio.wait([task])

    # --- leases -------------------------------------------------------------------------

    async def _tend_leases(self) -> None:
        """Renew ours, stop what others cancelled, take over what dead owners left."""
        renew = partial(self._store.renew, self._owner, time.time() + LEASE_S)
        for job_id in await self._db(renew):
            await self._stop_run(job_id)
        for job in await self._db(self._store.in_progress):
            mine = job.owner == self._owner
            left = mine and job.id not in self._runs  # a run that could not write its own end
            expired = not mine and (job.lease_until < time.time() or owner.is_dead(job.owner))
            if left or expired:
                logger.warning("video_id=%s: its owner is gone, taking it over", job.id)
                await self._requeue_or_give_up(job.id, job.owner)

    async def _keep(self, work: Callable[[], Any], every_s: float, wake: asyncio.Event) -> None:
        """Do `work` every `every_s` seconds, and at once when woken; survive its errors."""
        while True:
            wake.clear()
            try:
                await work()
            except Exception:
                logger.exception("%s failed; trying again", getattr(work, "__name__", work))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), every_s)

    # --- small things -------------------------------------------------------------------

    async def _view(self, job: Job) -> JobView:
        position = 0
        if job.status == "queued":
            position = await self._db(self._store.position, job.number)
        return job_view(job, position)

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

    def _seconds_until_free(self) -> int:
        lanes = max(1, sum(self._fleet.ready(name) for name in self._cards))
        return max(1, round(self._job_s / lanes))

    async def close(self) -> None:
        """Stop every run and put its job back into the queue, for the next replica."""
        self._closing = True
        for loop in self._loops:
            loop.cancel()
        runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        if runs:
            await asyncio.wait(runs)
        self._store.close()


def job_view(job: Job, position: int) -> JobView:
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
    )
