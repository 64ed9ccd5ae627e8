"""A copy of the service's state, so that `/health` and `/system-info` answer from memory.

Refreshed in the background; never asks a model anything, and outlives a jobs deployment that is
down.
"""

import asyncio
import time

import psutil

from deployments.core.errors import VideoServiceError
from deployments.core.events import ServiceState
from deployments.core.log import logger
from deployments.core.service import JobsService

REFRESH_S = 1.0
ANSWER_WITHIN_S = 2.0
STALE_AFTER_S = 5.0


class StateWatch:
    """Keeps the last `jobs.state()` and the machine's CPU load."""

    def __init__(self, jobs: JobsService) -> None:
        self._jobs = jobs
        self._answered_at: float | None = None
        self._failing = False
        self.state = ServiceState()
        self.cpu_percent = 0.0

    @property
    def fresh(self) -> bool:
        """Whether the jobs deployment has answered lately."""
        return (
            self._answered_at is not None and time.monotonic() - self._answered_at < STALE_AFTER_S
        )

    async def run(self) -> None:
        """Refresh until cancelled."""
        psutil.cpu_percent(interval=None)  # the first reading has nothing to compare with
        while True:
            try:
                await self.refresh()
            except Exception:  # a watch that dies would tell for ever how things once were
                logger.exception("the state could not be read; trying again")
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Ask once; a failure keeps the old copy."""
        self.cpu_percent = psutil.cpu_percent(interval=None)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                self.state = await self._jobs.state()
        except (VideoServiceError, TimeoutError) as error:
            if not self._failing:
                logger.warning("the jobs deployment does not answer: %r", error)
            self._failing = True
        else:
            self._answered_at = time.monotonic()
            self._failing = False
