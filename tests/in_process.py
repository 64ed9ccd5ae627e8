"""The whole service without Ray, in one process: the real classes, joined by plain calls."""

import asyncio
import io
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from deployments.backend import backend_class
from deployments.core.checkpoints import Checkpoint
from deployments.core.config import ModelConfig, ServiceConfig
from deployments.core.events import Frames, ReplicaState, Wanted
from deployments.core.service import Submission, new_job_id
from deployments.core.spec import VideoRequest
from deployments.encoder import Encoder
from deployments.jobs import Jobs
from deployments.video_model import VideoModel
from tests.painter import GENERATION

CHECKPOINT = Checkpoint(source="painter", label="painter", bundled=True, generation=GENERATION)
COLOUR = (40, 160, 220)


class LocalRef:
    """Stands for an ObjectRef: awaiting it gives the frames."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames

    def __await__(self) -> Generator[Any, None, Frames]:
        yield from asyncio.sleep(0).__await__()
        return self.frames


def painter_config(tmp_path: Path, *names: str, **limits: int) -> ServiceConfig:
    return ServiceConfig(
        models=tuple(
            ModelConfig(name=name, backend="tests.painter") for name in names or ("mochi",)
        ),
        outputs_dir=str(tmp_path / "outputs"),
        state_dir=str(tmp_path / "state"),
        limits={"min_free_disk_mb": 0, **limits},
        encoder={"preset": "ultrafast"},
    )


@asynccontextmanager
async def running(
    config: ServiceConfig, encoder: Any = None, checkpoint: Checkpoint = CHECKPOINT
) -> AsyncIterator[Jobs]:
    """Yield a Jobs with one replica of each model, all in this event loop."""
    cards = [backend_class(model).card(model, checkpoint) for model in config.models]
    holder: list[Jobs] = []

    async def report(state: ReplicaState) -> Wanted:
        return await holder[0].report(state)

    models = {
        model.name: VideoModel(model, checkpoint, "cuda", put=LocalRef, report=report)
        for model in config.models
    }
    figures = {model.name: backend_class(model).figures(checkpoint) for model in config.models}
    jobs = Jobs(config, cards, models, encoder or Encoder(), figures)
    holder.append(jobs)
    for model in models.values():
        model.changed()
    try:
        yield jobs
    finally:
        await jobs.close()
        for model in models.values():
            await model.close()


async def make(
    jobs: Jobs, prompt: str = "a red ball", image: bytes | None = None, **changes: Any
) -> str:
    """Submit a small request; returns the job id."""
    values = {"width": 256, "height": 256, "num_frames": 13, "seed": 7} | changes
    request = VideoRequest(prompt=prompt, has_image=image is not None, **values)
    job_id = new_job_id()
    await jobs.submit(Submission(job_id=job_id, request=request, image=image))
    return job_id


def picture() -> bytes:
    """A flat picture of `COLOUR`, as a job holds it."""
    file = io.BytesIO()
    Image.new("RGB", (48, 32), COLOUR).save(file, "PNG")
    return file.getvalue()


async def until_done(jobs: Jobs, job_id: str, timeout_s: float = 20) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (view := await jobs.wait(job_id, 2)).done:
            pass
        return view


async def until(jobs: Jobs, job_id: str, phase: str, timeout_s: float = 20) -> Any:
    async with asyncio.timeout(timeout_s):
        while (view := await jobs.get(job_id)).phase != phase:
            assert not view.done, view
            await asyncio.sleep(0.01)
        return view
