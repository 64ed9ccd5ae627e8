"""Who gets a place in the queue, whose turn it is, and what a deadline ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deployments.core.errors import QueueFull
from deployments.core.service import Submission, new_job_id
from deployments.core.spec import VideoRequest
from deployments.jobs import Jobs
from tests.in_process import painter_config, running, until, until_done
from tests.painter import OPENING


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def call(prompt: str = "a steady hand", **changes: Any) -> Submission:
    request = VideoRequest(prompt=prompt, width=256, height=256, num_frames=13, seed=7)
    values = {"job_id": new_job_id(), "request": request, "fingerprint": prompt}
    return Submission(**values | {"received_at": time.time()} | changes)


async def submit(jobs: Jobs, prompt: str = "a steady hand", **changes: Any) -> str:
    return (await jobs.submit(call(prompt, **changes))).id


@asynccontextmanager
async def no_model_yet(tmp_path: Path, **limits: int) -> AsyncIterator[Jobs]:
    """The jobs while the only model still loads: all of them wait."""
    OPENING.clear()
    async with running(painter_config(tmp_path, "late", **limits)) as jobs:
        try:
            yield jobs
        finally:
            OPENING.set()


# --- the queue's bounds --------------------------------------------------------------------


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    """Never more than `max_queued` wait, however many ask at once."""

    async def test() -> None:
        async with no_model_yet(tmp_path, max_queued=5) as jobs:
            asked = [submit(jobs, f"a ball {number}") for number in range(30)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, QueueFull)]
            assert len(refused) == 25
            assert all(refusal.retry_after_s >= 1 for refusal in refused)
            assert (await jobs.state()).jobs_queued == 5

    run(test())


def test_one_key_has_a_bound_of_its_own(tmp_path: Path) -> None:
    """The others still get in; without a key there is no such bound."""

    async def test() -> None:
        async with no_model_yet(tmp_path, max_queued_per_key=2) as jobs:
            for _ in range(2):
                await submit(jobs, caller="ada")
            with pytest.raises(QueueFull, match="2 jobs of yours wait"):
                await submit(jobs, caller="ada")
            await submit(jobs, caller="bob")
            for _ in range(3):
                await submit(jobs)

    run(test())


# --- repeated requests ---------------------------------------------------------------------


def test_a_repeated_request_is_answered_though_the_queue_is_full(tmp_path: Path) -> None:
    """It takes no place: its job has one."""

    async def test() -> None:
        async with no_model_yet(tmp_path, max_queued=2) as jobs:
            keyed = await submit(jobs, idempotency_key="k")
            plain = await submit(jobs, "a ball")
            with pytest.raises(QueueFull):
                await submit(jobs, "another")
            assert await submit(jobs, idempotency_key="k") == keyed
            assert await submit(jobs, "a ball", is_retry=True) == plain

    run(test())


def test_many_calls_with_one_key_run_once(tmp_path: Path) -> None:
    """Also when they come together, and when it is done."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            calls = [submit(jobs, idempotency_key="k") for _ in range(20)]
            [job_id] = set(await asyncio.gather(*calls))
            done = await until_done(jobs, job_id)
            assert (done.status, done.attempts) == ("completed", 1)
            assert await submit(jobs, idempotency_key="k") == job_id
            await jobs.delete(job_id)
            assert await submit(jobs, idempotency_key="k") != job_id

    run(test())


def test_a_request_that_was_refused_is_not_taken_for_one_that_was_not(tmp_path: Path) -> None:
    """A client asks for two of the same; the second one meets a full queue and tries again: that
    is no repetition of the first one."""

    async def test() -> None:
        async with no_model_yet(tmp_path, max_queued=1) as jobs:
            first = await submit(jobs)
            for attempt in range(2):
                with pytest.raises(QueueFull):
                    await submit(jobs, is_retry=attempt > 0)
            await jobs.cancel(first)
            second = await submit(jobs, is_retry=True)
            assert second != first
            assert await submit(jobs, is_retry=True) == second

    run(test())


# --- whose turn it is -----------------------------------------------------------------------


def test_callers_take_turns_in_the_order_that_they_were_shown(tmp_path: Path) -> None:
    """Whoever handed in ten jobs first does not keep the others from their first one."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            busy = await submit(jobs, "a slow hand", caller="ada")
            await until(jobs, busy, "denoise")
            callers = ["ada", "ada", "ada", "bob", "bob", "eve"]
            ids = [await submit(jobs, "a ball", caller=caller) for caller in callers]
            shown = {job_id: (await jobs.get(job_id)).queue_position for job_id in ids}
            assert list(shown.values()) == [3, 5, 6, 1, 4, 2]
            views = [await until_done(jobs, job_id) for job_id in ids]
            started = sorted(views, key=lambda view: view.started_at)
            assert [shown[view.id] for view in started] == [1, 2, 3, 4, 5, 6]

    run(test())


def test_who_was_served_last_is_known_after_a_restart(tmp_path: Path) -> None:
    """From the table."""

    async def test() -> None:
        config = painter_config(tmp_path)
        async with running(config) as jobs:
            for caller in ("bob", "ada"):
                await until_done(jobs, await submit(jobs, "a ball", caller=caller))
        async with no_model_yet(tmp_path) as jobs:
            first, second = [await submit(jobs, caller=caller) for caller in ("ada", "bob")]
            places = [(await jobs.get(job_id)).queue_position for job_id in (first, second)]
            assert places == [2, 1]

    run(test())


# --- deadlines ------------------------------------------------------------------------------


def test_a_waiting_job_fails_at_its_deadline(tmp_path: Path) -> None:
    """It never starts."""

    async def test() -> None:
        async with no_model_yet(tmp_path) as jobs:
            job_id = await submit(jobs, deadline_at=time.time() + 1)
            assert (await jobs.get(job_id)).status == "queued"
            view = await until_done(jobs, job_id)
            assert (view.status, view.error_code) == ("failed", "deadline_exceeded")
            assert view.started_at is None

    run(test())


def test_a_running_job_stops_at_its_deadline(tmp_path: Path) -> None:
    """Within a step; the next one starts clean, and no file stays."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await submit(jobs, "a slow hand", deadline_at=time.time() + 1.5)
            await until(jobs, job_id, "denoise")
            view = await until_done(jobs, job_id)
            assert (view.status, view.error_code) == ("failed", "deadline_exceeded")
            assert view.finished_at - view.created_at < 3
            assert not list((tmp_path / "outputs").glob("*.mp4*"))
            assert (await until_done(jobs, await submit(jobs, "a ball"))).status == "completed"

    run(test())


def test_a_job_that_is_done_in_time_does_not_mind_its_deadline(tmp_path: Path) -> None:
    """Nor does what comes after it."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await submit(jobs, "a ball", deadline_at=time.time() + 15)
            assert (await until_done(jobs, job_id)).status == "completed"

    run(test())


def test_a_cancelled_job_is_cancelled_whatever_its_deadline(tmp_path: Path) -> None:
    """The user's word comes first."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await submit(jobs, "a slow hand", deadline_at=time.time() + 60)
            await until(jobs, job_id, "denoise")
            assert (await jobs.cancel(job_id)).error_code == "cancelled"

    run(test())


def test_two_cancels_at_once_end_a_job_once(tmp_path: Path) -> None:
    """The second one does not break off what the first one writes, and is told the same."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await submit(jobs, "a slow hand")
            await until(jobs, job_id, "denoise")
            views = await asyncio.gather(*(jobs.cancel(job_id) for _ in range(3)))
            assert {view.error_code for view in views} == {"cancelled"}

    run(test())
