"""The jobs of one caller, asked directly: what the doors do not ask, or not in this way."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from deployments.core.errors import InvalidRequest, NotFound
from deployments.core.job_store import JobStore
from deployments.core.service import JobQuery, Submission, new_job_id
from deployments.routes.own_jobs import CallerJobs
from tests.core.test_job_store import REQUEST
from tests.scripted_jobs import ScriptedJobs, service_config


async def two_callers(folder: Path) -> tuple[CallerJobs, str, str]:
    """Return the jobs as bob sees them, a job of ada's, and one of his own."""
    jobs = ScriptedJobs(service_config(folder))
    jobs.hold = True
    ids = [
        (await CallerJobs(jobs, name).submit(Submission(job_id=new_job_id(), request=REQUEST))).id
        for name in ("ada", "bob")
    ]
    return CallerJobs(jobs, "bob"), ids[0], ids[1]


@pytest.mark.parametrize(
    "ask",
    [
        lambda jobs, job_id: jobs.get(job_id),
        lambda jobs, job_id: jobs.image(job_id),
        lambda jobs, job_id: jobs.wait(job_id, 2),
        lambda jobs, job_id: jobs.cancel(job_id),
        lambda jobs, job_id: jobs.abandon(job_id),
        lambda jobs, job_id: jobs.delete(job_id),
        lambda jobs, job_id: jobs.pin(job_id, True),
    ],
)
def test_anothers_job_is_not_there_at_once(
    tmp_path: Path, ask: Callable[[CallerJobs, str], Awaitable[object]]
) -> None:
    """Nothing is waited for: the time that an answer takes would tell."""

    async def test() -> None:
        bob, others, own = await two_callers(tmp_path)
        began = time.monotonic()
        with pytest.raises(NotFound, match=others):
            await ask(bob, others)
        assert time.monotonic() - began < 0.5
        assert (await bob.get(own)).id == own

    asyncio.run(test())


def test_changes_are_ones_own(tmp_path: Path) -> None:
    """Deletions too; the number up to which they are complete is everybody's."""

    async def test() -> None:
        bob, others, own = await two_callers(tmp_path)
        found = await bob.changes(0, 0.1)
        assert [job.id for job in found.jobs] == [own]
        assert found.last == 2
        everybody = await CallerJobs(bob._jobs, None).changes(0, 0.1)
        assert [job.id for job in everybody.jobs] == [others, own]

    asyncio.run(test())


def test_anothers_job_is_no_place_in_a_list(tmp_path: Path) -> None:
    """`after` would tell that it is there; the same when it has been deleted."""
    store = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for name in ("ada", "bob"):
        submission = Submission(job_id=f"job of {name}", request=REQUEST, caller=name)
        store.submit(submission, ["mochi"])
    for _ in range(2):
        assert store.page(JobQuery(after="job of ada", caller="bob")) is None
        assert store.page(JobQuery(after="job of ada", caller="ada")) == []
        assert store.page(JobQuery(after="job of ada", order="asc")) is not None
        store.request_cancel("job of ada")
        store.delete("job of ada")


def test_the_wrong_place_is_named(tmp_path: Path) -> None:
    """As for one that never was."""

    async def test() -> None:
        bob, _, _ = await two_callers(tmp_path)
        with pytest.raises(InvalidRequest, match="there is no video 'video_none'"):
            await bob.list_jobs(JobQuery(after="video_none"))

    asyncio.run(test())
