"""What is kept, what is removed, and what a crash leaves in folder and table."""

import asyncio
import platform
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deployments.core import outputs
from deployments.core.config import RetentionConfig, ServiceConfig
from deployments.core.errors import NotFound
from deployments.core.job_store import JobStore
from deployments.core.job_table import jobs as table
from deployments.core.service import JobQuery
from deployments.housekeeping import Housekeeping, expires_at
from tests.in_process import make, painter_config, picture, running, until, until_done

DEAD_OWNER = f"{platform.node()}:999999:1.00"
HOUR_S = 3600.0


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def retaining(folder: Path, **rules: float) -> ServiceConfig:
    return painter_config(folder).model_copy(update={"retention": RetentionConfig(**rules)})


def change(config: ServiceConfig, job_id: str, **values: Any) -> None:
    """Change a row behind the service's back, as only a crash or the clock can."""
    engine = sa.create_engine(config.resolved_database_url)
    with engine.begin() as connection:
        connection.execute(table.update().where(table.c.id == job_id).values(**values))
    engine.dispose()


async def made(config: ServiceConfig, count: int) -> list[str]:
    """Make videos that ended 1, 2, 3 ... hours ago, with files of 1 GiB as the rows say."""
    async with running(config) as jobs:
        ids = [await make(jobs) for _ in range(count)]
        for job_id in ids:
            await until_done(jobs, job_id)
    for hours, job_id in enumerate(ids, 1):
        change(config, job_id, finished_at=time.time() - hours * HOUR_S, file_bytes=2**30)
    return ids


def kept(config: ServiceConfig, ids: list[str]) -> list[str]:
    """Sweep once and return the jobs that are left; each has its file, and no other file is."""
    store = JobStore(config.resolved_database_url)
    housekeeping = Housekeeping(config, store)
    for job_id in housekeeping.expired():
        assert housekeeping.expire(job_id)
    left = [job for job_id in ids if (job := store.get(job_id)) is not None]
    store.close()
    names = {path.name for path in Path(config.outputs_dir).glob("*.mp4")}
    assert names == {job.file_name for job in left}
    return [job.id for job in left]


# --- the operator's rules ------------------------------------------------------------------


def test_nothing_is_removed_unless_the_operator_says_so(tmp_path: Path) -> None:
    """Whoever runs this at home expects to find their videos again."""

    async def test() -> None:
        config = painter_config(tmp_path)
        ids = await made(config, 1)
        change(config, ids[0], finished_at=1.0)
        assert kept(config, ids) == ids

    run(test())


def test_what_is_too_old_goes_with_its_files(tmp_path: Path) -> None:
    """Row, video and pictures, and failed jobs too; what is pinned stays."""

    async def test() -> None:
        config = retaining(tmp_path, max_age_hours=2.5)
        ids = await made(painter_config(tmp_path), 4)
        change(config, ids[3], pinned=True)
        async with running(painter_config(tmp_path)) as jobs:
            await until_done(jobs, failed := await make(jobs, "please fail"))
        change(config, failed, finished_at=time.time() - 3 * HOUR_S)
        assert kept(config, [*ids, failed]) == [ids[0], ids[1], ids[3]]
        assert len(list((tmp_path / "outputs/.previews").iterdir())) == 6

    run(test())


def test_the_oldest_make_room(tmp_path: Path) -> None:
    """Of five of 1 GiB three fit; a pinned one stays, and its bytes do not count."""

    async def test() -> None:
        config = retaining(tmp_path, max_total_gb=3)
        ids = await made(painter_config(tmp_path), 5)
        change(config, ids[4], pinned=True)
        assert kept(config, ids) == [ids[0], ids[1], ids[2], ids[4]]

    run(test())


def test_the_service_sweeps_by_itself_and_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which they ended; the deletions are numbered among the changes."""
    monkeypatch.setattr("deployments.jobs.TIDY_EVERY_S", 0.05)

    async def test() -> None:
        config = retaining(tmp_path, max_age_hours=0.5)
        ids = await made(painter_config(tmp_path), 2)
        store = JobStore(config.resolved_database_url)
        before = store.last_change()
        async with running(config) as jobs:
            while (await jobs.list_jobs(JobQuery())).jobs:
                await asyncio.sleep(0.01)
        deleted = store.deleted_after(before, 10)
        assert [job.id for job in deleted] == [ids[1], ids[0]]
        assert [job.sequence for job in deleted] == [before + 1, before + 2]

    run(test())


def test_a_pin_that_comes_at_the_last_moment_counts(tmp_path: Path) -> None:
    """Between the list of what is due and its removal."""

    async def test() -> None:
        config = retaining(tmp_path, max_age_hours=0.5)
        (job_id,) = await made(painter_config(tmp_path), 1)
        store = JobStore(config.resolved_database_url)
        housekeeping = Housekeeping(config, store)
        assert housekeeping.expired() == [job_id]
        assert store.pin(job_id, pinned=True)
        assert not housekeeping.expire(job_id)
        assert store.get(job_id) is not None

    run(test())


def test_a_job_says_when_it_expires(tmp_path: Path) -> None:
    """The age rule, once the job has ended; never when it is pinned, or without the rule."""
    rule = RetentionConfig(max_age_hours=2)
    assert expires_at(1000.0, rule, pinned=False) == 1000.0 + 2 * HOUR_S
    assert expires_at(1000.0, rule, pinned=True) is None
    assert expires_at(None, rule, pinned=False) is None
    assert expires_at(1000.0, RetentionConfig(max_total_gb=1), pinned=False) is None

    async def test() -> None:
        async with running(retaining(tmp_path, max_age_hours=2)) as jobs:
            view = await until_done(jobs, job_id := await make(jobs))
            assert view.expires_at == view.finished_at + 2 * HOUR_S
            pinned = await jobs.pin(job_id, True)
            assert (pinned.pinned, pinned.expires_at) == (True, None)
            assert pinned.sequence > view.sequence
            assert (await jobs.pin(job_id, True)).sequence == pinned.sequence
            assert (await jobs.pin(job_id, False)).expires_at == view.expires_at
            with pytest.raises(NotFound):
                await jobs.pin("video_unknown", True)

    run(test())


# --- uploads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "cancelled in the queue"])
def test_an_upload_goes_with_its_job(tmp_path: Path, end: str) -> None:
    """It is kept with a video, to make it again, until that is removed; with any other end it goes
    at once."""

    async def test() -> None:
        config = painter_config(tmp_path, "opensora")
        store = JobStore(config.resolved_database_url)
        async with running(config) as jobs:
            if end == "cancelled in the queue":
                await until(jobs, await make(jobs, "a slow hand"), "denoise")
            prompt = {"completed": "a ball", "failed": "please fail"}.get(end, "a slow hand")
            job_id = await make(jobs, prompt, image=picture())
            assert store.image(job_id) == picture()
            if end == "cancelled":
                await until(jobs, job_id, "denoise")
            if end.startswith("cancelled"):
                await jobs.cancel(job_id)
            view = await until_done(jobs, job_id)
            code = {"completed": None, "failed": "generation_failed"}.get(end, "cancelled")
            assert view.error_code == code
            assert store.image(job_id) == (picture() if end == "completed" else None)
            await jobs.delete(job_id)
            assert (store.get(job_id), store.image(job_id)) == (None, None)

    run(test())


# --- cancelling ------------------------------------------------------------------------------


def test_a_job_that_is_cancelled_while_it_is_written_leaves_no_file(tmp_path: Path) -> None:
    """Row `failed` with `cancelled`, no video, no picture, no part, no marker; the next one
    works."""

    async def test() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            big = {"width": 1280, "height": 720, "num_frames": 49}
            await until(jobs, job_id := await make(jobs, **big), "encode")
            view = await jobs.cancel(job_id)
            assert (view.status, view.error_code, view.file_name) == ("failed", "cancelled", None)
            assert [p for p in (tmp_path / "outputs").rglob("*") if p.is_file()] == []
            assert (await until_done(jobs, await make(jobs))).status == "completed"

    run(test())


def test_a_cancel_that_comes_after_the_file_removes_it(tmp_path: Path) -> None:
    """The encoder had published when the cancel reached it: the job is cancelled, so no file."""

    class SlowAnswer:
        """An encoder whose answer takes its time on the way back."""

        def __init__(self, encoder: Any) -> None:
            self.encoder, self.published = encoder, asyncio.Event()

        async def encode(self, *order: Any) -> Any:
            await self.encoder.encode(*order)
            self.published.set()
            await asyncio.sleep(60)

    async def test() -> None:
        from deployments.encoder import Encoder

        encoder = SlowAnswer(Encoder())
        async with running(painter_config(tmp_path), encoder) as jobs:
            job_id = await make(jobs)
            await encoder.published.wait()
            view = await jobs.cancel(job_id)
            assert (view.status, view.error_code) == ("failed", "cancelled")
            assert [p for p in (tmp_path / "outputs").rglob("*") if p.is_file()] == []

    run(test())


# --- after a crash -----------------------------------------------------------------------------


async def crashed_before_the_row(config: ServiceConfig, **values: Any) -> tuple[str, Path]:
    """Leave a published file whose row still says that its dead owner works on it."""
    async with running(config) as jobs:
        view = await until_done(jobs, await make(jobs))
    now = {"status": "in_progress", "owner": DEAD_OWNER, "phase": "encode", "progress": 94}
    change(config, view.id, **now | {"file_bytes": None, "finished_at": None} | values)
    return view.id, Path(config.outputs_dir) / view.file_name


def test_a_published_file_is_adopted_by_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the file and the row: the video is not made a second time, even when the
    job has no attempt left."""
    trace = tmp_path / "trace"
    monkeypatch.setenv("PAINTER_TRACE", str(trace))

    async def test() -> None:
        config = painter_config(tmp_path)
        job_id, path = await crashed_before_the_row(config, attempts=3)
        before = path.stat()
        async with running(config) as jobs:
            view = await until_done(jobs, job_id)
        assert (view.status, view.attempts, view.file_name) == ("completed", 3, path.name)
        assert (view.file_bytes, path.stat().st_ino) == (before.st_size, before.st_ino)
        assert len(trace.read_text().splitlines()) == 1
        assert [p.name for p in Path(config.outputs_dir).iterdir() if p.is_file()] == [path.name]

    run(test())


def test_a_file_that_is_not_what_its_job_asked_for_is_made_again(tmp_path: Path) -> None:
    """Damaged, or of another version: under the same name, which is the job's."""

    async def test() -> None:
        config = painter_config(tmp_path)
        job_id, path = await crashed_before_the_row(config)
        whole = path.read_bytes()
        path.write_bytes(whole[:2000])
        async with running(config) as jobs:
            view = await until_done(jobs, job_id)
        assert (view.status, view.file_name) == ("completed", path.name)
        assert path.read_bytes() == whole
        assert [p.name for p in Path(config.outputs_dir).iterdir() if p.is_file()] == [path.name]

    run(test())


def test_the_file_of_a_failed_job_is_removed_at_the_start(tmp_path: Path) -> None:
    """A crash between the row and the removal; nothing of a cancelled job stays."""

    async def test() -> None:
        config = painter_config(tmp_path)
        job_id, path = await crashed_before_the_row(config)
        change(config, job_id, status="failed", error_code="cancelled", error_message="-")
        async with running(config) as jobs:
            assert (await jobs.get(job_id)).error_code == "cancelled"
        assert not path.exists()
        assert not any(outputs_path.exists() for outputs_path in outputs.picture_paths(path))

    run(test())


def test_a_video_that_no_job_knows_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be the user's own; the log says that it is there."""

    async def test() -> None:
        config = retaining(tmp_path, max_age_hours=0.01, max_total_gb=0.001)
        folder = tmp_path / "outputs"
        folder.mkdir()
        (folder / "holiday.mp4").write_bytes(b"a user's own")
        async with running(config) as jobs:
            await until_done(jobs, await make(jobs))
        assert (folder / "holiday.mp4").read_bytes() == b"a user's own"

    with caplog.at_level("INFO", logger="video_service"):
        run(test())
    assert "1 MP4 files belong to no video here and are left alone" in caplog.text


def test_a_video_that_lost_its_file_keeps_its_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its recipe is still good; the log says so at the start, and it can be deleted."""

    async def test() -> None:
        config = painter_config(tmp_path)
        async with running(config) as jobs:
            view = await until_done(jobs, await make(jobs))
        (tmp_path / "outputs" / view.file_name).unlink()
        async with running(config) as jobs:
            assert (await jobs.get(view.id)).status == "completed"
            await jobs.delete(view.id)
            with pytest.raises(NotFound):
                await jobs.get(view.id)

    with caplog.at_level("INFO", logger="video_service"):
        run(test())
    assert "1 completed videos have lost their files" in caplog.text
