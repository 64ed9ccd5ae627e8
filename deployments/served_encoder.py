"""Both ends of an encode in Serve: the encoder as a replica, and the handle that a run has of it.

The order goes to the encoder in one call, and the encoder comes back for the references as they
come: a call cannot be given more once it runs. Apart from `served`, as the encoder's process shall
stay small.
"""

import secrets
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any

from deployments.core.events import EncodedVideo, EncodeOrder, MoreFrames
from deployments.encoder import Encoder
from deployments.frame_refs import FrameRefs, FramesUnknown

# How long the encoder's question waits for frames. It holds up the end of a replica that is asked.
ASK_FOR_S = 2.0


class EncoderHandle:
    """An `EncoderClient`: one call per job, which comes back for the references as they come."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._open: dict[str, FrameRefs] = {}

    async def encode(self, order: EncodeOrder, source: FrameRefs) -> EncodedVideo:
        """Have the file made; cancelling stops ffmpeg. The frames stay unopened on the way."""
        # Not the job's id: a call that has been given up must not get the frames of the next one.
        ticket = secrets.token_hex(8)
        self._open[ticket] = source
        response = self._handle.encode_under.remote(ticket, order)
        try:
            return await response
        finally:
            response.cancel()
            del self._open[ticket]

    async def frames(self, ticket: str, after: int) -> MoreFrames | None:
        """See `ServedJobs.frames`."""
        source = self._open.get(ticket)
        return None if source is None else await source.after(after, ASK_FOR_S)


class ServedEncoder(Encoder):
    """`Encoder` as a replica, which asks the jobs deployment for the frames."""

    async def encode_under(self, ticket: str, order: EncodeOrder) -> EncodedVideo:
        """Make the file of `order`; `ticket` is what its frames are asked for with."""
        return await self.encode(order, self._pull(ticket))

    async def _pull(self, ticket: str) -> AsyncIterator[Any]:
        """Yield the references as they come.

        Raises: FramesUnknown: whoever gave the order is not there any more.
        """
        number, last = 0, False
        while not last:
            more: MoreFrames | None = await self._jobs.frames.remote(ticket, number)
            if more is None:
                raise FramesUnknown
            for ref in more.refs:
                yield ref
            number, last = number + len(more.refs), more.last

    @cached_property
    def _jobs(self) -> Any:
        from ray import serve

        app = serve.get_replica_context().app_name
        return serve.get_deployment_handle("jobs", app_name=app)
