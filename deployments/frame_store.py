"""The frames of a model's jobs in the object store: put there in large runs, and kept until nobody
needs them. They die with the replica that put them there."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import numpy as np

from deployments.core.events import BackendEvent, Decoded, Frames, FramesStored, ModelEvent, Waiting

# Fewer, larger objects for the object store: 24 frames of 848x480 are 29 MB.
FRAMES_PER_CHUNK = 24


class FrameStore:
    """The frames that one replica has made.

    Args: put: stores frames; returns what is sent in their place.
    """

    def __init__(self, put: Callable[[Frames], Awaitable[Any]]) -> None:
        self._put = put
        self._refs: dict[str, list[Any]] = {}

    @property
    def holding(self) -> tuple[str, ...]:
        """The jobs whose frames are kept."""
        return tuple(self._refs)

    def let_go(self, job_ids: Collection[str]) -> None:
        """Nobody needs the frames of these jobs any more."""
        for job_id in job_ids:
            self._refs.pop(job_id, None)

    async def replace(
        self, job_id: str, events: AsyncIterator[BackendEvent]
    ) -> AsyncIterator[ModelEvent]:
        """Yield a job's events, with references in place of runs of frames.

        Ray may free an object between the moment its reference leaves here, inside a streamed
        event, and the moment it arrives. So it is kept.
        """
        runs: list[Decoded] = []
        async for event in events:
            if isinstance(event, Waiting):
                continue
            if not isinstance(event, Decoded):
                yield event
                continue
            runs.append(event)
            if sum(len(run.frames) for run in runs) >= FRAMES_PER_CHUNK:
                yield await self._store(job_id, runs)
                runs = []
        if runs:
            yield await self._store(job_id, runs)

    async def _store(self, job_id: str, runs: list[Decoded]) -> FramesStored:
        frames = np.concatenate([run.frames for run in runs])
        ref = await self._put(frames)
        self._refs.setdefault(job_id, []).append(ref)
        return FramesStored(ref=ref, first_frame=runs[0].first_frame, num_frames=len(frames))
