"""What every model deployment is: load once, generate events for one job at a time, stop, report.

`VideoModel` is one replica. The network itself is a `Backend`, one file per model family
(`deployments/mochi.py`), whose work runs on a single thread: a synchronous Serve method could not
be stopped and would let the next job start beside it. The backend is a plain generator that is
advanced one step at a time, so a job stops within one step, and the next begins only when the
thread is free.
"""

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from deployments import metrics
from deployments.backend import Backend, backend_class
from deployments.core import gpu
from deployments.core.checkpoints import Checkpoint
from deployments.core.config import ModelConfig
from deployments.core.errors import (
    BackendUnavailable,
    Cancelled,
    GenerationFailed,
    VideoServiceError,
)
from deployments.core.events import (
    BackendEvent,
    Decoded,
    Frames,
    FramesStored,
    ModelEvent,
    ModelState,
    ReplicaState,
    Started,
    Step,
    Waiting,
    Wanted,
)
from deployments.core.log import logger
from deployments.core.memory import Placement
from deployments.core.spec import VideoSpec

# While a job runs, the answer to a report tells a replica whether the job is still wanted.
REPORT_EVERY_S, REPORT_EVERY_BUSY_S = 5.0, 2.0
REPORT_TIMEOUT_S = 10.0
# Fewer, larger objects for the object store: 24 frames of 848x480 are 29 MB.
FRAMES_PER_CHUNK = 24

Put = Callable[[Frames], Any]
# Delivers a state to the jobs deployment.
Report = Callable[[ReplicaState], Awaitable[Wanted]]


class VideoModel:
    """One replica of one model."""

    def __init__(
        self,
        config: ModelConfig,
        checkpoint: Checkpoint,
        device: str,
        *,
        put: Put | None = None,
        report: Report | None = None,
    ) -> None:
        self._config, self._checkpoint, self._device = config, checkpoint, device
        self._put = put or _put_in_object_store
        self._report = report or _report_to_jobs
        self._replica_id = _replica_id(config.name)
        self._state: ModelState = "loading"
        self._reason = ""
        self._job: tuple[str, str] | None = None
        self._orphaned = False
        self._held: dict[str, list[Any]] = {}
        self._backend: Backend | None = None
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=config.name)
        self._loading = asyncio.create_task(self._load(), name="load")
        self._reporting = asyncio.create_task(self._keep_reporting(), name="report")

    async def generate(
        self, job_id: str, owner: str, spec: VideoSpec, image: bytes | None = None
    ) -> AsyncIterator[ModelEvent]:
        """Make the video of `spec`, yielding what happens; cancelling stops within one step.

        `owner` is the jobs replica that asks: when it dies, the answer to the next report says so,
        and the replica stops instead of finishing an orphan.

        Raises:
            BackendUnavailable: the model cannot be loaded.
            VideoServiceError: the job failed; anything else that goes wrong is a GenerationFailed.
        """
        # A job may come before the load is done: to a replica that has replaced a dead one.
        await asyncio.shield(self._loading)
        if self._backend is None:
            raise BackendUnavailable(
                f"{self._config.name} is {self._state}. {self._reason}".strip()
            )
        self._job, self._orphaned = (job_id, owner), False
        self.changed()
        began = time.monotonic()
        logger.info("video_id=%s: %s begins", job_id, self._config.name)
        yield Started(replica_id=self._replica_id, device=self._device)
        work = self._backend.generate(spec, image)
        try:
            async for event in self._store_frames(self._advance(work)):
                if isinstance(event, FramesStored):
                    # Ray may free an object between the moment its reference leaves here, inside
                    # a streamed event, and the moment it arrives. So it is kept until a report's
                    # answer says that nobody needs it.
                    self._held.setdefault(job_id, []).append(event.ref)
                yield event
        except VideoServiceError:
            raise
        except Exception as error:
            logger.exception("video_id=%s: generation failed", job_id)
            raise GenerationFailed(f"{self._config.name} failed: {type(error).__name__}") from error
        finally:
            # Closing runs on the thread, behind the step that may still be at work there.
            await asyncio.shield(self._on_thread(_close, work))
            self._job = None
            self.changed()
            ran_s = time.monotonic() - began
            logger.info("video_id=%s: %s stops after %.1f s", job_id, self._config.name, ran_s)

    def changed(self) -> None:
        """Have the state reported now."""
        self._changed.set()

    async def close(self) -> None:
        """Stop the current job at its next step and end the thread."""
        self._orphaned = True
        self._loading.cancel()
        self._reporting.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def _advance(self, work: Iterator[BackendEvent]) -> AsyncIterator[BackendEvent]:
        began = time.monotonic()
        while (event := await self._on_thread(next, work, None)) is not None:
            if isinstance(event, Step):
                metrics.STEPS.observe(time.monotonic() - began, model=self._config.name)
            if self._orphaned:
                raise Cancelled("nobody waits for this job any more")
            yield event
            began = time.monotonic()

    async def _store_frames(self, events: AsyncIterator[BackendEvent]) -> AsyncIterator[ModelEvent]:
        """Replace runs of frames by references to larger runs in the object store."""
        held: list[Decoded] = []
        async for event in events:
            if isinstance(event, Waiting):
                continue
            if not isinstance(event, Decoded):
                yield event
                continue
            held.append(event)
            if sum(len(run.frames) for run in held) >= FRAMES_PER_CHUNK:
                yield await self._store(held)
                held = []
        if held:
            yield await self._store(held)

    async def _store(self, held: list[Decoded]) -> FramesStored:
        frames = np.concatenate([run.frames for run in held])
        ref = await self._on_thread(self._put, frames)
        return FramesStored(ref=ref, first_frame=held[0].first_frame, num_frames=len(frames))

    async def _on_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _load(self) -> None:
        """Load in the background, so that the replica is up at once and a failure is final: a
        constructor that raises would be restarted by Serve for ever.

        The process is not made nicer than its neighbours: Ray runs all workers at niceness 15, and
        at 20 the kernel packs a CPU model's threads onto one core (1.20 times the seconds,
        measured).
        """
        began = time.monotonic()
        try:
            backend = backend_class(self._config)(self._config, self._checkpoint, self._device)
            await self._on_thread(backend.load)
        except Exception as error:
            logger.exception("%s cannot load %s", self._config.name, self._checkpoint.source)
            self._state, self._reason = "failed", f"{type(error).__name__}: {error}"
        else:
            self._backend, self._state = backend, "ready"
            logger.info(
                "%s: %s ready on %s in %.1f s",
                self._config.name,
                self._checkpoint.label,
                self._device,
                time.monotonic() - began,
            )
        self._changed.set()

    async def _keep_reporting(self) -> None:
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(REPORT_TIMEOUT_S):
                    await self._tell()
            except Exception:
                # The jobs replica may be starting or restarting; the next report will reach it.
                logger.debug("report not delivered", exc_info=True)
            every_s = REPORT_EVERY_BUSY_S if self._job or self._held else REPORT_EVERY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._changed.wait()

    async def _tell(self) -> None:
        """Report, and let go of what the answer says that nobody wants."""
        job, held = self._job, tuple(self._held)
        wanted = await self._report(self._snapshot())
        if job is not None and not wanted.job and self._job == job:
            self._orphaned = True
        for job_id in held:
            if job_id not in wanted.frames and (self._job is None or self._job[0] != job_id):
                del self._held[job_id]

    def _snapshot(self) -> ReplicaState:
        return ReplicaState(
            replica_id=self._replica_id,
            model=self._config.name,
            checkpoint=self._checkpoint.label,
            state=self._state,
            reason=self._reason,
            device=self._device,
            node=platform.node(),
            gpus=gpu.gpus(),
            placement=self._placement(),
            job_id=self._job[0] if self._job else None,
            job_owner=self._job[1] if self._job else "",
            holding=tuple(self._held),
            pid=os.getpid(),
            reported_at=time.time(),
        )

    def _placement(self) -> Placement | None:
        if self._backend is None:
            return None
        try:
            return self._backend.placement()
        except RuntimeError:  # a GPU in a state of error: its jobs fail and say so
            logger.warning("%s: the GPU does not tell its memory", self._config.name, exc_info=True)
            return None


def _close(work: Iterator[BackendEvent]) -> None:
    close = getattr(work, "close", None)
    if close is not None:
        close()


def _put_in_object_store(frames: Frames) -> Any:
    import ray

    return ray.put(frames)


async def _report_to_jobs(state: ReplicaState) -> Wanted:
    from ray import serve

    app = serve.get_replica_context().app_name
    return await serve.get_deployment_handle("jobs", app_name=app).report.remote(state)


def _replica_id(name: str) -> str:
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        return str(serve.get_replica_context().replica_id.unique_id)
    except RayServeException:  # outside Serve, as in tests, the process stands for the replica
        return f"{name}-{os.getpid()}"
