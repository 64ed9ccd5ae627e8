"""One run of one job: drive the model, hand its frames to the encoder as they come, write what
happens to the row.

The frames never come here: only their references do, and they are held until the file is verified,
so an encoder that dies costs no GPU time.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from datetime import datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from deployments import metrics
from deployments.core import outputs
from deployments.core.config import EncoderConfig, ServiceConfig
from deployments.core.errors import EncodingFailed, GenerationFailed
from deployments.core.estimates import Timing
from deployments.core.events import (
    EncodedVideo,
    EncodeOrder,
    FramesStored,
    ModelEvent,
    Notice,
    Phase,
    PhaseBegan,
    Preview,
    Started,
    Step,
)
from deployments.core.job_store import Job, JobStore
from deployments.core.log import logger
from deployments.core.spec import VideoSpec
from deployments.forecast import Forecast
from deployments.frame_refs import FrameRefs
from deployments.lost import is_dead

ENCODE_ATTEMPTS = 3

Db = Callable[..., Awaitable[Any]]
A = TypeVar("A")
B = TypeVar("B")


class ModelClient(Protocol):
    """A model deployment, as a run sees it."""

    def generate(
        self, job_id: str, owner: str, spec: VideoSpec, image: bytes | None
    ) -> AsyncGenerator[ModelEvent, None]:
        """See `VideoModel.generate`; closing the generator stops the model."""


class EncoderClient(Protocol):
    """The encoder deployment, as a run sees it."""

    async def encode(self, order: EncodeOrder, source: FrameRefs) -> EncodedVideo:
        """See `Encoder.encode`; cancelling stops ffmpeg and removes the partial file."""


class OwnershipLost(Exception):
    """Another jobs replica owns the job now; this run must stop without touching the row."""


class JobRun:
    """One run of a claimed job."""

    def __init__(
        self,
        job: Job,
        spec: VideoSpec,
        owner: str,
        *,
        db: Db,
        store: JobStore,
        config: ServiceConfig,
        forecast: Forecast,
        on_change: Callable[[], None],
        on_preview: Callable[[Preview], None],
    ) -> None:
        self._job, self._spec, self._owner = job, spec, owner
        self._db, self._store, self._config = db, store, config
        self._forecast, self._on_change, self._on_preview = forecast, on_change, on_preview
        self._pace = forecast.began(job.id, spec)
        self._notices: list[str] = []
        self._learnt: list[Timing] = []
        self._best = job.progress
        self.replica_id = ""
        self.started = False

    @property
    def refusable(self) -> bool:
        """Whether nothing has been made yet, so that another model loses no work by taking over."""
        return self._pace.step == 0

    async def adopt(self, encoder: EncoderClient) -> bool:
        """Complete the job with the file that an earlier run of it has published, if there is one:
        its owner died between the file and the row."""
        name, folder = self._job.file_name, Path(self._config.outputs_dir)
        if name is None or not await self._db((folder / name).is_file):
            return False
        nothing = FrameRefs()
        nothing.complete()
        await self._progress("encode")
        try:
            await self._finish(await self._encode(encoder, nothing))
        except EncodingFailed as unlike:  # made by another version, or damaged since
            logger.warning("video_id=%s: %s is made again: %s", self._job.id, name, unlike)
            await self._db(outputs.remove, folder, name)
            return False
        return True

    async def make(
        self, model: ModelClient, encoder: EncoderClient, on_generated: Callable[[], None]
    ) -> None:
        """Run the model, have its frames written as they come, and mark the job completed.

        Args: on_generated: called when the model is done; the encoder may not be.
        """
        source = FrameRefs()
        _, video = await _both(
            self._generate(model, source, on_generated), self._encode(encoder, source)
        )
        await self._finish(video)

    async def _generate(
        self, model: ModelClient, source: FrameRefs, on_generated: Callable[[], None]
    ) -> None:
        image = await self._image()
        # Closed at once, not when it is collected: closing is what stops the model.
        async with aclosing(model.generate(self._job.id, self._owner, self._spec, image)) as events:
            async for event in events:
                if isinstance(event, FramesStored):
                    source.add(event.ref)
                    self._pace.frames_done(event.num_frames, time.monotonic())
                    await self._progress("decode")
                else:
                    await self._note(event)
        if (frames := self._pace.frames) != self._spec.num_frames:
            raise GenerationFailed(f"{frames} of {self._spec.num_frames} frames came back")
        source.complete()
        on_generated()
        await self._progress("encode")
        self._learnt = self._forecast.generated(self._pace)

    async def _encode(self, encoder: EncoderClient, source: FrameRefs) -> EncodedVideo:
        """Have the file made, verified and in its place, from the first frames on.

        A lost encoder is tried again with the same frames; frames lost with their model are not
        here to be had, so that error goes up.
        """
        await source.begun()
        order = await self._order()
        for _ in range(1, ENCODE_ATTEMPTS):
            try:
                return await encoder.encode(order, source)
            except Exception as error:
                if not is_dead(error):
                    raise
                logger.warning("video_id=%s: encoder lost, trying again", self._job.id)
        return await encoder.encode(order, source)

    async def _finish(self, video: EncodedVideo) -> None:
        await self._owned(self._store.finish, video.size_bytes)
        self._pace.enter("saved", time.monotonic())
        # Not before: when the model has become free the database is needed for its next job.
        if self._learnt:
            learnt = self._learnt + self._forecast.encoded(self._pace)
            await self._db(self._forecast.save, learnt)
        metrics.record_phases(self._spec.model, self._pace.spent)

    async def _note(self, event: ModelEvent) -> None:
        if isinstance(event, Started):
            self.replica_id, self.started = event.replica_id, True
            await self._owned(self._store.started)
        elif isinstance(event, PhaseBegan):
            await self._progress(event.phase)
        elif isinstance(event, Step):
            self._pace.step_done(event.step, time.monotonic())
            await self._progress("denoise")
        elif isinstance(event, Preview):
            self._on_preview(event)
            self._on_change()
        elif isinstance(event, Notice):
            self._notices.append(event.text)
            await self._owned(self._store.add_notices, self._notices)

    async def _image(self) -> bytes | None:
        if not self._spec.conditioned:
            return None
        image: bytes | None = await self._db(self._store.image, self._job.id)
        if image is None:
            raise GenerationFailed("The job's image is not in the job table.")
        return image

    async def _progress(self, phase: Phase) -> None:
        self._pace.enter(phase, time.monotonic())
        # A second attempt does not move the bar back.
        self._best = max(self._best, self._pace.percent)
        await self._owned(
            self._store.progress, phase, self._best, self._pace.step, self._spec.total_steps
        )

    async def _owned(self, change: Callable[..., bool], *values: Any) -> None:
        if not await self._db(partial(change, self._job.id, self._owner, *values)):
            raise OwnershipLost
        self._on_change()

    async def _order(self) -> EncodeOrder:
        folder = Path(self._config.outputs_dir)
        if (name := await self._db(self._hold_name, folder)) is None:
            raise OwnershipLost
        self._on_change()
        return encode_order(self._job.id, folder / name, self._spec, self._config.encoder)

    def _hold_name(self, folder: Path) -> str | None:
        """Return the job's file name, taken now if it had none; None when it is not ours any more.

        Blocks, and in one piece: a cancel in between would leave a name that no row has.
        """
        if (name := self._job.file_name) is not None:
            outputs.hold(folder, name)
            return name
        name = outputs.reserve(folder, self._spec.prompt, datetime.now().astimezone())
        if not self._store.name_file(self._job.id, self._owner, name):
            outputs.release(folder, name)
            return None
        return name


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Run both to their ends. Where one fails, or this call is cancelled, the others are stopped
    before that goes up; of two errors the first one's does."""
    one, other = asyncio.create_task(first), asyncio.create_task(second)
    try:
        await asyncio.wait([one, other], return_when=asyncio.FIRST_EXCEPTION)
    finally:
        one.cancel()
        other.cancel()
        await asyncio.wait([one, other])
    for task in (one, other):
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return one.result(), other.result()


def encode_order(job_id: str, path: Path, spec: VideoSpec, settings: EncoderConfig) -> EncodeOrder:
    """Return what the encoder has to know of `spec` and the config."""
    return EncodeOrder(
        job_id=job_id,
        path=str(path),
        source_width=spec.generated_width,
        source_height=spec.generated_height,
        width=spec.width,
        height=spec.height,
        num_frames=spec.num_frames,
        fps=spec.fps,
        crf=settings.crf,
        preset=settings.preset,
        comment=recipe(spec) if settings.embed_recipe else None,
    )


def recipe(spec: VideoSpec) -> str:
    """Return the JSON that makes the same video again: the spec and the versions that ran it."""
    names = ("video-service", "torch", "diffusers", "transformers")
    versions = {name: _version(name) for name in names}
    return json.dumps({**spec.model_dump(mode="json"), "versions": versions}, ensure_ascii=False)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
