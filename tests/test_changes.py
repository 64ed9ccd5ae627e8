"""What changed since a number: the question behind every stream of events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from deployments import job_views
from deployments.core.events import EncodedVideo, EncodeOrder, Step
from deployments.encoder import Encoder
from deployments.jobs import Jobs
from deployments.routes.feed import Feed
from deployments.video_model import VideoModel
from tests.in_process import make, painter_config, running, until, until_done


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@asynccontextmanager
async def followed(jobs: Jobs) -> AsyncIterator[list[dict[str, Any]]]:
    """Give what a client of `/v1/events` is told, as it comes."""
    feed = Feed(jobs, lambda: False)
    seen: list[dict[str, Any]] = []

    async def read() -> None:
        async for event in feed.follow(None, None):
            if event is not None and event.kind == "video":
                seen.append(json.loads(event.data))

    tasks = [asyncio.create_task(feed.run()), asyncio.create_task(read())]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_told(seen: list[dict[str, Any]], job_id: str) -> list[dict[str, Any]]:
    """Return all that was told of a job, when it is done."""
    while not any(video["id"] == job_id and video["completed_at"] for video in seen):
        await asyncio.sleep(0.01)
    return [video for video in seen if video["id"] == job_id]


def require_truth(folder: Path, told: list[dict[str, Any]]) -> None:
    """The bar never goes back, and is full for a file that can be fetched, and only then."""
    bars = [video["progress"] for video in told]
    assert bars == sorted(bars)
    for video in told:
        assert (video["progress"] == 100) == (video["status"] == "completed")
    assert told[-1]["status"] == "completed"
    name = told[-1]["video_url"].removeprefix("/outputs/")
    assert (folder / "outputs" / name).stat().st_size > 0


class LostOnce(Encoder):
    """Dies with its first file."""

    died = False

    async def encode(self, order: EncodeOrder, source: Any) -> EncodedVideo:
        if not self.died:
            self.died = True
            raise ActorDiedError
        return await super().encode(order, source)


def dies_at(step: int) -> Any:
    """`VideoModel.generate` that is lost at a step, once."""
    generate, lost = VideoModel.generate, False

    async def generate_and_die(self: VideoModel, *args: Any) -> AsyncIterator[Any]:
        nonlocal lost
        async with aclosing(generate(self, *args)) as events:
            async for event in events:
                yield event
                if isinstance(event, Step) and event.step == step and not lost:
                    lost = True
                    raise ActorDiedError

    return generate_and_die


def test_the_whole_stream_of_two_videos_is_true(tmp_path: Path) -> None:
    """All phases in their order, the place in the queue, and the bar; the second run of a kind
    follows what the first one took."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs, followed(jobs) as seen:
            ids = [await make(jobs, "a steady hand") for _ in range(2)]
            for job_id in ids:
                told = await until_told(seen, job_id)
                require_truth(tmp_path, told)
                assert len({video["progress"] for video in told}) > 5
            phases = list(dict.fromkeys(video["phase"] for video in told))
            assert phases[0] == "queued"
            assert phases[-2:] == ["encode", "saved"]
            assert told[0]["queue_position"] == 1

    run(test())


def test_a_lost_encoder_does_not_move_the_bar_back(tmp_path: Path) -> None:
    """The same frames are encoded again."""

    async def test() -> None:
        encoder = LostOnce()
        async with running(painter_config(tmp_path), encoder) as jobs, followed(jobs) as seen:
            require_truth(tmp_path, await until_told(seen, await make(jobs, "a steady hand")))
        assert encoder.died

    run(test())


@pytest.mark.parametrize("step", [1, 7])
def test_a_lost_model_does_not_move_the_bar_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The job waits again and begins anew; its bar stands still until it is where it was."""
    monkeypatch.setattr(VideoModel, "generate", dies_at(step))

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs, followed(jobs) as seen:
            told = await until_told(seen, await make(jobs, "a steady hand"))
        require_truth(tmp_path, told)
        assert told[-1]["attempts"] == 2

    run(test())


def test_a_question_is_answered_when_something_changes(tmp_path: Path) -> None:
    """And without a change after the time it was given."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            last = (await jobs.changes(None, 0)).last
            began = time.monotonic()
            assert await jobs.changes(last, 0.3) == await jobs.changes(last, 0)
            assert 0.25 < time.monotonic() - began < 5
            question = asyncio.create_task(jobs.changes(last, 2))
            await asyncio.sleep(0)
            job_id = await make(jobs)
            changes = await question
            assert [job.id for job in changes.jobs] == [job_id]
            assert changes.last > last

    run(test())


def test_each_job_that_changed_is_told_once_in_the_order_of_the_changes(tmp_path: Path) -> None:
    """As it is now; and each that was deleted."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            first, second = [await make(jobs) for _ in range(2)]
            for job_id in (first, second):
                await until_done(jobs, job_id)
            await jobs.delete(first)
            changes = await jobs.changes(0, 0)
            assert [(job.id, job.status) for job in changes.jobs] == [(second, "completed")]
            assert [job.id for job in changes.deleted] == [first]
            assert changes.last == changes.deleted[0].sequence > changes.jobs[0].sequence
            assert await jobs.changes(changes.last, 0) == type(changes)(last=changes.last)

    run(test())


def test_many_changes_come_in_several_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each says up to where it is complete; none is left out or told twice."""
    monkeypatch.setattr(job_views, "CHANGES_AT_ONCE", 2)

    async def test() -> None:
        async with running(painter_config(tmp_path, max_queued=10)) as jobs:
            await until(jobs, blocker := await make(jobs, "a slow hand"), "denoise")
            ids = [await make(jobs) for _ in range(5)]
            for job_id in ids:
                await jobs.cancel(job_id)
            for job_id in (ids[0], ids[3]):
                await jobs.delete(job_id)
            after, numbers, told = 0, [], []
            more = True
            while more:
                changes = await jobs.changes(after, 0)
                items = sorted([*changes.jobs, *changes.deleted], key=lambda item: item.sequence)
                numbers += [item.sequence for item in items if item.id != blocker]
                told += [item.id for item in items if item.id != blocker]
                assert all(after < item.sequence <= changes.last for item in items)
                after, more = changes.last, changes.more
            assert numbers == sorted(numbers)
            assert sorted(told) == sorted(ids)

    run(test())


def test_the_present_is_every_job_that_is_not_done(tmp_path: Path) -> None:
    """For a client that knows no number, and for one whose number never was."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            await until_done(jobs, await make(jobs))
            ids = [await make(jobs, "a slow hand") for _ in range(2)]
            for after in (None, 10**6):
                changes = await jobs.changes(after, 2)
                assert {job.id for job in changes.jobs} == set(ids)
                assert changes.last < 10**6

    run(test())
