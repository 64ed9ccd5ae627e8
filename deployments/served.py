"""The plain classes as Serve runs them: handles become clients, and `__del__` ends a replica
cleanly."""

from collections.abc import AsyncGenerator
from typing import Any

import ray
from ray import serve

from deployments.core.checkpoints import Checkpoint
from deployments.core.config import ModelConfig, ServiceConfig
from deployments.core.errors import VideoServiceError
from deployments.core.events import ModelEvent, MoreFrames, ReplicaState, Wanted
from deployments.core.loras import LoraFolders
from deployments.core.outlook import Figures
from deployments.core.spec import ModelCard, VideoSpec
from deployments.jobs import Jobs
from deployments.served_encoder import EncoderHandle
from deployments.video_model import VideoModel


class ServedVideoModel(VideoModel):
    """`VideoModel` as a replica: frames go to the object store, reports to the jobs deployment."""

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, device: str) -> None:
        replica_id = str(serve.get_replica_context().replica_id.unique_id)
        super().__init__(
            config, checkpoint, device, put=ray.put, report=_report, replica_id=replica_id
        )

    async def check_health(self) -> None:
        """Asked by Serve every few seconds; a replica that raises a few times is replaced."""
        if reason := self.spent:
            raise RuntimeError(f"this replica has to be replaced: {reason}")

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
        loras: LoraFolders,
    ) -> None:
        clients = {name: ModelHandle(handle) for name, handle in models.items()}
        self._encoder_handle = EncoderHandle(encoder)
        super().__init__(config, cards, clients, self._encoder_handle, figures, loras)

    async def ask(self, method: str, *args: Any) -> Any:
        """Answer one question of `JobsService`; a refusal is returned, not raised.

        Serve logs whatever is raised as an error with its traceback, and a 404 is none.
        """
        try:
            return await getattr(self, method)(*args)
        except VideoServiceError as refusal:
            return refusal

    async def frames(self, ticket: str, after: int) -> MoreFrames | None:
        """Return what follows the first `after` references of an encode that runs for this replica,
        at most two seconds later; None when none does under this ticket."""
        return await self._encoder_handle.frames(ticket, after)

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


async def _report(state: ReplicaState) -> Wanted:
    app = serve.get_replica_context().app_name
    wanted: Wanted = await serve.get_deployment_handle("jobs", app_name=app).report.remote(state)
    return wanted
