"""How long jobs take: what is said of waiting and running ones, and what a machine remembers."""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from deployments import forecast
from deployments.core.errors import QueueFull
from deployments.core.service import JobQuery
from deployments.core.timings import TimingStore
from tests.in_process import make, painter_config, running, until, until_done

STEADY_S = 8 * 0.05  # eight steps of the painter's


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@pytest.fixture(autouse=True)
def _plan_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "PLAN_FOR_S", 0.0)


def test_nothing_is_said_before_anything_is_known(tmp_path: Path) -> None:
    """No guess is better than a wild one; a step later the run itself tells."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            first, second = [await make(jobs, "a steady hand") for _ in range(2)]
            assert (await jobs.get(second)).seconds_left is None
            while (view := await jobs.get(first)).step < 2:
                await asyncio.sleep(0.01)
            assert view.seconds_left is not None
            assert 0.1 < view.seconds_left < 10
            assert (await until_done(jobs, first)).seconds_left is None

    run(test())


def test_a_machine_remembers_what_its_videos_took(tmp_path: Path) -> None:
    """Also after a restart: a waiting job knows when it starts and when it is done."""

    async def test() -> None:
        config = painter_config(tmp_path)
        async with running(config) as jobs:
            await until_done(jobs, await make(jobs, "a steady hand"))
        async with running(config) as jobs:
            ids = [await make(jobs, "a steady hand") for _ in range(3)]
            running_one, second, third = [await jobs.get(job_id) for job_id in ids]
            assert running_one.seconds_until_start is None
            assert 0 < second.seconds_until_start < third.seconds_until_start
            assert second.seconds_left > second.seconds_until_start
            assert second.seconds_left < third.seconds_left
            assert third.seconds_left >= 3 * 0.8 * STEADY_S
            began = time.monotonic()
            await until_done(jobs, ids[2])
            assert third.seconds_left == pytest.approx(time.monotonic() - began, rel=0.9)
        saved = {timing.amount.phase: timing for timing in _saved(config.resolved_database_url)}
        assert set(saved) == {"text", "denoise", "decode", "encode"}
        # What is left of the encode after the decode depends on how fast the frames came.
        setting = saved["encode"].setting
        assert (setting.model, setting.checkpoint) == ("mochi", "painter, ultrafast crf 18")

    run(test())


def test_a_job_that_two_models_can_make_waits_for_the_one_that_is_free_first(
    tmp_path: Path,
) -> None:
    """With as many lanes as there are replicas."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "one", "two")) as jobs:
            for name in ("one", "two"):
                await until_done(jobs, await make(jobs, "a steady hand", prefer_backend=name))
            for name in ("one", "two"):
                await until(jobs, await make(jobs, "a slow hand", prefer_backend=name), "denoise")
            ids = [await make(jobs, "a steady hand") for _ in range(3)]
            views = {view.id: view for view in (await jobs.list_jobs(JobQuery())).jobs}
            first, second, third = [views[job_id].seconds_until_start for job_id in ids]
            assert 0 < first <= second < third
            assert third >= first + STEADY_S

    run(test())


def test_a_full_queue_says_when_a_model_is_free(tmp_path: Path) -> None:
    """From what is left of the running job; a minute while nothing is known."""

    async def test() -> None:
        async with running(painter_config(tmp_path, max_queued=1)) as jobs:
            await until(jobs, await make(jobs, "a slow hand"), "text")
            await make(jobs)
            with pytest.raises(QueueFull) as refused:
                await make(jobs)
            assert refused.value.retry_after_s == 60
            while (await jobs.list_jobs(JobQuery(order="asc"))).jobs[0].step < 2:
                await asyncio.sleep(0.05)
            with pytest.raises(QueueFull) as refused:
                await make(jobs)
            assert 1 <= refused.value.retry_after_s <= 6

    run(test())


def test_a_running_job_has_a_heartbeat_and_is_not_stalled(tmp_path: Path) -> None:
    """The painter reports when it begins; a waiting job has none."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            first, second = [await make(jobs, "a steady hand") for _ in range(2)]
            began = time.time()
            while (view := await jobs.get(first)).heartbeat_at is None:
                await asyncio.sleep(0.01)
            assert began - 1 < view.heartbeat_at <= time.time()
            assert not view.stalled
            assert (await jobs.get(second)).heartbeat_at is None
            assert (await until_done(jobs, first)).heartbeat_at is None

    run(test())


def test_a_job_that_stands_still_is_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has happened for longer than the run's patience."""
    monkeypatch.setattr("deployments.core.pace.STALLED_S", 0.1)
    monkeypatch.setattr("deployments.core.pace.STALLED_TIMES", 0.2)

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await make(jobs, "a slow hand")
            while (await jobs.get(job_id)).step < 1:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.25)  # of a step of half a second
            assert (await jobs.get(job_id)).stalled
            await jobs.cancel(job_id)
            assert not (await jobs.get(job_id)).stalled

    run(test())


def _saved(url: str) -> list[Any]:
    store = TimingStore(url)
    try:
        return store.load()
    finally:
        store.close()
