"""A disk that fills while jobs wait."""

import asyncio
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from deployments.core.errors import InsufficientDisk
from deployments.disk_room import WAITS
from tests.in_process import make, painter_config, running, until, until_done

Usage = namedtuple("Usage", "total used free")


def test_a_job_waits_for_room_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk filled after the job was taken in: no run begins, new jobs are refused, and all
    goes on when there is room again."""
    free_mb = 1000

    def usage(_: Path) -> Usage:
        return Usage(2000 * 2**20, 0, free_mb * 2**20)

    monkeypatch.setattr(shutil, "disk_usage", usage)

    async def test() -> None:
        nonlocal free_mb
        async with running(painter_config(tmp_path, min_free_disk_mb=500)) as jobs:
            await until(jobs, first := await make(jobs, "a steady hand"), "denoise")
            waiting = await make(jobs)
            free_mb = 499
            with pytest.raises(InsufficientDisk, match="500MB, but only 499MB"):
                await make(jobs)
            assert (await until_done(jobs, first)).status == "completed"
            while WAITS not in (view := await jobs.get(waiting)).notices:
                await asyncio.sleep(0.01)
            assert (view.status, view.notices) == ("queued", (WAITS,))
            free_mb = 501
            done = await until_done(jobs, waiting)
            assert (done.status, done.notices) == ("completed", ("painted, not dreamt",))

    asyncio.run(asyncio.wait_for(test(), 60))
