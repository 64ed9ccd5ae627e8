import asyncio
import platform
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from deployments.core.errors import BackendUnavailable, InvalidRequest, NotFound, QueueFull
from deployments.core.job_store import JobStore
from deployments.core.service import JobQuery, Submission
from deployments.core.spec import VideoRequest
from tests.core.test_job_store import SPEC
from tests.in_process import make, painter_config, running, until, until_done


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def files_in(folder: Path) -> list[Path]:
    return [path for path in (folder / "outputs").rglob("*") if path.is_file()]


def test_a_job_becomes_a_file(tmp_path: Path) -> None:
    """From submit to a verified MP4 in the outputs folder; the row tells the whole story."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            done = await until_done(jobs, await make(jobs))
        assert (done.status, done.phase, done.progress) == ("completed", "saved", 100)
        assert (tmp_path / "outputs" / done.file_name).stat().st_size == done.file_bytes
        assert done.notices == ("painted, not dreamt",)
        assert done.attempts == 1

    run(test())


def test_progress_never_goes_back_and_ends_at_100_with_the_file(tmp_path: Path) -> None:
    """The bar is the truth of the row: monotone, and 100 for a file that can be fetched."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await make(jobs, "a steady hand")
            seen = []
            while not (view := await jobs.get(job_id)).done:
                seen.append(view.progress)
                await asyncio.sleep(0.01)
            assert seen == sorted(seen)
            assert len(set(seen)) > 5
            assert max(seen) < 100
            assert (await jobs.find_output(view.file_name)).id == job_id

    run(test())


def test_jobs_run_one_after_the_other_in_order(tmp_path: Path) -> None:
    """One replica, one job at a time; the rest know their place in the queue."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            ids = [await make(jobs, "a steady hand") for _ in range(3)]
            await until(jobs, ids[0], "denoise")
            views = [await jobs.get(job_id) for job_id in ids]
            assert [view.queue_position for view in views] == [0, 1, 2]
            ends = [(await until_done(jobs, job_id)).finished_at for job_id in ids]
            assert ends == sorted(ends)

    run(test())


def test_two_models_work_at_the_same_time(tmp_path: Path) -> None:
    """`auto` takes whichever is free."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "one", "two")) as jobs:
            ids = [await make(jobs, "a steady hand") for _ in range(2)]
            views = [await until(jobs, job_id, "denoise") for job_id in ids]
            assert {view.model for view in views} == {"one", "two"}

    run(test())


def test_a_running_job_stops_within_a_step(tmp_path: Path) -> None:
    """Cancel returns when the model is idle; the next job starts at once."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await make(jobs, "a slow hand")
            await until(jobs, job_id, "denoise")
            began = time.monotonic()
            view = await jobs.cancel(job_id)
            assert time.monotonic() - began < 1.0  # a slow step takes half a second
            assert (view.status, view.error_code) == ("failed", "cancelled")
            assert (await until_done(jobs, await make(jobs))).status == "completed"

    run(test())


def test_a_waiting_job_is_cancelled_at_once(tmp_path: Path) -> None:
    """It never starts."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            first, second = [await make(jobs, "a steady hand") for _ in range(2)]
            view = await jobs.cancel(second)
            assert (view.status, view.error_code, view.attempts) == ("failed", "cancelled", 0)
            assert (await until_done(jobs, first)).status == "completed"

    run(test())


def test_cancelling_a_finished_job_changes_nothing(tmp_path: Path) -> None:
    """The file stays."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await make(jobs)
            await until_done(jobs, job_id)
            assert (await jobs.cancel(job_id)).status == "completed"

    run(test())


@pytest.mark.parametrize(
    ("prompt", "code", "words"),
    [
        ("please fail", "generation_failed", "RuntimeError"),
        ("much vram", "insufficient_vram", "needs ~6.0GB, but only 4.2GB"),
    ],
)
def test_a_failing_model_fails_its_job_and_no_other(
    tmp_path: Path, prompt: str, code: str, words: str
) -> None:
    """The row holds code and sentence; the next job runs."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            view = await until_done(jobs, await make(jobs, prompt))
            assert (view.status, view.error_code) == ("failed", code)
            assert words in view.error_message
            assert (await until_done(jobs, await make(jobs))).status == "completed"
        assert sorted(path.suffix for path in files_in(tmp_path)) == [".jpg", ".mp4", ".webp"]

    run(test())


def test_a_model_that_cannot_load_refuses_with_its_reason(tmp_path: Path) -> None:
    """No job waits for a model that will never come; the replica lives and says why."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "broken")) as jobs:
            while "failed" not in (known := {r.state: r for r in (await jobs.state()).replicas}):
                await asyncio.sleep(0.01)
            assert "no paint" in known["failed"].reason
            with pytest.raises(BackendUnavailable, match="no paint"):
                await make(jobs)

    run(test())


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    """Beyond `max_queued` waiting jobs, 429 with a time to come back."""

    async def test() -> None:
        async with running(painter_config(tmp_path, max_queued=1)) as jobs:
            await until(jobs, await make(jobs, "a slow hand"), "denoise")
            await make(jobs)
            with pytest.raises(QueueFull) as refused:
                await make(jobs)
            assert refused.value.retry_after_s >= 1

    run(test())


def test_a_repeated_submit_is_one_job(tmp_path: Path) -> None:
    """The ingress may ask again when the jobs replica died while it answered."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            request = VideoRequest(prompt="a red ball", seed=1, width=256, height=256)
            same = Submission(job_id="same", request=request)
            views = [await jobs.submit(same) for _ in range(2)]
            assert views[0].id == views[1].id
            assert (await until_done(jobs, "same")).attempts == 1

    run(test())


def test_impossible_requests_never_become_rows(tmp_path: Path) -> None:
    """They are refused at the door, in the model's words."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            with pytest.raises(InvalidRequest, match="163"):
                await make(jobs, num_frames=164)
            assert (await jobs.state()).jobs_queued == 0

    run(test())


def test_unknown_jobs_and_files_are_not_found(tmp_path: Path) -> None:
    """Also a file name that climbs out of the folder."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            with pytest.raises(NotFound):
                await jobs.get("nope")
            with pytest.raises(NotFound):
                await jobs.find_output("../state/jobs.sqlite3")

    run(test())


def test_a_shutdown_puts_running_jobs_back_and_the_next_start_completes_them(
    tmp_path: Path,
) -> None:
    """A clean stop costs no attempt, and leaves no half file."""

    async def test() -> None:
        config = painter_config(tmp_path)
        async with running(config) as jobs:
            job_id = await make(jobs, "a steady hand")
            await until(jobs, job_id, "denoise")
        stored = JobStore(config.resolved_database_url).get(job_id)
        assert stored is not None
        assert (stored.status, stored.attempts) == ("queued", 0)
        async with running(config) as jobs:
            view = await until_done(jobs, job_id)
        assert (view.status, view.attempts) == ("completed", 1)
        assert sorted(path.suffix for path in files_in(tmp_path)) == [".jpg", ".mp4", ".webp"]

    run(test())


def test_a_dead_owners_job_is_taken_over_at_once(tmp_path: Path) -> None:
    """After kill -9 of the jobs replica nobody waits for the lease to run out."""

    async def test() -> None:
        config = painter_config(tmp_path)
        store = JobStore(config.resolved_database_url)
        dead_owner = f"{platform.node()}:999999:1.00"
        request = VideoRequest(prompt="left behind", seed=1, width=256, height=256)
        store.submit(Submission(job_id="left", request=request), ["mochi"])
        store.claim("left", dead_owner, time.time() + 1000, SPEC)
        store.started("left", dead_owner)
        async with running(config) as jobs:
            view = await until_done(jobs, "left", timeout_s=8)
        assert (view.status, view.attempts) == ("completed", 2)

    run(test())


def test_a_job_whose_processes_keep_dying_fails_as_interrupted(tmp_path: Path) -> None:
    """After `max_attempts` runs it is not tried again."""

    async def test() -> None:
        config = painter_config(tmp_path, max_attempts=1)
        store = JobStore(config.resolved_database_url)
        request = VideoRequest(prompt="left behind", seed=1, width=256, height=256)
        store.submit(Submission(job_id="left", request=request), ["mochi"])
        store.claim("left", "elsewhere:1:1.00", time.time() - 1, SPEC)
        store.started("left", "elsewhere:1:1.00")
        async with running(config) as jobs:
            view = await until_done(jobs, "left")
        assert (view.status, view.error_code) == ("failed", "interrupted")

    run(test())


def test_the_model_is_told_when_nobody_waits_for_its_job(tmp_path: Path) -> None:
    """The answer to a report is whether the job is still this owner's."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await make(jobs, "a steady hand")
            await until(jobs, job_id, "denoise")
            while not (mine := [r for r in (await jobs.state()).replicas if r.job_id]):
                await asyncio.sleep(0.01)
            assert (await jobs.report(mine[0])).job
            for change in ({"job_owner": "dead"}, {"job_id": "unknown"}):
                assert not (await jobs.report(mine[0].model_copy(update=change))).job

    run(test())


@pytest.mark.parametrize(
    ("candidate", "frames", "code", "words"),
    [
        ("gone", 13, "backend_unavailable", "gone: not configured any more"),
        ("mochi", 164, "invalid_request", "makes at most 163"),
    ],
)
def test_a_job_that_a_new_config_cannot_serve_fails_and_holds_nobody_up(
    tmp_path: Path, candidate: str, frames: int, code: str, words: str
) -> None:
    """It waited in the table while the models, or what they can do, changed."""

    async def test() -> None:
        config = painter_config(tmp_path)
        request = VideoRequest(
            prompt="from before", seed=1, width=256, height=256, num_frames=frames
        )
        JobStore(config.resolved_database_url).submit(
            Submission(job_id="old", request=request), [candidate]
        )
        async with running(config) as jobs:
            assert (await until_done(jobs, await make(jobs))).status == "completed"
            view = await until_done(jobs, "old")
        assert (view.status, view.error_code) == ("failed", code)
        assert words in view.error_message

    run(test())


def test_a_deleted_job_leaves_nothing(tmp_path: Path) -> None:
    """Neither row nor video nor pictures; a second time does no harm."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await make(jobs)
            await until_done(jobs, job_id)
            assert len(files_in(tmp_path)) == 3
            for _ in range(2):
                await jobs.delete(job_id)
            assert files_in(tmp_path) == []
            with pytest.raises(NotFound):
                await jobs.get(job_id)

    run(test())


def test_a_job_that_runs_is_not_deleted(tmp_path: Path) -> None:
    """It has to be cancelled first."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            job_id = await make(jobs, "a steady hand")
            await until(jobs, job_id, "denoise")
            await jobs.delete(job_id)
            assert (await until_done(jobs, job_id)).status == "completed"

    run(test())


def test_the_jobs_are_listed_with_their_places(tmp_path: Path) -> None:
    """The newest first, unless asked otherwise; an unknown cursor is refused by name."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            ids = [await make(jobs, "a slow hand") for _ in range(3)]
            await until(jobs, ids[0], "denoise")
            page = await jobs.list_jobs(JobQuery(limit=2))
            assert [job.id for job in page.jobs] == [ids[2], ids[1]]
            assert [job.queue_position for job in page.jobs] == [2, 1]
            assert page.has_more
            assert page.last_change == (await jobs.changes(None, 0)).last
            page = await jobs.list_jobs(JobQuery(after=ids[1], limit=2))
            assert ([job.id for job in page.jobs], page.has_more) == ([ids[0]], False)
            with pytest.raises(InvalidRequest, match="after: there is no video 'never'"):
                await jobs.list_jobs(JobQuery(after="never", order="asc"))

    run(test())
