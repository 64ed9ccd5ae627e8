"""The first and the last frame of a file, by the real ffmpeg."""

import asyncio
import io
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest
from PIL import Image

from deployments.core import stills
from deployments.core.errors import EncodingFailed

FFMPEG = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error"]


def clip(folder: Path, frames: int, fps: int) -> Path:
    path = folder / "clip.mp4"
    source = ["-f", "lavfi", "-i", f"testsrc=size=64x48:rate={fps}", "-frames:v", str(frames)]
    subprocess.run([*FFMPEG, *source, "-pix_fmt", "yuv420p", path], check=True)
    return path


def decoded(path: Path) -> list[bytes]:
    command = [*FFMPEG, "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return [raw[at : at + 64 * 48 * 3] for at in range(0, len(raw), 64 * 48 * 3)]


def pixels(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as opened:
        assert (opened.format, opened.mode) == ("PNG", "RGB")
        return opened.tobytes()


@pytest.mark.parametrize(("frames", "fps"), [(1, 24), (8, 1), (8, 24), (96, 24)])
def test_the_first_and_the_last_frame_are_those_of_the_file(
    tmp_path: Path, frames: int, fps: int
) -> None:
    """To the pixel, in clips that are shorter and longer than the tail that is looked at."""
    path = clip(tmp_path, frames, fps)
    all_frames = decoded(path)
    assert len(all_frames) == frames
    assert pixels(asyncio.run(stills.first_frame(path))) == all_frames[0]
    assert pixels(asyncio.run(stills.last_frame(path))) == all_frames[-1]


@pytest.mark.parametrize(
    "data", [b"", b"#EXTM3U\nfile:///etc/hostname\n", b"\0\0\0\x18ftypisom" + b"x" * 500]
)
def test_a_file_that_is_no_video_is_told(tmp_path: Path, data: bytes) -> None:
    """Among them a playlist, which would have ffmpeg open what it names."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    for still in (stills.first_frame, stills.last_frame):
        with pytest.raises(EncodingFailed, match="no frame that can be read"):
            asyncio.run(still(path))
