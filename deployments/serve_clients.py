"""The jobs deployment's clients for the models and the encoder, over Serve's handles."""

from collections.abc import AsyncIterator
from typing import Any

from deployments.core.events import EncodedVideo, EncodeOrder, ModelEvent
from deployments.core.spec import VideoSpec


class ServedModel:
    """A `ModelClient`: streams a model deployment's events."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle.options(stream=True)

    async def generate(self, job_id: str, owner: str, spec: VideoSpec) -> AsyncIterator[ModelEvent]:
        """Yield the events of one job; closing the iterator stops the model within one step."""
        stream = self._handle.generate.remote(job_id, owner, spec)
        try:
            async for event in stream:
                yield event
        finally:
            stream.cancel()


class ServedEncoder:
    """An `EncoderClient`: one call per job."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def encode(self, order: EncodeOrder, refs: list[Any]) -> EncodedVideo:
        """Have the file made; cancelling stops ffmpeg. `refs` stay unopened on the way."""
        response = self._handle.encode.remote(order, refs)
        try:
            return await response
        finally:
            response.cancel()
