"""Models on one card, from the queue to the file; the card is only pretended."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from deployments import residency
from deployments.core.config import ServiceConfig
from deployments.core.service import Submission, new_job_id
from deployments.core.spec import VideoRequest
from deployments.jobs import Jobs
from deployments.lost import ReplicaRestarts
from deployments.video_model import VideoModel
from tests.in_process import make, painter_config, running, until, until_done
from tests.scripted_jobs import GPU


@pytest.fixture(autouse=True)
def _one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency.gpu, "gpus", lambda: (GPU,))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


async def states(jobs: Jobs) -> set[str]:
    return {replica.state for replica in (await jobs.state()).replicas}


def with_keep_alive(config: ServiceConfig, keep_alive_s: float) -> ServiceConfig:
    models = tuple(m.model_copy(update={"keep_alive_s": keep_alive_s}) for m in config.models)
    return config.model_copy(update={"models": models})


def test_a_job_waits_while_the_neighbour_works(tmp_path: Path) -> None:
    """It is in the phase `loading` then, does not look stuck, and follows at once."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "one", "two")) as jobs:
            first = await make(jobs, "a steady hand", prefer_backend="one")
            await until(jobs, first, "denoise")
            second = await make(jobs, prefer_backend="two")
            begun = await until(jobs, second, "loading")
            while (await jobs.get(first)).phase == "denoise":
                view = await jobs.get(second)
                assert (view.phase, view.progress, view.stalled) == ("loading", 0, False)
                await asyncio.sleep(0.01)
            assert begun.status == "in_progress"
            for job_id in (first, second):
                assert (await until_done(jobs, job_id)).status == "completed"

    run(test())


@pytest.mark.parametrize("why", ["cancelled", "deadline_exceeded"])
def test_a_job_that_waits_for_its_turn_can_be_stopped(tmp_path: Path, why: str) -> None:
    """By its caller and by its deadline, long before the neighbour is done."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "one", "two")) as jobs:
            slow = {"prompt": "a slow hand", "num_inference_steps": 20}
            first = await make(jobs, prefer_backend="one", **slow)
            await until(jobs, first, "denoise")
            request = VideoRequest(prompt="a red ball", seed=7, prefer_backend="two")
            due = time.time() + 1 if why == "deadline_exceeded" else None
            second = new_job_id()
            await jobs.submit(Submission(job_id=second, request=request, deadline_at=due))
            await until(jobs, second, "loading")
            if why == "cancelled":
                began = time.monotonic()
                await jobs.cancel(second)
                assert time.monotonic() - began < 2
            view = await until_done(jobs, second)
            assert (view.status, view.error_code) == ("failed", why)
            assert (await jobs.get(first)).phase == "denoise"
            await jobs.cancel(first)

    run(test())


def test_a_model_that_has_left_the_gpu_takes_jobs(tmp_path: Path) -> None:
    """It is chosen as a ready one is, and counts as a lane in every forecast."""

    async def test() -> None:
        config = with_keep_alive(painter_config(tmp_path, "one", "two"), 0.0)
        async with running(config) as jobs:
            while await states(jobs) != {"unloaded"}:
                await asyncio.sleep(0.01)
            view = await until_done(jobs, await make(jobs))
            assert (view.status, view.model) == ("completed", "one")
            assert (await jobs.state()).replicas[0].reason
            while await states(jobs) != {"unloaded"}:
                await asyncio.sleep(0.01)

    run(test())


def test_a_job_that_comes_to_a_replica_that_restarts_counts_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: it goes to the next one as if it had waited."""
    generate, refusals = VideoModel.generate, iter(range(5))

    async def refuse_first(self: VideoModel, *args: Any) -> AsyncIterator[Any]:
        if next(refusals, None) is not None:
            raise ReplicaRestarts
        async for event in generate(self, *args):
            yield event

    async def test() -> None:
        monkeypatch.setattr(VideoModel, "generate", refuse_first)
        async with running(painter_config(tmp_path, "one")) as jobs:
            view = await until_done(jobs, await make(jobs))
        assert (view.status, view.attempts) == ("completed", 1)
        assert next(refusals, None) is None

    run(test())


def test_nobody_gives_a_job_to_a_replica_that_restarts(tmp_path: Path) -> None:
    """The next one waits for its successor, and does not fail."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "one")) as jobs:
            assert (await until_done(jobs, await make(jobs, "a leaky hand"))).status == "completed"
            while await states(jobs) != {"restarting"}:
                await asyncio.sleep(0.01)
            waiting = await make(jobs)
            await asyncio.sleep(0.3)
            view = await jobs.get(waiting)
            assert (view.status, view.attempts) == ("queued", 0)

    run(test())
