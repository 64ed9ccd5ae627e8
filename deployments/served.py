"""The plain classes as Serve runs them: handles become clients, and `__del__` ends a replica
cleanly."""

from collections.abc import AsyncGenerator
from typing import Any

from deployments.core.config import ServiceConfig
from deployments.core.errors import VideoServiceError
from deployments.core.events import EncodedVideo, EncodeOrder, ModelEvent
from deployments.core.outlook import Figures
from deployments.core.spec import ModelCard, VideoSpec
from deployments.jobs import Jobs
from deployments.video_model import VideoModel


class ServedVideoModel(VideoModel):
    """`VideoModel` as a replica."""

    async def __del__(self) -> None:
        """Serve awaits this before it ends the replica's process."""
        await self.close()


class ServedJobs(Jobs):
    """`Jobs` as a replica: `models` and `encoder` are handles."""

    def __init__(
        self,
        config: ServiceConfig,
        cards: list[ModelCard],
        models: dict[str, Any],
        encoder: Any,
        figures: Figures,
    ) -> None:
        clients = {name: ModelHandle(handle) for name, handle in models.items()}
        super().__init__(config, cards, clients, EncoderHandle(encoder), figures)

    async def ask(self, method: str, *args: Any) -> Any:
        """Answer one question of `JobsService`; a refusal is returned, not raised.

        Serve logs whatever is raised as an error with its traceback, and a 404 is none.
        """
        try:
            return await getattr(self, method)(*args)
        except VideoServiceError as refusal:
            return refusal

    async def __del__(self) -> None:
        """Serve awaits this before it ends the replica's process."""
        await self.close()


class ModelHandle:
    """A `ModelClient`: streams a model deployment's events."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle.options(stream=True)

    async def generate(
        self, job_id: str, owner: str, spec: VideoSpec, image: bytes | None
    ) -> AsyncGenerator[ModelEvent, None]:
        """Yield the events of one job; closing the iterator stops the model within one step."""
        stream = self._handle.generate.remote(job_id, owner, spec, image)
        try:
            async for event in stream:
                yield event
        finally:
            stream.cancel()


class EncoderHandle:
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
