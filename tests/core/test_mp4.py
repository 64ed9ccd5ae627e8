"""Real files through the real ffmpeg, read back: what `Mp4Writer`, `verify` and `probe` promise."""

import asyncio
import contextlib
import os
import subprocess
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from deployments.core.errors import EncodingFailed
from deployments.core.events import Frames
from deployments.core.ffmpeg import ffmpeg_path
from deployments.core.mp4 import (
    Mp4Settings,
    Mp4Writer,
    encode_arguments,
    geometry_filter,
    verify,
)
from deployments.core.mp4_boxes import Mp4Info, NotAnMp4, probe

NASTY = (
    '{"prompt": "a \\"quoted\\" fox; x=1 #tag \\\\ back\nslash\r\n\t", '
    '"cjk": "静かな湖", "emoji": "🦊👩‍👩‍👧", "rtl": "שלום"}'
)


def settings(width: int = 264, height: int = 360, **others: Any) -> Mp4Settings:
    values: dict[str, Any] = {
        "source_width": width,
        "source_height": height,
        "width": width,
        "height": height,
        "fps": 24,
        "preset": "veryfast",
    }
    return Mp4Settings(**{**values, **others})


def noise(count: int, width: int, height: int, seed: int = 0) -> Frames:
    """Blocks of noise that move: every frame differs from the one before."""
    rng = np.random.default_rng(seed)
    still = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(still, 4 * k, axis=1) for k in range(count)])


async def write(path: Path, how: Mp4Settings, *chunks: Frames) -> None:
    async with Mp4Writer(path, how) as writer:
        for chunk in chunks:
            await writer.write(chunk)
        await writer.finish()


def make(path: Path, how: Mp4Settings, *chunks: Frames) -> Mp4Info:
    asyncio.run(write(path, how, *chunks))
    return probe(path)


def decode(path: Path, width: int, height: int) -> Frames:
    back = "scale=in_color_matrix=bt709:in_range=tv:flags=accurate_rnd+full_chroma_int"
    raw = subprocess.run(
        [
            *(ffmpeg_path(), "-loglevel", "error", "-i", str(path), "-vf", back),
            *("-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"),
        ],
        check=True,
        capture_output=True,
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("fps", [1, 7, 8, 24, 25, 30, 59, 60])
def test_every_frame_rate_is_exact(tmp_path: Path, fps: int) -> None:
    """Frame count, rate and length are what was asked, not what a time base rounds to."""
    path = tmp_path / "clip.mp4"
    info = make(path, settings(fps=fps), noise(5, 264, 360), noise(4, 264, 360, seed=1))
    assert (info.num_frames, info.fps) == (9, Fraction(fps))
    assert info.duration_s == pytest.approx(9 / fps, abs=1e-9)
    asyncio.run(verify(path, width=264, height=360, num_frames=9, fps=fps))


@pytest.mark.parametrize(("width", "height"), [(256, 256), (264, 360), (720, 720), (1920, 256)])
def test_every_size_is_exact(tmp_path: Path, width: int, height: int) -> None:
    """Sizes that are multiples of 8 but not of 16 come out as asked."""
    info = make(tmp_path / "clip.mp4", settings(width, height), noise(2, width, height))
    assert (info.width, info.height) == (width, height)
    assert decode(tmp_path / "clip.mp4", width, height).shape == (2, height, width, 3)


def test_one_frame_is_a_clip(tmp_path: Path) -> None:
    """A clip of one frame is a valid file that lasts one frame."""
    path = tmp_path / "clip.mp4"
    info = make(path, settings(256, 256, fps=8), noise(1, 256, 256))
    assert (info.num_frames, info.duration_s) == (1, 0.125)
    asyncio.run(verify(path, width=256, height=256, num_frames=1, fps=8))


@pytest.mark.parametrize("preset", ["veryfast", "medium"])
def test_a_file_says_that_it_is_bt709(tmp_path: Path, preset: str) -> None:
    """All four colour tags are there, in the boxes and in the stream; else players guess."""
    path = tmp_path / "clip.mp4"
    info = make(path, settings(preset=preset), noise(3, 264, 360))
    assert info.colour == (1, 1, 1)
    assert not info.full_range
    assert b"colrnclx" in path.read_bytes()
    said = subprocess.run([ffmpeg_path(), "-i", str(path)], capture_output=True, check=False)
    assert b"h264 (High)" in said.stderr
    assert b"yuv420p(tv, bt709, progressive)" in said.stderr


def test_a_file_can_play_before_it_is_all_there(tmp_path: Path) -> None:
    """The index (moov) comes before the frames (mdat), and the profile is High."""
    info = make(tmp_path / "clip.mp4", settings(), noise(3, 264, 360))
    assert info.moov_first
    assert info.profile == 100


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    """Neither the time, the name, the chunks nor the number of cores shows in a file."""
    frames = noise(12, 264, 360)
    first, second = tmp_path / "a.mp4", tmp_path / "b.mp4"
    make(first, settings(comment=NASTY), frames)
    make(second, settings(comment=NASTY), frames[:5], frames[5:])
    assert first.read_bytes() == second.read_bytes()
    assert b"x264 - core" not in first.read_bytes()  # the SEI that holds the thread count


def test_flat_colours_survive(tmp_path: Path) -> None:
    """Flat patches come back within 3 of 255."""
    colours = [
        *((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128)),
        *((224, 172, 105), (16, 16, 16), (235, 235, 235), (0, 128, 128), (200, 30, 90), (9, 9, 64)),
    ]
    row = np.array(colours, np.uint8).repeat(32, 0)
    frames = np.broadcast_to(row, (2, 256, len(row), 3))
    make(tmp_path / "clip.mp4", settings(len(row), 256, crf=10), frames)
    decoded = decode(tmp_path / "clip.mp4", len(row), 256)[1].astype(int)
    for index, colour in enumerate(colours):
        middle = decoded[8:-8, index * 32 + 8 : index * 32 + 24]
        assert np.abs(middle - colour).max() <= 3, colour


def test_views_of_arrays_are_written_as_they_look(tmp_path: Path) -> None:
    """Frames need not be contiguous or writable: Ray's object store gives read-only ones."""
    wide = noise(4, 528, 360)
    view = wide[:, :, ::2]
    copy = np.ascontiguousarray(view)
    copy.setflags(write=False)
    make(tmp_path / "a.mp4", settings(), view)
    make(tmp_path / "b.mp4", settings(), copy)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


# --- geometry ---------------------------------------------------------------------------


def dot_at(x: int, y: int, width: int, height: int, side: int) -> Frames:
    frames = np.zeros((2, height, width, 3), np.uint8)
    frames[:, y : y + side, x : x + side] = 255
    return frames


def find_dot(frame: Frames) -> tuple[float, float]:
    """Return the centre of the light on a dark frame, x before y."""
    light = frame[..., 1].astype(float)
    light[light < 40] = 0
    ys, xs = np.indices(light.shape)
    return float((xs * light).sum() / light.sum()), float((ys * light).sum() / light.sum())


@pytest.mark.parametrize(("width", "height"), [(264, 360), (264, 368), (272, 360)])
def test_a_larger_source_is_cropped_around_its_centre(
    tmp_path: Path, width: int, height: int
) -> None:
    """272x368 is what the network makes for 264x360; nothing is scaled."""
    how = settings(width, height, source_width=272, source_height=368)
    make(tmp_path / "clip.mp4", how, dot_at(100, 200, 272, 368, 16))
    x, y = find_dot(decode(tmp_path / "clip.mp4", width, height)[0])
    assert x == pytest.approx(107.5 - (272 - width) / 2, abs=0.1)
    assert y == pytest.approx(207.5 - (368 - height) / 2, abs=0.1)


@pytest.mark.parametrize(
    ("width", "height", "source_width", "source_height"),
    [(720, 720, 240, 240), (720, 480, 240, 240), (480, 720, 240, 240), (720, 360, 320, 176)],
)
def test_a_smaller_source_is_scaled_to_cover_and_then_cropped(
    tmp_path: Path, width: int, height: int, source_width: int, source_height: int
) -> None:
    """The aspect is kept and what is cut off is the same on both sides."""
    how = settings(width, height, source_width=source_width, source_height=source_height)
    x0, y0, side = source_width // 2 - 40, source_height // 2 + 12, 16
    make(tmp_path / "clip.mp4", how, dot_at(x0, y0, source_width, source_height, side))
    x, y = find_dot(decode(tmp_path / "clip.mp4", width, height)[0])
    factor = max(width / source_width, height / source_height)
    centre_x, centre_y = x0 + side / 2, y0 + side / 2
    assert x + 0.5 == pytest.approx(width / 2 + factor * (centre_x - source_width / 2), abs=0.6)
    assert y + 0.5 == pytest.approx(height / 2 + factor * (centre_y - source_height / 2), abs=0.6)


def test_only_what_is_needed_is_filtered() -> None:
    """Frames of the asked size are neither scaled nor cropped."""
    assert geometry_filter(720, 720, 720, 720) == ""
    assert geometry_filter(272, 368, 264, 360) == "crop=264:360"
    assert geometry_filter(360, 360, 720, 720).startswith("scale=720:720:flags=lanczos")


# --- the recipe -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "comment", [NASTY, "x", "=;#\\\n\\", "静" * 70_000], ids=["nasty", "short", "escapes", "210 kB"]
)
def test_a_recipe_comes_back_as_it_was(tmp_path: Path, comment: str) -> None:
    """Any text survives, also one too long for a command line."""
    path = tmp_path / "clip.mp4"
    assert make(path, settings(256, 256, comment=comment), noise(2, 256, 256)).comment == comment
    asyncio.run(verify(path, width=256, height=256, num_frames=2, fps=24, comment=comment))


def test_without_a_recipe_nothing_of_the_prompt_is_in_the_file(tmp_path: Path) -> None:
    """`embed_recipe: false` keeps prompts private: no comment, and no name of our program."""
    path = tmp_path / "clip.mp4"
    assert make(path, settings(256, 256), noise(2, 256, 256)).comment is None
    assert b"\xa9cmt" not in path.read_bytes()
    assert b"\xa9too" not in path.read_bytes()


def test_a_prompt_never_stands_in_the_process_list(tmp_path: Path) -> None:
    """Arguments are visible to every user of the machine."""
    arguments = encode_arguments(tmp_path / "clip.mp4", settings(comment="secret fox"), "/dev/fd/9")
    assert not any("fox" in argument for argument in arguments)


# --- failures ---------------------------------------------------------------------------


def our_ffmpeg() -> psutil.Process:
    return next(p for p in psutil.Process().children() if "ffmpeg" in p.name())


async def kill_while_writing(path: Path) -> None:
    async with Mp4Writer(path, settings()) as writer:
        await writer.write(noise(10, 264, 360))
        our_ffmpeg().kill()
        for _ in range(200):
            await writer.write(noise(10, 264, 360))


def test_a_dead_ffmpeg_is_an_encoding_failure(tmp_path: Path) -> None:
    """Killed from outside, for example for memory: the message says by which signal."""
    with pytest.raises(EncodingFailed, match=r"ended before it had all frames \(signal 9\)"):
        asyncio.run(kill_while_writing(tmp_path / "clip.mp4"))
    assert not psutil.Process().children()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """ENOSPC from the kernel, through the real ffmpeg, becomes a sentence with a size."""
    path = tmp_path / "clip.mp4"
    path.symlink_to("/dev/full")
    with pytest.raises(EncodingFailed, match=r"no space left in outputs/ \(needs about \d+ MB\)"):
        make(path, settings(), noise(40, 264, 360))


def test_a_stuck_ffmpeg_is_killed(tmp_path: Path) -> None:
    """An ffmpeg that takes nothing and writes nothing ends after the time without progress."""

    async def body() -> None:
        async with Mp4Writer(tmp_path / "clip.mp4", settings(), stuck_after_s=0.5) as writer:
            await writer.write(noise(2, 264, 360))
            our_ffmpeg().suspend()
            while True:
                await writer.write(noise(10, 264, 360))

    began = time.monotonic()
    with pytest.raises(EncodingFailed, match="no progress"):
        asyncio.run(body())
    assert time.monotonic() - began < 10
    assert not psutil.Process().children()


def test_a_cancelled_write_stops_ffmpeg(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the cancellation reaches the caller, ffmpeg has already ended; it is no error then."""

    async def body() -> None:
        async def endless() -> None:
            async with Mp4Writer(tmp_path / "clip.mp4", settings()) as writer:
                while True:
                    await writer.write(noise(20, 264, 360))

        task = asyncio.create_task(endless())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not psutil.Process().children()

    asyncio.run(body())
    assert not caplog.records


def test_the_event_loop_runs_while_frames_are_encoded(tmp_path: Path) -> None:
    """Health checks are answered during an encode: nothing blocks the loop."""

    async def body() -> float:
        worst = 0.0
        task = asyncio.create_task(
            write(tmp_path / "clip.mp4", settings(720, 720), noise(24, 720, 720))
        )
        while not task.done():
            began = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - began)
        await task
        return worst

    assert asyncio.run(body()) < 0.5


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 256, 264, 3), np.uint8),
        np.zeros((2, 360, 264, 3), np.float32),
        np.zeros((360, 264, 3), np.uint8),
    ],
)
def test_frames_of_another_kind_are_refused(tmp_path: Path, frames: Any) -> None:
    """A wrong size would be written as a sheared picture; it is named instead."""
    with pytest.raises(EncodingFailed, match=r"expected uint8 \(T, 360, 264, 3\)"):
        make(tmp_path / "clip.mp4", settings(), frames)


def test_a_clip_without_frames_is_refused(tmp_path: Path) -> None:
    """ffmpeg would write a file that no player opens."""
    with pytest.raises(EncodingFailed, match="no frames"):
        make(tmp_path / "clip.mp4", settings())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_frames": 7}, "frames 6, not 7"),
        ({"fps": 25}, "fps 24, not 25"),
        ({"height": 368}, r"size \(264, 360\), not \(264, 368\)"),
        ({"comment": "{}"}, "the recipe"),
    ],
)
def test_verify_names_what_differs(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    """The message says which fact is wrong, and both values."""
    path = tmp_path / "clip.mp4"
    make(path, settings(), noise(6, 264, 360))
    wanted = {"width": 264, "height": 360, "num_frames": 6, "fps": 24, **asked}
    with pytest.raises(EncodingFailed, match=message):
        asyncio.run(verify(path, **wanted))


def test_verify_finds_a_broken_picture(tmp_path: Path) -> None:
    """Boxes in order are not enough: every frame is decoded."""
    path = tmp_path / "clip.mp4"
    make(path, settings(), noise(6, 264, 360))
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 3
    data[middle : middle + 400] = os.urandom(400)
    path.write_bytes(data)
    with pytest.raises(EncodingFailed):
        asyncio.run(verify(path, width=264, height=360, num_frames=6, fps=24))


@pytest.mark.parametrize("kept", [0, 7, 30, 200, 900, -1])
def test_probe_says_that_a_file_is_cut_short(tmp_path: Path, kept: int) -> None:
    """No cut makes the reader fail with anything but its own error."""
    path = tmp_path / "clip.mp4"
    make(path, settings(256, 256), noise(2, 256, 256))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(NotAnMp4):
        probe(path)


def test_probe_survives_any_bytes(tmp_path: Path) -> None:
    """Random damage to the index is read or refused, never a crash or an endless loop."""
    path = tmp_path / "clip.mp4"
    make(path, settings(256, 256, comment="x"), noise(2, 256, 256))
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(good)
        for at in rng.integers(0, good.index(b"mdat") + 4, 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        with contextlib.suppress(NotAnMp4):
            probe(path)
