"""What the routes share, handed to each as a dependency; no globals."""

import asyncio
import contextvars
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from deployments.core import images
from deployments.core.config import ServiceConfig
from deployments.core.loras import LoraFolders
from deployments.core.service import JobsService
from deployments.core.spec import ModelCard
from deployments.routes.caller import Callers
from deployments.routes.feed import Feed
from deployments.routes.watch import StateWatch

T = TypeVar("T")


class Door:
    """The jobs of all, the settings, the watch and the feed, as one HTTP application holds them.

    A route asks `JobsDep` for jobs, which are the caller's alone.
    """

    def __init__(
        self,
        jobs: JobsService,
        config: ServiceConfig,
        cards: list[ModelCard],
        is_stopping: Callable[[], bool],
        loras: LoraFolders,
    ) -> None:
        self.jobs = jobs
        self.config = config
        self.cards = cards
        self.loras = loras
        self.callers = Callers(config)
        self.watch = StateWatch(jobs)
        self.feed = Feed(jobs, is_stopping)
        self.opened_at = int(time.time())
        self._tasks: set[asyncio.Task[Any]] = set()
        self._image_thread: ThreadPoolExecutor | None = None

    async def read_image(self, data: bytes) -> bytes:
        """Return an uploaded file as the models take it. Raises: InvalidRequest."""
        most = self.config.limits.max_image_megapixels
        if self._image_thread is None:
            # One at a time: a large image takes a gigabyte while it is decoded.
            self._image_thread = ThreadPoolExecutor(1, thread_name_prefix="image")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._image_thread, images.normalise, data, most)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in a task that outlives the request that asked for it.

        It gets an empty context: Ray Serve cancels every call made in the context of a request
        whose client has gone, and the call that cancels that client's job must not be one of them.
        """
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Let the work that is still under way end, for a moment, then cancel it."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=2)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._image_thread is not None:
            self._image_thread.shutdown(wait=False, cancel_futures=True)
            self._image_thread = None


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


DoorDep = Annotated[Door, Depends(_door)]
