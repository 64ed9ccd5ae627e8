"""One client that follows the jobs, and what it has not been told yet.

Nobody waits for it: what it does not read in time is replaced by what came after.
"""

import asyncio
from dataclasses import dataclass

KEEP_ALIVE_S = 15.0
# Jobs with news for a client that does not read them; with more it has to come again.
MOST_PENDING = 1000


@dataclass(frozen=True)
class Event:
    """What a client is told of one job.

    Attributes:
        kind: `video`, `deleted` or `preview`; "" only says that every change up to `sequence` has
            been told.
        sequence: the number of the change; None for what changes without the row.
        data: one line of JSON.
        final: the job will not get any further.
    """

    kind: str
    sequence: int | None
    job_id: str = ""
    caller: str = ""
    data: str = ""
    final: bool = False


class Listener:
    """One client.

    Args:
        caller: whose jobs it may see; None for everybody's.
        job_id: the job it asked for; None for all.

    Attributes:
        told: the number of the last change that it has been told.
        ended: it is told nothing more.
    """

    def __init__(self, caller: str | None, job_id: str | None = None) -> None:
        self._caller, self._job_id = caller, job_id
        self._pending: dict[str, Event] = {}
        self._previews: dict[str, Event] = {}
        self._news = asyncio.Event()
        self.told = 0
        self.ended = False

    def wants(self, event: Event) -> bool:
        """Whether the client may see the event, and asked for it."""
        if not event.kind:
            return True
        return self._caller in (None, event.caller) and self._job_id in (None, event.job_id)

    def offer(self, event: Event) -> None:
        """Take an event. It replaces the one that waits for the same job, but behind those of
        other jobs: the numbers that a client sees only go up. A preview replaces a preview, and
        waits no longer than its job runs."""
        if self.ended or not self.wants(event):
            return
        if event.kind == "preview":
            self._previews[event.job_id] = event
            self._news.set()
            return
        if event.final:
            self._previews.pop(event.job_id, None)
        if event.sequence is None and event.job_id in self._pending:
            return
        self._pending.pop(event.job_id, None)
        self._pending[event.job_id] = event
        if len(self._pending) > MOST_PENDING:
            self.end()
        self._news.set()

    def end(self) -> None:
        """Tell the client nothing more: it comes back and goes on from where it was."""
        self.ended = True
        self._pending.clear()
        self._previews.clear()
        self._news.set()

    def wake(self) -> None:
        """Have `take` return."""
        self._news.set()

    async def take(self) -> list[Event]:
        """Return what has happened as soon as something has; nothing after `KEEP_ALIVE_S`."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await self._news.wait()
        except TimeoutError:
            return []
        self._news.clear()
        taken, self._pending = [*self._pending.values(), *self._previews.values()], {}
        self._previews = {}
        new = [event for event in taken if event.sequence is None or event.sequence > self.told]
        self.told = max([self.told, *(event.sequence or 0 for event in new)])
        return new
