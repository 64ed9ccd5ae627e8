"""The newest preview of each run: kept in memory, and gone with the run."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from deployments.core.events import Preview, Step
from deployments.latest_previews import LatestPreviews
from deployments.video_model import VideoModel
from tests.in_process import make, painter_config, running, until, until_done


def with_previews(every: int) -> Any:
    """`VideoModel.generate` of a model that has previews."""
    generate = VideoModel.generate

    async def generate_with_previews(self: VideoModel, *args: Any) -> AsyncIterator[Any]:
        async with aclosing(generate(self, *args)) as events:
            async for event in events:
                yield event
                if isinstance(event, Step) and event.step % every == 0:
                    yield Preview(event.step, b"jpeg")

    return generate_with_previews


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_a_preview_takes_the_place_of_the_last() -> None:
    """Numbers rise over all jobs, so that one number tells what is new."""
    latest = LatestPreviews()
    for step in (1, 2):
        for job_id in ("a", "b"):
            latest.show(job_id, "ann", Preview(step, b"jpeg"))
    first, second = latest.after(0)
    assert [(one.id, one.caller, one.step) for one in (first, second)] == [
        ("a", "ann", 2),
        ("b", "ann", 2),
    ]
    assert latest.after(first.number) == (second,)
    assert latest.after(second.number) == latest.after(None) == ()
    latest.ended("b")
    assert latest.after(0) == (first,)


def test_numbers_rise_from_process_to_process() -> None:
    """A feed that has seen previews of a jobs replica asks the next one for those after them."""
    before, after = LatestPreviews(), LatestPreviews()
    for latest in (before, after):
        latest.show("a", "", Preview(1, b"jpeg"))
    assert after.after(before.after(0)[0].number)


def test_a_running_job_is_shown_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question is answered by a preview as by a change of a row."""
    monkeypatch.setattr(VideoModel, "generate", with_previews(every=8))

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await make(jobs, "a steady thorough hand")
            await until(jobs, job_id, "denoise")
            last, shown = (await jobs.changes(None, 0)).last, ()
            while not shown:
                changes = await jobs.changes(last, 2, 0)
                last, shown = changes.last, changes.previews
            assert [(one.id, one.step, one.picture) for one in shown] == [(job_id, 8, b"jpeg")]
            assert not (await jobs.changes(last, 0)).previews
            assert not (await jobs.changes(last, 0, shown[0].number)).previews
            await until_done(jobs, job_id)
            while (await jobs.changes(None, 0, 0)).previews:
                await asyncio.sleep(0.01)

    run(test())
