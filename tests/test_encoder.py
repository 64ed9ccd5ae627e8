"""The encoder with real frames and the real ffmpeg; references are futures, as Ray's are."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from deployments.core import left_overs, mp4, outputs
from deployments.core.errors import EncodingFailed
from deployments.core.events import EncodedVideo, EncodeOrder, Frames
from deployments.core.mp4_boxes import probe
from deployments.encoder import Encoder
from deployments.frame_refs import FrameRefs

NAME = "20250127_143022_serene_lake.mp4"
# In the order of `left_in`: the contact sheet, the poster, the video.
ALL = [f".previews/{NAME[:-4]}.jpg", f".previews/{NAME[:-4]}.webp", NAME]


def order(folder: Path, **others: Any) -> EncodeOrder:
    """An order for a name that its job holds, as jobs gives it."""
    outputs.hold(folder, NAME)
    values: dict[str, Any] = {
        "job_id": "video_1",
        "path": str(folder / NAME),
        "source_width": 272,
        "source_height": 368,
        "width": 264,
        "height": 360,
        "num_frames": 12,
        "fps": 24,
        "crf": 18,
        "preset": "veryfast",
        "comment": '{"prompt": "a serene lake"}',
    }
    return EncodeOrder(**{**values, **others})


def frames(count: int) -> Frames:
    return np.random.default_rng(0).integers(0, 256, (count, 368, 272, 3), np.uint8)


def ref(value: Frames | BaseException) -> Awaitable[Frames]:
    future = asyncio.get_running_loop().create_future()
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


def given(*refs: Awaitable[Frames]) -> FrameRefs:
    """All references of a clip, there from the beginning."""
    source = FrameRefs()
    for one in refs:
        source.add(one)
    source.complete()
    return source


def encode(what: EncodeOrder, *values: Frames | BaseException, times: int = 1) -> EncodedVideo:
    async def body() -> EncodedVideo:
        source = given(*(ref(value) for value in values))
        for _ in range(times):
            done = await Encoder(stuck_after_s=20).encode(what, source)
        return done

    return asyncio.run(body())


def left_in(folder: Path) -> list[str]:
    """All files but the marker: the name stays the job's until the video is there."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in files if path.suffix != ".reserved")


def test_frames_become_a_file(tmp_path: Path) -> None:
    """Chunks of any length make one verified file of the asked size at the asked path."""
    done = encode(order(tmp_path), frames(5), frames(6), frames(1))
    assert left_in(tmp_path) == ALL
    assert not outputs.marker_path(tmp_path / NAME).exists()
    info = probe(tmp_path / NAME)
    assert (info.width, info.height, info.num_frames) == (264, 360, 12)
    assert info.comment == '{"prompt": "a serene lake"}'
    assert done.path == str(tmp_path / NAME)
    assert done.size_bytes == (tmp_path / NAME).stat().st_size


def test_a_video_has_a_poster_and_a_contact_sheet(tmp_path: Path) -> None:
    """The first frame, at the size of the video, and twelve small ones, five in a row."""
    encode(order(tmp_path), frames(12))
    with Image.open(tmp_path / ALL[1]) as poster, Image.open(tmp_path / ALL[0]) as sheet:
        assert (poster.format, poster.size) == ("WEBP", (264, 360))
        assert (sheet.format, sheet.size) == ("JPEG", (5 * 176, 3 * 240))


def test_the_same_order_again_gives_the_same_file(tmp_path: Path) -> None:
    """When only the answer was lost, the verified file that is there is the answer."""
    encode(order(tmp_path), frames(12), times=2)
    before = (tmp_path / NAME).stat()
    encode(order(tmp_path), ValueError("never opened"))
    after = (tmp_path / NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert not outputs.marker_path(tmp_path / NAME).exists()


def test_an_encode_whose_job_was_cancelled_makes_no_file(tmp_path: Path) -> None:
    """The cancel did not reach the encoder in time; the name it writes under was given back."""

    async def body() -> None:
        last: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(Encoder().encode(order(tmp_path), given(ref(frames(5)), last)))
        while not any(tmp_path.glob("*.part")):
            await asyncio.sleep(0.01)
        outputs.remove(tmp_path, NAME)
        last.set_result(frames(7))
        await task

    with pytest.raises(EncodingFailed, match="called off"):
        asyncio.run(body())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_two_encoders_with_one_order_make_one_file(tmp_path: Path) -> None:
    """An old and a new replica may both be given the order; both succeed with the same file."""

    async def body() -> list[EncodedVideo]:
        jobs = [Encoder().encode(order(tmp_path), given(ref(frames(12)))) for _ in range(2)]
        return await asyncio.gather(*jobs)

    first, second = asyncio.run(body())
    assert first.size_bytes == second.size_bytes
    assert left_in(tmp_path) == ALL


def test_several_jobs_take_turns_at_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two CPUs one ffmpeg is fed at a time; one that waits for frames holds nobody up."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    write, writing, most = mp4.Mp4Writer.write, 0, 0

    async def watched(self: mp4.Mp4Writer, what: Frames) -> None:
        nonlocal writing, most
        writing += 1
        most = max(most, writing)
        await write(self, what)
        writing -= 1

    monkeypatch.setattr(mp4.Mp4Writer, "write", watched)

    async def body() -> None:
        encoder, waiting = Encoder(), FrameRefs()
        waiting.add(ref(frames(5)))
        slow = asyncio.create_task(encoder.encode(order(tmp_path / "slow"), waiting))
        chunks = [frames(4), frames(4), frames(4)]
        quick = [
            encoder.encode(order(tmp_path / name), given(*map(ref, chunks)))
            for name in ("one", "two")
        ]
        await asyncio.gather(*quick)
        assert not slow.done()
        waiting.add(ref(frames(7)))
        waiting.complete()
        await slow

    asyncio.run(body())
    assert most == 1
    assert left_in(tmp_path / "slow") == ALL


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """A file under the name that is not this video is an error, not overwritten."""
    (tmp_path / NAME).write_bytes(b"precious")
    with pytest.raises(EncodingFailed, match="cannot be read"):
        encode(order(tmp_path), frames(12))
    assert (tmp_path / NAME).read_bytes() == b"precious"


def test_a_left_over_of_a_dead_encoder_is_cleaned(tmp_path: Path) -> None:
    """The second try of an order removes what the first one left."""
    (tmp_path / f"{NAME}.0badcafe.part").write_bytes(b"half")
    encode(order(tmp_path), frames(12))
    assert left_in(tmp_path) == ALL


@pytest.mark.parametrize("error", [ConnectionError("owner died"), LookupError("object lost")])
def test_lost_frames_go_up_unchanged(tmp_path: Path, error: Exception) -> None:
    """Jobs decides by the class of the error whether the model has to run again."""
    with pytest.raises(type(error)) as caught:
        encode(order(tmp_path), frames(5), error)
    assert caught.value is error
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("count", [11, 13])
def test_a_wrong_number_of_frames_is_refused(tmp_path: Path, count: int) -> None:
    """Neither padded nor cut: what was asked, or a message with both numbers."""
    with pytest.raises(EncodingFailed, match=f"frames {count}, not 12"):
        encode(order(tmp_path), frames(count))
    assert left_in(tmp_path) == []


def ffmpegs() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


async def when_writing(folder: Path, act: Callable[[asyncio.Task[Any]], object]) -> None:
    """Encode without end, and `act` on it as soon as something was written."""
    loop = asyncio.get_running_loop()
    last: asyncio.Future[Frames] = loop.create_future()
    reader = Encoder().encode(order(folder), given(ref(frames(120)), last))
    task = asyncio.create_task(reader)
    while not any(path.stat().st_size for path in folder.glob("*.part")):
        await asyncio.sleep(0.01)
    act(task)
    await asyncio.sleep(0.05)
    if not task.done():
        last.set_result(frames(12))
    await task


def test_a_cancelled_encode_leaves_nothing(tmp_path: Path) -> None:
    """When the cancel has gone through, ffmpeg has ended and the partial file is gone."""
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(when_writing(tmp_path, lambda task: task.cancel()))
    assert left_in(tmp_path) == []
    assert ffmpegs() == []


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
def test_a_cancel_at_any_moment_leaves_all_or_nothing(tmp_path: Path, delay_s: float) -> None:
    """Start, write, verify, publish: a cancelled encode has no file, a finished one has its."""
    finished = False

    async def body() -> None:
        nonlocal finished
        task = asyncio.create_task(Encoder().encode(order(tmp_path), given(ref(frames(12)))))
        await asyncio.sleep(delay_s)
        task.cancel()
        await task
        finished = True

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(body())
    assert left_in(tmp_path) == (ALL if finished else [])
    assert ffmpegs() == []


def test_a_killed_ffmpeg_leaves_nothing(tmp_path: Path) -> None:
    """The kernel may kill it for memory: the job fails with a reason and no partial file."""
    with pytest.raises(EncodingFailed, match="ffmpeg ended"):
        asyncio.run(when_writing(tmp_path, lambda _: ffmpegs()[0].kill()))
    assert left_in(tmp_path) == []


def fake_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads that the disk is full and how much is needed, and finds no file."""
    fake_ffmpeg(
        tmp_path, monkeypatch, "echo 'Error: No space left on device' >&2; head -c 1000; exit 228"
    )
    folder = tmp_path / "outputs"
    with pytest.raises(EncodingFailed, match=r"no space left in outputs/ \(needs about \d+ MB\)"):
        encode(order(folder), frames(12))
    assert left_in(folder) == []


def test_a_write_that_fails_midway_leaves_no_part(tmp_path: Path) -> None:
    """The real ffmpeg runs into the end of what it may write, as on a disk that fills: a limit on
    the size of files stands for it, which any user may set."""
    program = f"""
import resource, sys
from pathlib import Path
from tests.test_encoder import encode, frames, order
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    encode(order(Path({str(tmp_path)!r})), frames(12))
except Exception as error:
    print(type(error).__name__, error)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.startswith("EncodingFailed "), ended
    assert left_in(tmp_path) == []


def test_a_silent_ffmpeg_that_writes_nothing_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 0 is not enough: the file is read back."""
    fake_ffmpeg(tmp_path, monkeypatch, "cat > /dev/null")
    folder = tmp_path / "outputs"
    with pytest.raises(EncodingFailed, match="cannot be read"):
        encode(order(folder), frames(12))
    assert left_in(folder) == []


def test_a_missing_ffmpeg_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation gives a sentence, not a traceback."""
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-ffmpeg"))
    folder = tmp_path / "outputs"
    with pytest.raises(EncodingFailed, match="ffmpeg cannot be started: No such file"):
        encode(order(folder), frames(12))
    assert left_in(folder) == []


def test_a_dead_encoder_leaves_an_orphan_that_the_next_start_removes(tmp_path: Path) -> None:
    """After kill -9 ffmpeg ends by itself, nothing stands under the final name, and the part is
    recognised as nobody's."""
    program = f"""
import asyncio, sys, numpy as np
from pathlib import Path
from tests.test_encoder import Encoder, frames, given, order, ref
async def body():
    never = asyncio.get_running_loop().create_future()
    await Encoder().encode(order(Path({str(tmp_path)!r})), given(ref(frames(60)), never))
asyncio.run(body())
"""
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while not any(path.stat().st_size for path in tmp_path.glob("*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        children = psutil.Process(process.pid).children()
        process.kill()
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert len(left_overs.remove_left_overs(tmp_path, held={NAME})) == 1
    assert left_in(tmp_path) == []


def test_the_encoder_knows_no_torch_and_no_ray() -> None:
    """The encoder's process stays small: importing it brings neither."""
    program = (
        "import sys, deployments.encoder\n"
        "sys.exit(', '.join({'torch', 'ray', 'fastapi', 'diffusers'} & sys.modules.keys()) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
