"""References to the frames of one run on their way from the model to the encoder, as they come.

The run adds them, the encoder reads them: in the same process by iterating, from another one by
asking for those that follow the ones it has. Nobody here opens one.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from deployments.core.events import MoreFrames


class FrameRefs:
    """The references of one run, in the order of the clip.

    Held until the run is over, so that a reader that dies is followed by one that begins again.
    """

    def __init__(self) -> None:
        self._refs: list[Any] = []
        self._complete = False
        self._news = asyncio.Event()

    def add(self, ref: Any) -> None:
        """Append the reference to the next frames."""
        self._refs.append(ref)
        self._tell()

    def complete(self) -> None:
        """Say that no more will come."""
        self._complete = True
        self._tell()

    async def begun(self) -> None:
        """Return when there is a reference, or none will come."""
        await self._more_than(0)

    async def after(self, number: int, timeout_s: float) -> MoreFrames:
        """Return the references that follow the first `number`, or none after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._more_than(number)
        except TimeoutError:
            return MoreFrames(refs=(), last=False)
        return MoreFrames(refs=tuple(self._refs[number:]), last=self._complete)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield every reference from the first on, each as soon as it is there."""
        number = 0
        while await self._more_than(number):
            yield self._refs[number]
            number += 1

    async def _more_than(self, number: int) -> bool:
        """Wait for a reference behind the first `number`; False when there is none to come."""
        while len(self._refs) <= number and not self._complete:
            await self._news.wait()
        return len(self._refs) > number

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class FramesUnknown(Exception):
    """The jobs replica that was asked knows nothing of these frames: it has replaced the one whose
    run they are of, or that run is over."""
