"""Follows the jobs for everybody who listens: one question at a time to the jobs deployment,
however many clients there are.

An event is the state of a job after a change, never the change itself. So a client that is slow
misses steps on the way, not where they lead, and nobody waits for it; one that comes back is told
the last state of every job that has changed since. Previews have no numbers: whoever comes is shown
the newest of each running job.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

from deployments.core.errors import VideoServiceError
from deployments.core.events import Changes, JobView
from deployments.core.log import logger
from deployments.core.service import JobsService
from deployments.routes.feed_events import change_events, has_moved, job_event, preview_event
from deployments.routes.listener import Event, Listener

ASK_FOR_S, ANSWER_WITHIN_S = 2.0, 5.0
# A fast model makes twenty steps a second; nobody can watch more than ten.
PAUSE_S, AWAY_PAUSE_S = 0.1, 1.0
# How often what changes without the row is looked at, and for what share of the time at most: with
# thousands of waiting jobs a look takes long.
MOVES_EVERY_S, MOVES_SHARE = 2.0, 0.05
STOPPING_EVERY_S = 2.0


class Feed:
    """The changes of all jobs, handed to every client that listens.

    Args:
        is_stopping: whether this process is about to end, so that no stream may hold it up; may
            block.
    """

    def __init__(self, jobs: JobsService, is_stopping: Callable[[], bool]) -> None:
        self._jobs, self._is_stopping = jobs, is_stopping
        self._listeners: set[Listener] = set()
        self._somebody_listens = asyncio.Event()
        self._following = self._stopped = False
        self._last, self._last_preview, self._moves_at = 0, 0, 0.0
        self._shown: dict[str, JobView] = {}
        self._previews: dict[str, Event] = {}

    @property
    def listeners(self) -> int:
        """How many clients listen."""
        return len(self._listeners)

    async def follow(self, after: int | None, caller: str | None) -> AsyncIterator[Event | None]:
        """Yield what happens to the jobs, until the service stops; None in between as a sign of
        life.

        Args:
            after: begin with the last state of each job that changed after this change; without it
                with the present state of each that is not done.
            caller: whose jobs; None for everybody's.
        """
        with self._listening(Listener(caller)) as listener:
            async for sign in self._until_following(listener):
                yield sign
            try:
                async for event in self._missed(after):
                    if listener.wants(event):
                        yield event
                    listener.told = event.sequence or listener.told
            except VideoServiceError as error:
                logger.warning("a stream of events ends: %s", error)
                return
            self._offer_previews(listener)
            while not listener.ended:
                async for item in _told(listener):
                    yield item

    async def follow_one(self, job_id: str, caller: str | None) -> AsyncIterator[Event | None]:
        """Yield the present state of one job and all that follows, up to its last."""
        with self._listening(Listener(caller, job_id)) as listener:
            async for sign in self._until_following(listener):
                yield sign
            try:
                job = await self._jobs.get(job_id)
            except VideoServiceError as error:
                logger.warning("a stream of events ends: %s", error)
                return
            listener.told = job.sequence
            yield job_event(job)
            if job.done:
                return
            self._offer_previews(listener)
            while not listener.ended:
                async for item in _told(listener):
                    yield item
                    if item is not None and item.final:
                        return

    async def run(self) -> None:
        """Ask while anybody listens; every stream ends when this is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_asking())
                tasks.create_task(self._watch_for_the_end())
        finally:
            self._end_all()

    # --- one client ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _listening(self, listener: Listener) -> Iterator[Listener]:
        if self._stopped:
            listener.end()
        self._listeners.add(listener)
        self._somebody_listens.set()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def _until_following(self, listener: Listener) -> AsyncIterator[None]:
        """Return when no change can be missed any more."""
        while not (self._following or listener.ended):
            await listener.take()
            if not self._following:
                yield None

    def _offer_previews(self, listener: Listener) -> None:
        for preview in self._previews.values():
            listener.offer(preview)

    async def _missed(self, after: int | None) -> AsyncIterator[Event]:
        """Yield what happened before now; its end is a number up to which nothing is missing."""
        changes = await self._jobs.changes(after, 0)
        if after is None or changes.last < after:
            for job in changes.jobs:
                yield job_event(job, numbered=False)
        else:
            for event in change_events(changes):
                yield event
            while changes.more:
                changes = await self._jobs.changes(changes.last, 0)
                for event in change_events(changes):
                    yield event
        yield Event(kind="", sequence=changes.last)

    # --- all of them -----------------------------------------------------------------------

    async def _keep_asking(self) -> None:
        while True:
            try:
                if self._listeners:
                    await self._ask()
                    await asyncio.sleep(PAUSE_S)
                else:
                    self._following = False
                    self._somebody_listens.clear()
                    await self._somebody_listens.wait()
            except (VideoServiceError, TimeoutError) as error:
                logger.info("the jobs deployment does not answer, trying again: %r", error)
                await asyncio.sleep(AWAY_PAUSE_S)
            except Exception:  # a feed that dies would keep every client waiting for ever
                logger.exception("the changes could not be read; trying again")
                await asyncio.sleep(AWAY_PAUSE_S)

    async def _ask(self) -> None:
        if not self._following:
            present = await self._changes(None, 0, previews_after=0)
            self._last, self._previews = present.last, {}
            self._shown = {job.id: job for job in present.jobs}
            self._show(present)
            self._moves_at = time.monotonic() + MOVES_EVERY_S
            self._following = True
            for listener in self._listeners:
                listener.wake()
            return
        until_moves_s = max(0.0, self._moves_at - time.monotonic())
        timeout_s = min(ASK_FOR_S, until_moves_s)
        changes = await self._changes(self._last, timeout_s, self._last_preview)
        if changes.last < self._last:
            logger.warning("the job table is another one; every stream of events begins again")
            self._following = False
            self._end_all()
            return
        for event in change_events(changes):
            self._tell(event)
        self._show(changes)
        self._shown |= {job.id: job for job in changes.jobs}
        self._last = changes.last
        if time.monotonic() >= self._moves_at:
            await self._tell_moves()

    def _show(self, changes: Changes) -> None:
        """Tell the new previews, and forget those of jobs that do not run any more."""
        idle = {job.id for job in changes.jobs if job.status != "in_progress"}
        idle |= {gone.id for gone in changes.deleted}
        for preview in changes.previews:
            self._last_preview = preview.number
            if preview.id not in idle:
                self._previews[preview.id] = event = preview_event(preview)
                self._tell(event)
        for job_id in idle & self._previews.keys():
            del self._previews[job_id]

    async def _tell_moves(self) -> None:
        """Tell what has changed without the rows: places in the queue, guesses, heartbeats."""
        began = time.monotonic()
        present = await self._changes(None, 0)
        for job in present.jobs:
            shown = self._shown.get(job.id)
            # A row that has changed meanwhile is told with its number, in its turn.
            if job.sequence <= self._last and (shown is None or has_moved(shown, job)):
                self._tell(job_event(job, numbered=False))
                self._shown[job.id] = job
        self._shown = {job.id: self._shown.get(job.id, job) for job in present.jobs}
        took_s = time.monotonic() - began
        self._moves_at = time.monotonic() + max(MOVES_EVERY_S, took_s / MOVES_SHARE)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener.offer(event)

    async def _changes(
        self, after: int | None, timeout_s: float, previews_after: int | None = None
    ) -> Changes:
        # Not `wait_for`, which in Python 3.11 can overhear a cancel.
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await self._jobs.changes(after, timeout_s, previews_after)

    async def _watch_for_the_end(self) -> None:
        """Ray Serve waits for every request before it ends a replica, and tells nobody."""
        while not self._stopped:
            await self._somebody_listens.wait()
            if self._listeners:
                self._stopped = await asyncio.to_thread(self._is_stopping)
            if self._stopped:
                self._end_all()
            await asyncio.sleep(STOPPING_EVERY_S)

    def _end_all(self) -> None:
        for listener in self._listeners:
            listener.end()


async def _told(listener: Listener) -> AsyncIterator[Event | None]:
    """Yield what there is to tell, or None when for some time there was nothing."""
    events = await listener.take()
    for event in events:
        yield event
    if not events:
        yield None
