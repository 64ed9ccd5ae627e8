"""What every model deployment is: load once, generate events for one job at a time, stop, report.

`VideoModel` is one replica. The network itself is a `Backend`, one file per model family
(`deployments/mochi.py`), whose work runs on a single thread: a synchronous Serve method could not
be stopped and would let the next job start beside it. The backend is a plain generator that is
advanced one step at a time, so a job stops within one step, and the next begins only when the
thread is free. What concerns the GPU is in `residency`.
"""

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

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
    Frames,
    ModelEvent,
    ModelState,
    ReplicaState,
    Started,
    Step,
    Wanted,
)
from deployments.core.log import logger
from deployments.core.memory import Placement
from deployments.core.spec import VideoSpec
from deployments.frame_store import FrameStore
from deployments.lost import ReplicaRestarts
from deployments.residency import Residency, close

# While a job runs, the answer to a report tells a replica whether the job is still wanted.
REPORT_EVERY_S, REPORT_EVERY_BUSY_S = 5.0, 2.0
REPORT_TIMEOUT_S = 10.0
# The reason of an unloaded model.
LEFT = "it has left the GPU until its next video"

T = TypeVar("T")
Put = Callable[[Frames], Any]
# Delivers a state to the jobs deployment.
Report = Callable[[ReplicaState], Awaitable[Wanted]]


class VideoModel:
    """One replica of one model.

    Args:
        put: stores frames; returns what is sent in their place.
        replica_id: what Serve calls this replica; outside of Serve the process stands for it.
    """

    def __init__(
        self,
        config: ModelConfig,
        checkpoint: Checkpoint,
        device: str,
        *,
        put: Put,
        report: Report,
        replica_id: str = "",
    ) -> None:
        self._config, self._checkpoint, self._device = config, checkpoint, device
        self._report = report
        self._replica_id = replica_id or f"{config.name}-{os.getpid()}"
        self._state: ModelState = "loading"
        self._reason = ""
        self._job: tuple[str, str] | None = None
        self._orphaned = False
        self._frames = FrameStore(partial(self._on_thread, put))
        self._backend: Backend | None = None
        self._residency: Residency
        self._settling: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
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
            ReplicaRestarts: another replica has to do it.
            VideoServiceError: the job failed; anything else that goes wrong is a GenerationFailed.
        """
        # A job may come before the load is done: to a replica that has replaced a dead one.
        await asyncio.shield(self._loading)
        if self._settling is not None:
            await asyncio.shield(self._settling)
        if self._state == "restarting":
            raise ReplicaRestarts
        if self._backend is None:
            raise BackendUnavailable(
                f"{self._config.name} is {self._state}. {self._reason}".strip()
            )
        if self._idle is not None:
            self._idle.cancel()
        self._job, self._orphaned = (job_id, owner), False
        self.changed()
        began = time.monotonic()
        logger.info("video_id=%s: %s begins", job_id, self._config.name)
        yield Started(replica_id=self._replica_id, device=self._device)
        work = self._residency.generate(spec, image)
        try:
            async for event in self._frames.replace(job_id, self._advance(work)):
                yield event
        except VideoServiceError:
            raise
        except Exception as error:
            logger.exception("video_id=%s: generation failed", job_id)
            raise GenerationFailed(f"{self._config.name} failed: {type(error).__name__}") from error
        finally:
            try:
                # Closing runs on the thread, behind the step that may still be at work there.
                await asyncio.shield(self._on_thread(close, work))
            finally:
                self._settling = asyncio.create_task(self._settle(), name="settle")
                self._job = None
                self.changed()
                ran_s = time.monotonic() - began
                logger.info("video_id=%s: %s stops after %.1f s", job_id, self._config.name, ran_s)

    def changed(self) -> None:
        """Have the state reported now."""
        self._changed.set()

    @property
    def spent(self) -> str:
        """Why this replica has to be replaced now; "" while it need not, and while somebody waits
        for frames that it holds: they die with it."""
        return self._reason if self._state == "restarting" and not self._frames.holding else ""

    async def close(self) -> None:
        """Stop the current job at its next step and end the thread."""
        self._orphaned = True
        if self._idle is not None:
            self._idle.cancel()
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
            self._residency = Residency(backend, self._device)
            leave = self._config.keep_alive_s == 0
            load = partial(self._residency.load, lambda: self._orphaned, leave=leave)
            await self._on_thread(load)
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
            self._count_idle()
        self._changed.set()

    # --- between jobs ---------------------------------------------------------------------

    async def _settle(self) -> None:
        """Look after the GPU when a job is over; one that has become unfit takes no more jobs."""
        left_gb = await self._try_on_gpu(
            partial(self._residency.settle, leave=self._config.keep_alive_s == 0)
        )
        if left_gb:
            self._restart(f"{left_gb:.1f} GB of GPU memory did not come back after a job")
        self._count_idle()

    def _count_idle(self) -> None:
        keep_alive_s = self._config.keep_alive_s
        if keep_alive_s is not None and self._device != "cpu" and self._state == "ready":
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(keep_alive_s, self._begin_to_leave)

    def _begin_to_leave(self) -> None:
        # A job that comes meanwhile waits for it as for what is settled after a job.
        self._settling = asyncio.create_task(self._leave(), name="leave")

    async def _leave(self) -> None:
        if self._job is None:  # one may have begun since
            await self._try_on_gpu(self._residency.leave)
            self.changed()

    async def _try_on_gpu(self, function: Callable[[], T]) -> T | None:
        """Do it on the thread; a GPU on which it fails does not work any more."""
        try:
            return await self._on_thread(function)
        except Exception as error:
            logger.exception("%s: the GPU does not work any more", self._config.name)
            self._restart(f"its GPU does not work any more: {type(error).__name__}")
            return None

    def _restart(self, reason: str) -> None:
        """Take no more jobs, and have Serve replace this replica."""
        self._state, self._reason = "restarting", reason
        logger.warning("%s: this replica restarts: %s", self._config.name, reason)
        metrics.RESTARTS.add(model=self._config.name)
        self.changed()

    async def _keep_reporting(self) -> None:
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(REPORT_TIMEOUT_S):
                    await self._tell()
            except Exception:
                # The jobs replica may be starting or restarting; the next report will reach it.
                logger.debug("report not delivered", exc_info=True)
            every_s = REPORT_EVERY_BUSY_S if self._job or self._frames.holding else REPORT_EVERY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self._changed.wait()

    async def _tell(self) -> None:
        """Report, and let go of what the answer says that nobody wants."""
        job, holding = self._job, self._frames.holding
        wanted = await self._report(self._snapshot())
        if job is not None and not wanted.job and self._job == job:
            self._orphaned = True
        running = self._job[0] if self._job else None
        self._frames.let_go({*holding} - wanted.frames - {running})

    def _snapshot(self) -> ReplicaState:
        left = self._state == "ready" and not self._residency.on_gpu
        state: ModelState = "unloaded" if left else self._state
        return ReplicaState(
            replica_id=self._replica_id,
            model=self._config.name,
            checkpoint=self._checkpoint.label,
            state=state,
            reason=LEFT if state == "unloaded" else self._reason,
            device=self._device,
            node=platform.node(),
            gpus=gpu.gpus(),
            placement=self._placement(),
            job_id=self._job[0] if self._job else None,
            job_owner=self._job[1] if self._job else "",
            holding=self._frames.holding,
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
