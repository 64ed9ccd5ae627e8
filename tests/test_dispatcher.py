"""Two models behind one queue: who gets a job, and what the job says about it."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from deployments.jobs import Jobs
from tests.in_process import make, painter_config, picture, running, until, until_done
from tests.painter import OPENING

FREE = "first of mochi, opensora that was free"
FULL = "mochi: not enough GPU memory"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@pytest.fixture(autouse=True)
def _closed() -> None:
    OPENING.clear()


async def until_ready(jobs: Jobs, *names: str) -> None:
    while not set(names) <= {r.model for r in (await jobs.state()).replicas if r.state == "ready"}:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("changes", "model", "routing"),
    [
        ({}, "mochi", FREE),
        ({"image": picture()}, "opensora", "image given: opensora makes videos from images"),
        ({"num_frames": 200}, "opensora", "200 frames: more than mochi's 163"),
        ({"prefer_backend": "opensora"}, "opensora", "prefer_backend"),
        ({"prefer_backend": "mochi"}, "mochi", "prefer_backend"),
    ],
)
def test_a_job_goes_to_the_model_that_can_and_says_why(
    tmp_path: Path, changes: dict[str, Any], model: str, routing: str
) -> None:
    """The reason is stored in its row."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "mochi", "opensora")) as jobs:
            await until_ready(jobs, "mochi", "opensora")
            view = await until_done(jobs, await make(jobs, **changes))
        assert (view.status, view.model, view.routing) == ("completed", model, routing)

    run(test())


def test_a_job_takes_the_model_with_the_shorter_wait(tmp_path: Path) -> None:
    """While the preferred one is busy, the other begins at once."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "mochi", "opensora")) as jobs:
            await until_ready(jobs, "mochi", "opensora")
            slow = await make(jobs, "a slow hand", prefer_backend="mochi")
            await until(jobs, slow, "denoise")
            view = await until_done(jobs, await make(jobs))
            assert (view.model, view.routing) == ("opensora", FREE)
            assert not (await jobs.get(slow)).done

    run(test())


def test_a_model_that_loads_makes_no_job_wait(tmp_path: Path) -> None:
    """The next one that is ready takes it."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "late", "opensora")) as jobs:
            await until_ready(jobs, "opensora")
            view = await until_done(jobs, await make(jobs))
            assert view.model == "opensora"
            states = {r.model: r.state for r in (await jobs.state()).replicas}
            assert states["late"] == "loading"
            OPENING.set()

    run(test())


def test_a_job_waits_while_every_model_loads(tmp_path: Path) -> None:
    """For the first that becomes ready."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "late")) as jobs:
            job_id = await make(jobs)
            for _ in range(3):
                assert (await jobs.wait(job_id, 0.5)).status == "queued"
            OPENING.set()
            view = await until_done(jobs, job_id)
            assert (view.model, view.routing) == ("late", "late is the only model here")

    run(test())


def test_a_model_without_memory_hands_the_job_on(tmp_path: Path) -> None:
    """The refusal is no attempt, and the job says who refused."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "mochi", "opensora")) as jobs:
            await until_ready(jobs, "mochi", "opensora")
            view = await until_done(jobs, await make(jobs, "much vram for mochi"))
        assert (view.status, view.model, view.attempts) == ("completed", "opensora", 1)
        assert view.routing == FULL

    run(test())


def test_a_job_that_was_handed_on_waits_for_the_other_model(tmp_path: Path) -> None:
    """It never goes back to the one that refused it, free as that is."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "mochi", "opensora")) as jobs:
            await until_ready(jobs, "mochi", "opensora")
            busy = await make(jobs, "a steady hand", prefer_backend="opensora")
            await until(jobs, busy, "denoise")
            job_id = await make(jobs, "much vram for mochi")
            while (view := await jobs.get(job_id)).routing != FULL:
                await asyncio.sleep(0.01)
            assert (view.status, view.model, view.attempts) == ("queued", "opensora", 0)
            assert (await until_done(jobs, job_id)).status == "completed"

    run(test())


def test_when_no_model_has_memory_the_last_refusal_is_the_answer(tmp_path: Path) -> None:
    """In the words of the API reference; the routing names the one before."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "mochi", "opensora")) as jobs:
            await until_ready(jobs, "mochi", "opensora")
            view = await until_done(jobs, await make(jobs, "much vram"))
        assert (view.status, view.error_code) == ("failed", "insufficient_vram")
        assert view.error_message.startswith("Insufficient VRAM: opensora needs ~6.0GB")
        assert view.routing == FULL

    run(test())


def test_a_preferred_model_without_memory_is_not_replaced(tmp_path: Path) -> None:
    """Who names a model wants that one."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "mochi", "opensora")) as jobs:
            job_id = await make(jobs, "much vram for mochi", prefer_backend="mochi")
            view = await until_done(jobs, job_id)
        assert (view.status, view.error_code) == ("failed", "insufficient_vram")
        assert (view.model, view.routing) == ("mochi", "prefer_backend")

    run(test())


def test_a_model_that_failed_to_load_gets_nothing_handed_on(tmp_path: Path) -> None:
    """The refusal stands then: there is no other model."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "mochi", "broken")) as jobs:
            await until_ready(jobs, "mochi")
            while "failed" not in {r.state for r in (await jobs.state()).replicas}:
                await asyncio.sleep(0.01)
            view = await until_done(jobs, await make(jobs, "much vram for mochi"))
        assert (view.error_code, view.model) == ("insufficient_vram", "mochi")

    run(test())
