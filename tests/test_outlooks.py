"""What a request would take, asked of the running service; and what is refused at the door."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from deployments.core.errors import InsufficientVram, InvalidRequest
from deployments.core.memory import MODES, Placement, plan
from deployments.core.spec import VideoRequest, resolve
from deployments.forecast import PLAN_FOR_S
from deployments.jobs import Jobs
from tests import painter
from tests.in_process import CHECKPOINT, make, painter_config, running, until, until_done
from tests.painter import Painter

REQUEST = VideoRequest(prompt="a red ball", width=256, height=256, num_frames=13, seed=7)


def smallest_gb() -> float:
    """What REQUEST takes at least, in the mode that a small card has."""
    card = Painter.card(painter_config(Path()).models[0], CHECKPOINT)
    spec = resolve(REQUEST.model_copy(update={"low_vram": True}), card)
    return plan(Painter.figures(CHECKPOINT), spec, MODES[2]).peak_gb


def have_a_card(monkeypatch: pytest.MonkeyPatch, total_gb: float, available_gb: float) -> None:
    """Let every painter say that it has a GPU of this size."""
    placement = Placement(mode=MODES[2], available_gb=available_gb, total_gb=total_gb)
    monkeypatch.setattr(painter, "PLACEMENT", placement)


def run(scene: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scene, 60))


async def until_reported(jobs: Jobs, replicas: int = 1) -> None:
    """Wait until so many replicas have said that they are ready."""
    async with asyncio.timeout(10):
        while [one.state for one in (await jobs.state()).replicas] != ["ready"] * replicas:
            await asyncio.sleep(0.01)


def test_a_replica_reports_how_it_lies_on_its_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the estimate compares with what is free there."""

    have_a_card(monkeypatch, 24.0, smallest_gb() - 1)

    async def scene() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            await until_reported(jobs)
            [replica] = (await jobs.state()).replicas
            assert replica.placement == painter.PLACEMENT
            found = await jobs.estimate(REQUEST)
        assert (found.chosen.fits, found.chosen.placement) == (False, painter.PLACEMENT)
        assert found.nearest is not None

    run(scene())


def test_what_no_card_can_ever_hold_is_refused_as_it_is_handed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, and another one about what would fit."""

    need_gb = smallest_gb()
    have_a_card(monkeypatch, need_gb - 1, need_gb - 2)

    async def scene() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            await until_reported(jobs)
            with pytest.raises(InsufficientVram) as refusal:
                await make(jobs)
            assert (await jobs.state()).jobs_queued == 0
        begin = f"Insufficient VRAM: mochi needs ~{need_gb:.1f}GB, but only {need_gb - 1:.1f}GB "
        assert str(refusal.value) == f"{begin}available. No shorter or smaller video fits either."

    run(scene())


def test_what_another_model_may_hold_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One on a larger card, or on the CPU; by its name the small one still refuses."""
    small = Placement(mode=MODES[2], available_gb=1.0, total_gb=1.0)

    def placement(self: Painter) -> Placement | None:
        return small if self._config.name == "mochi" else None

    monkeypatch.setattr(Painter, "placement", placement)

    async def scene() -> None:
        async with running(painter_config(tmp_path, "mochi", "opensora")) as jobs:
            await until_reported(jobs, 2)
            assert (await jobs.estimate(REQUEST)).chosen.spec.model == "opensora"
            await make(jobs)
            with pytest.raises(InsufficientVram, match="mochi needs"):
                await make(jobs, prefer_backend="mochi")

    run(scene())


def test_what_a_full_card_cannot_hold_now_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have room when the video's turn comes; the replica has the last word."""

    have_a_card(monkeypatch, 80.0, 0.5)

    async def scene() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            await until_reported(jobs)
            assert (await until_done(jobs, await make(jobs))).status == "completed"

    run(scene())


def test_a_job_says_what_it_takes_of_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits and while it runs; afterwards it takes nothing."""
    have_a_card(monkeypatch, 80.0, 79.0)

    async def scene() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            await until_reported(jobs)
            expected = (await jobs.estimate(REQUEST)).chosen.plan
            assert expected is not None
            first, second = [await make(jobs, "a steady ball") for _ in range(2)]
            await until(jobs, first, "denoise")
            for job_id in (first, second):
                assert (await jobs.get(job_id)).memory_gb == expected.peak_gb
            assert (await until_done(jobs, first)).memory_gb is None

    run(scene())


def test_nothing_is_refused_for_its_memory_before_all_replicas_have_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is missing may have the larger card."""

    have_a_card(monkeypatch, 1.0, 1.0)
    config = painter_config(tmp_path)
    two = config.models[0].model_copy(update={"num_replicas": 2})

    async def scene() -> None:
        async with running(config.model_copy(update={"models": (two,)})) as jobs:
            await until_reported(jobs)
            await make(jobs)

    run(scene())


def test_nothing_is_refused_on_the_cpu(tmp_path: Path) -> None:
    """Where no replica tells of a GPU."""

    async def scene() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            await until_reported(jobs)
            assert (await jobs.estimate(REQUEST)).chosen.fits is None
            job_id = await make(jobs, "a steady ball")
            assert (await jobs.get(job_id)).memory_gb is None

    run(scene())


def test_seconds_are_those_that_videos_took_here(tmp_path: Path) -> None:
    """Nothing is said of them before the first one."""

    async def scene() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            await until_reported(jobs)
            assert (await jobs.estimate(REQUEST)).times.make_s is None
            await until_done(jobs, await make(jobs, "a steady ball"))
            await asyncio.sleep(PLAN_FOR_S)
            times = (await jobs.estimate(REQUEST)).times
            assert times.make_s is not None
            assert times.make_s >= 8 * painter.STEP_S
            assert times.start_s == 0

    run(scene())


def test_who_would_come_last_waits_for_all_others(tmp_path: Path) -> None:
    """The one that runs, and the one that waits."""
    short = REQUEST.model_copy(update={"num_inference_steps": 4})

    async def scene() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            await until_reported(jobs)
            await until_done(jobs, await make(jobs, "a slow ball", num_inference_steps=4))
            took_s = (await jobs.estimate(short)).times.make_s
            assert took_s is not None
            for _ in range(2):
                await make(jobs, "a slow ball", num_inference_steps=4)
            async with asyncio.timeout(5):
                while (await jobs.state()).jobs_running == 0:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(PLAN_FOR_S)
            start_s = (await jobs.estimate(short)).times.start_s
            assert start_s is not None
            assert took_s < start_s < 2 * took_s

    run(scene())


def test_what_no_model_can_make_is_no_estimate(tmp_path: Path) -> None:
    """But the same refusal."""

    async def scene() -> None:
        async with running(painter_config(tmp_path)) as jobs:
            with pytest.raises(InvalidRequest, match="makes at most 163"):
                await jobs.estimate(REQUEST.model_copy(update={"num_frames": 240}))

    run(scene())
