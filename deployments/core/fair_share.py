"""Whose turn it is: the order in which waiting jobs start.

When a model is free, the next job is that of the caller who has the fewest jobs on the models;
among those, of the caller who was served longest ago; of one caller, the oldest. So nobody waits
for ever: after one turn of everybody else, whoever waits has been served longest ago. Without API
keys all jobs are one caller's, and the oldest goes first.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar


class Waits(Protocol):
    """A waiting job: its place in the order in which they came, and whose it is."""

    @property
    def number(self) -> int:
        """Counts up with every job."""

    @property
    def caller(self) -> str:
        """The name of the API key; "" without keys."""


W = TypeVar("W", bound=Waits)


class FairShare:
    """Remembers who was served when, and who is being served.

    Args: served: the callers that were served before, the last one at the end.
    """

    def __init__(self, served: Sequence[str] = ()) -> None:
        self._turn = len(served)
        self._served = {caller: turn for turn, caller in enumerate(served, start=1)}
        self._running: dict[str, str] = {}

    def began(self, job_id: str, caller: str) -> None:
        """A model works for the caller now."""
        self._turn += 1
        self._served[caller] = self._turn
        self._running[job_id] = caller

    def ended(self, job_id: str) -> None:
        """A model is free again."""
        self._running.pop(job_id, None)

    def next(self, waiting: Iterable[W]) -> W:
        """Return the job, one of `waiting`, whose turn it is while a model is free for it."""
        return _next(waiting, Counter(self._running.values()), self._served)

    def order(self, waiting: Sequence[W], lanes: int) -> list[W]:
        """Return all `waiting` jobs in the order in which they will start.

        It is exact while nothing new comes, each job can run on each model, and running jobs end in
        the order in which they began, as they do when there is one model.

        Args: lanes: how many jobs can run at once.
        """
        queues: defaultdict[str, deque[W]] = defaultdict(deque)
        for job in sorted(waiting, key=lambda job: job.number):
            queues[job.caller].append(job)
        running, served, turn = deque(self._running.values()), dict(self._served), self._turn
        found: list[W] = []
        while queues:
            while len(running) >= max(1, lanes):
                running.popleft()
            job = _next((queue[0] for queue in queues.values()), Counter(running), served)
            queues[job.caller].popleft()
            if not queues[job.caller]:
                del queues[job.caller]
            turn += 1
            served[job.caller] = turn
            running.append(job.caller)
            found.append(job)
        return found


def _next(waiting: Iterable[W], running: Mapping[str, int], served: Mapping[str, int]) -> W:
    return min(
        waiting,
        key=lambda job: (running.get(job.caller, 0), served.get(job.caller, 0), job.number),
    )
