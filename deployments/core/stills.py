"""One frame of an MP4 as a PNG: the first or the last.

The file may come from a stranger: it is only ever read as an MP4, nothing that it names is opened,
and its frames are limited in size. Knows nothing of where files lie.
"""

import asyncio
import tempfile
from pathlib import Path

from deployments.core.errors import EncodingFailed
from deployments.core.ffmpeg import Ffmpeg, FfmpegError, in_thread
from deployments.core.log import logger

STUCK_AFTER_S = 20.0
# A UHD frame, and a little more.
MAX_PIXELS = 4096 * 2304
# Where the last frame is looked for; then, if there is none, in the whole file.
TAIL_S = 2


async def first_frame(path: Path) -> bytes:
    """Return the first frame. Raises: EncodingFailed: it cannot be read."""
    found = await _last_of(path, [], ["-frames:v", "1"])
    if not found:
        raise EncodingFailed("the video has no frame that can be read")
    return found


async def last_frame(path: Path) -> bytes:
    """Return the last frame. Raises: EncodingFailed: it cannot be read."""
    found = await _last_of(path, ["-sseof", f"-{TAIL_S}"], []) or await _last_of(path, [], [])
    if not found:
        raise EncodingFailed("the video has no frame that can be read")
    return found


async def _last_of(path: Path, where: list[str], how_many: list[str]) -> bytes:
    """Return the last of the frames that are read, b"" for none."""
    with tempfile.TemporaryDirectory(prefix="still-") as folder:
        still = Path(folder) / "still.png"
        process = Ffmpeg(
            [
                *("-hide_banner", "-nostdin", "-loglevel", "error", "-threads", "2"),
                # Only this demuxer and only this file: a playlist would name others.
                *("-protocol_whitelist", "file", "-f", "mov", "-max_pixels", str(MAX_PIXELS)),
                *(*where, "-i", f"file:{path}", "-map", "0:v:0", *how_many),
                *("-fps_mode", "passthrough", "-compression_level", "1"),
                *("-update", "1", "-f", "image2", f"file:{still}"),
            ],
            stuck_after_s=STUCK_AFTER_S,
            progress=lambda: still.stat().st_mtime_ns if still.exists() else 0,
        )
        try:
            await in_thread(process, process.finish)
        except FfmpegError as error:
            logger.info("no frame can be read: %s", error)
            return b""
        finally:
            process.kill()
            await asyncio.to_thread(process.close)
        return await asyncio.to_thread(still.read_bytes) if still.exists() else b""
