"""What a run does with an image, and with a clip of several segments."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest

from tests.in_process import COLOUR, make, painter_config, picture, running, until, until_done


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def frames_in(path: Path) -> list[Any]:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


def test_an_image_reaches_the_model_and_stays_with_the_video(tmp_path: Path) -> None:
    """The painter paints its mean colour; who makes the video again gets the very same picture."""
    config = painter_config(tmp_path, "opensora")

    async def test() -> None:
        async with running(config) as jobs:
            view = await until_done(jobs, await make(jobs, image=picture()))
            assert await jobs.image(view.id) == picture()
        assert view.status == "completed"
        assert view.spec.conditioned
        frames = frames_in(tmp_path / "outputs" / view.file_name)
        assert len(frames) == 13
        assert np.abs(frames[0].mean(axis=(0, 1)) - COLOUR).max() < 4

    run(test())


def test_an_image_survives_a_restart(tmp_path: Path) -> None:
    """It waits in the job table with its job."""
    config = painter_config(tmp_path, "opensora")

    async def test() -> None:
        async with running(config) as jobs:
            job_id = await make(jobs, "a steady hand", image=picture())
            await until(jobs, job_id, "denoise")
        async with running(config) as jobs:
            assert (await until_done(jobs, job_id)).status == "completed"

    run(test())


@pytest.mark.parametrize(("frames", "segments"), [(17, 1), (18, 2), (45, 3), (240, 15)])
def test_a_long_clip_is_made_of_segments_and_has_exactly_its_frames(
    tmp_path: Path, frames: int, segments: int
) -> None:
    """17 is the longest that this painter makes in one go."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "opensora")) as jobs:
            view = await until_done(jobs, await make(jobs, num_frames=frames))
        assert (view.status, view.spec.segments) == ("completed", segments)
        assert (view.step, view.num_steps) == (8 * segments, 8 * segments)
        assert len(frames_in(tmp_path / "outputs" / view.file_name)) == frames

    run(test())


def test_the_bar_of_three_segments_goes_up_and_never_back(tmp_path: Path) -> None:
    """Steps and frames have their shares, whatever their order; a step counts over all segments."""

    async def test() -> None:
        seen = []
        async with running(painter_config(tmp_path, "opensora")) as jobs:
            job_id = await make(jobs, "a steady hand", num_frames=45)
            while not (view := await jobs.get(job_id)).done:
                seen.append(view)
                await asyncio.sleep(0.005)
        bars = [view.progress for view in seen]
        assert bars == sorted(bars)
        assert len(set(bars)) > 12
        steps = [view.step for view in seen]
        assert steps == sorted(steps)
        # The second segment is decoded before the third one's first step. That its last step is
        # done and nothing is decoded yet lasts too short a time to be seen for certain.
        assert {view.phase for view in seen if view.step == 16} - {"denoise"} == {"decode"}
        for view in seen:
            if view.phase in ("denoise", "decode"):
                # From 2 to 94: 82 for the 24 steps, 10 for the frames of the segments behind, and
                # their sum is rounded down.
                frames = view.progress - (2 + 82 * view.step // 24)
                assert 0 <= frames <= 10 * (view.step // 8) / 3 + 1

    run(test())


@pytest.mark.parametrize("step", [7, 20])
def test_a_long_clip_stops_at_any_step(tmp_path: Path, step: int) -> None:
    """In the first segment and in a later one; the model is free at once."""

    async def test() -> None:
        async with running(painter_config(tmp_path, "opensora")) as jobs:
            job_id = await make(jobs, "a steady hand", num_frames=45)
            while (await jobs.get(job_id)).step < step:
                await asyncio.sleep(0.005)
            view = await jobs.cancel(job_id)
            assert (view.status, view.error_code) == ("failed", "cancelled")
            assert view.step < 24
            assert (await until_done(jobs, await make(jobs))).status == "completed"

    run(test())
