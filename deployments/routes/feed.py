"""Follows the jobs for everybody who listens: one question at a time to the jobs deployment,
however many clients there are.

An event is the state of a job after a change, never the change itself. So a client that is slow
misses steps on the way, not where they lead, and nobody waits for it; one that comes back is told
the last state of every job that has changed since.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from operator import attrgetter

from deployments.core.errors import VideoServiceError
from deployments.core.events import Changes, JobView
from deployments.core.log import logger
from deployments.core.service import JobsService
from deployments.routes.listener import Event, Listener
from deployments.routes.video_object import video_object

ASK_FOR_S, ANSWER_WITHIN_S = 2.0, 5.0
# A fast model makes twenty steps a second; nobody can watch more than ten.
PAUSE_S, AWAY_PAUSE_S = 0.1, 1.0
# How often what changes without the row is looked at, and for what share of the time at most: with
# thousands of waiting jobs a look takes long.
MOVES_EVERY_S, MOVES_SHARE = 2.0, 0.05
STOPPING_EVERY_S = 2.0
# A guess that differs by less from the one shown is no news.
NEWS_S, NEWS_SHARE = 1.0, 0.05


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
        self._last, self._moves_at = 0, 0.0
        self._shown: dict[str, JobView] = {}

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
            yield _event(job)
            if job.done:
                return
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

    async def _missed(self, after: int | None) -> AsyncIterator[Event]:
        """Yield what happened before now; its end is a number up to which nothing is missing."""
        changes = await self._jobs.changes(after, 0)
        if after is None or changes.last < after:
            for job in changes.jobs:
                yield _event(job, numbered=False)
        else:
            for event in _events(changes):
                yield event
            while changes.more:
                changes = await self._jobs.changes(changes.last, 0)
                for event in _events(changes):
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
            present = await self._changes(None, 0)
            self._last = present.last
            self._shown = {job.id: job for job in present.jobs}
            self._moves_at = time.monotonic() + MOVES_EVERY_S
            self._following = True
            for listener in self._listeners:
                listener.wake()
            return
        until_moves_s = max(0.0, self._moves_at - time.monotonic())
        changes = await self._changes(self._last, min(ASK_FOR_S, until_moves_s))
        if changes.last < self._last:
            logger.warning("the job table is another one; every stream of events begins again")
            self._following = False
            self._end_all()
            return
        for event in _events(changes):
            self._tell(event)
        self._shown |= {job.id: job for job in changes.jobs}
        self._last = changes.last
        if time.monotonic() >= self._moves_at:
            await self._tell_moves()

    async def _tell_moves(self) -> None:
        """Tell what has changed without the rows: places in the queue, guesses, heartbeats."""
        began = time.monotonic()
        present = await self._changes(None, 0)
        for job in present.jobs:
            shown = self._shown.get(job.id)
            # A row that has changed meanwhile is told with its number, in its turn.
            if job.sequence <= self._last and (shown is None or _has_moved(shown, job)):
                self._tell(_event(job, numbered=False))
                self._shown[job.id] = job
        self._shown = {job.id: self._shown.get(job.id, job) for job in present.jobs}
        took_s = time.monotonic() - began
        self._moves_at = time.monotonic() + max(MOVES_EVERY_S, took_s / MOVES_SHARE)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener.offer(event)

    async def _changes(self, after: int | None, timeout_s: float) -> Changes:
        # Not `wait_for`, which in Python 3.11 can overhear a cancel.
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await self._jobs.changes(after, timeout_s)

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


def _events(changes: Changes) -> list[Event]:
    """Return the changes of all kinds in their order."""
    deleted = [
        Event(
            kind="deleted",
            job_id=gone.id,
            caller=gone.caller,
            sequence=gone.sequence,
            data=json.dumps({"id": gone.id}),
            final=True,
        )
        for gone in changes.deleted
    ]
    return sorted([*map(_event, changes.jobs), *deleted], key=attrgetter("sequence"))


def _event(job: JobView, *, numbered: bool = True) -> Event:
    """Return the state of a job as an event, with the number of its last change or without."""
    return Event(
        kind="video",
        job_id=job.id,
        caller=job.caller,
        sequence=job.sequence if numbered else None,
        data=video_object(job).model_dump_json(),
        final=job.done,
    )


def _has_moved(shown: JobView, job: JobView) -> bool:
    """Whether the job differs noticeably from what was last told of it."""
    if (shown.queue_position, shown.stalled, shown.heartbeat_at) != (
        job.queue_position,
        job.stalled,
        job.heartbeat_at,
    ):
        return True
    before, now = shown.seconds_left, job.seconds_left
    if before is None or now is None:
        return before is not now
    return abs(now - before) > max(NEWS_S, NEWS_SHARE * before)
