"""Frames are encoded while the next ones are decoded: what that is good for, and what may go wrong
half way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OwnerDiedError

from deployments.core.errors import EncodingFailed
from deployments.core.events import EncodedVideo, EncodeOrder, FramesStored
from deployments.core.job_store import JobStore
from deployments.encoder import Encoder, FrameSource
from deployments.frame_refs import FramesUnknown
from deployments.video_model import VideoModel
from tests.in_process import make, painter_config, running, until_done
from tests.painter import OPENING

# Seventeen decoded runs of 0.05 s; five chunks, the first after 0.2 s.
PATIENT = {"prompt": "a thorough hand", "num_frames": 97}


@pytest.fixture(autouse=True)
def _closed() -> None:
    OPENING.clear()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def files_in(folder: Path) -> list[str]:
    return [path.name for path in (folder / "outputs").rglob("*") if path.is_file()]


class Watched(Encoder):
    """Knows how many chunks of frames it has got, and may fail once after the first.

    Args: failure: what then goes wrong.
    """

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.failure = failure
        self.got: list[int] = []

    async def encode(self, order: EncodeOrder, source: FrameSource) -> EncodedVideo:
        self.got.append(0)
        return await super().encode(order, self._counted(source, len(self.got) - 1))

    async def _counted(self, source: FrameSource, call: int) -> AsyncIterator[Any]:
        async for ref in source:
            yield ref
            # Whoever asks for the next has written the one before.
            self.got[call] += 1
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure


async def until_written(encoder: Watched, chunks: int = 1) -> None:
    while not encoder.got or encoder.got[-1] < chunks:
        await asyncio.sleep(0.005)


def dies_in_decode(error: Exception, before: Callable[[], Coroutine[Any, Any, None]]) -> Any:
    """`VideoModel.generate` that is lost after its first frames, and `before`, once."""
    generate, lost = VideoModel.generate, False

    async def generate_and_die(self: VideoModel, *args: Any) -> AsyncIterator[Any]:
        nonlocal lost
        async with aclosing(generate(self, *args)) as events:
            async for event in events:
                yield event
                if isinstance(event, FramesStored) and not lost:
                    lost = True
                    await before()
                    raise error

    return generate_and_die


def test_the_first_frames_are_written_before_the_last_are_decoded(tmp_path: Path) -> None:
    """So little of the encode is left afterwards, and the row says `decode` until then."""

    async def test() -> None:
        encoder = Watched()
        async with running(painter_config(tmp_path), encoder) as jobs:
            job_id = await make(jobs, **PATIENT)
            await until_written(encoder, 2)
            assert (await jobs.get(job_id)).phase == "decode"
            assert (await until_done(jobs, job_id)).status == "completed"
        assert encoder.got == [5]

    run(test())


def test_a_slow_model_keeps_no_other_file_out(tmp_path: Path) -> None:
    """Its file is open, half written; the other model's is done before."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "one", "two"), encoder := Watched()) as jobs:
            patient = PATIENT | {"num_frames": 163}
            slow = await make(jobs, prefer_backend="one", **patient)
            await until_written(encoder)
            quick = await until_done(jobs, await make(jobs, prefer_backend="two"))
            assert quick.status == "completed"
            assert (await jobs.get(slow)).phase == "decode"
            assert (await until_done(jobs, slow)).status == "completed"

    run(test())


def test_a_lost_encoder_writes_the_same_frames_again_while_more_are_decoded(
    tmp_path: Path,
) -> None:
    """Nothing is decoded twice."""

    async def test() -> None:
        encoder = Watched(ActorDiedError())
        async with running(painter_config(tmp_path), encoder) as jobs:
            view = await until_done(jobs, await make(jobs, **PATIENT))
        assert (view.status, view.attempts) == ("completed", 1)
        assert encoder.got == [1, 5]

    run(test())


@pytest.mark.parametrize("told_by", ["model", "encoder"])
def test_a_model_lost_in_decode_makes_the_job_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_by: str
) -> None:
    """The file that was begun is gone, and the name is the job's until it has its video."""

    async def test() -> None:
        encoder = Watched(OwnerDiedError("", None, "") if told_by == "encoder" else None)

        async def when_written() -> None:
            await until_written(encoder)

        if told_by == "model":
            lost = dies_in_decode(ActorDiedError(), when_written)
            monkeypatch.setattr(VideoModel, "generate", lost)
        async with running(painter_config(tmp_path), encoder) as jobs:
            view = await until_done(jobs, await make(jobs, **PATIENT))
        assert (view.status, view.attempts) == ("completed", 2)
        assert encoder.got == [1, 5]
        assert len(files_in(tmp_path)) == 3

    run(test())


def test_a_file_that_cannot_be_written_stops_the_model(tmp_path: Path) -> None:
    """The rest would be decoded for nothing."""

    async def test() -> None:
        encoder = Watched(EncodingFailed("no space left in outputs/"))
        async with running(painter_config(tmp_path), encoder) as jobs:
            job_id = await make(jobs, **PATIENT)
            view = await until_done(jobs, job_id)
            assert (view.status, view.error_code) == ("failed", EncodingFailed.code)
            assert view.phase == "decode"
            assert files_in(tmp_path) == []
            assert (await until_done(jobs, await make(jobs))).status == "completed"

    run(test())


def test_a_cancel_in_decode_leaves_no_file(tmp_path: Path) -> None:
    """Model and encoder have stopped when it returns."""

    async def test() -> None:
        encoder = Watched()
        async with running(painter_config(tmp_path), encoder) as jobs:
            job_id = await make(jobs, **PATIENT)
            await until_written(encoder)
            view = await jobs.cancel(job_id)
            assert (view.status, view.error_code, view.phase) == ("failed", "cancelled", "decode")
            assert files_in(tmp_path) == []
            assert (await until_done(jobs, await make(jobs))).status == "completed"

    run(test())


def test_an_encoder_that_asks_another_replica_costs_no_attempt(tmp_path: Path) -> None:
    """It is told of this when its jobs replica is being replaced; the job waits for the next."""

    async def test() -> None:
        encoder = Watched(FramesUnknown())
        async with running(painter_config(tmp_path), encoder) as jobs:
            view = await until_done(jobs, await make(jobs, **PATIENT))
        assert (view.status, view.attempts) == ("completed", 1)
        assert encoder.got == [1, 5]

    run(test())


def test_a_job_that_is_cancelled_between_two_runs_leaves_no_file(tmp_path: Path) -> None:
    """It waits with a name, taken when its first frames came."""

    async def test() -> None:
        config = painter_config(tmp_path)
        encoder = Watched()
        async with running(config, encoder) as jobs:
            job_id = await make(jobs, **PATIENT)
            await until_written(encoder)
        stored = JobStore(config.resolved_database_url).get(job_id)
        assert stored is not None
        assert (stored.status, stored.attempts) == ("queued", 0)
        assert files_in(tmp_path) == [f".{stored.file_name}.reserved"]
        async with running(painter_config(tmp_path, "late")) as jobs:
            view = await jobs.cancel(job_id)
            assert (view.status, view.file_name) == ("failed", None)
            OPENING.set()
        assert files_in(tmp_path) == []

    run(test())
