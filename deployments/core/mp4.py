"""H.264 MP4 files: write frames through an ffmpeg pipe, read a file's boxes, verify the result.

Knows no ray, no fastapi and no torch. It writes to the path it is given; that a half-written file
is never seen under its final name is the work of `part_file`.
"""

import asyncio
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

from deployments.core.errors import EncodingFailed
from deployments.core.events import Frames
from deployments.core.ffmpeg import STUCK_AFTER_S, Ffmpeg, FfmpegError, ffmpeg_path, in_thread
from deployments.core.log import logger
from deployments.core.mp4_boxes import Mp4Info, NotAnMp4, probe

# Callers find all about MP4 files here.
__all__ = [
    "Mp4Info",
    "Mp4Settings",
    "Mp4Writer",
    "NotAnMp4",
    "encode_arguments",
    "estimate_size_bytes",
    "ffmpeg_path",
    "geometry_filter",
    "no_space_left",
    "probe",
    "verify",
]

# What libx264 needed at crf 18 for detailed footage, rounded up; only for messages and estimates.
BYTES_PER_PIXEL = 0.15
BT709 = (1, 1, 1)
# Of one ffmpeg. Not as many as there are CPUs: x264's result depends on the number.
THREADS = 2

_SCALE_FLAGS = "flags=lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"
# setparams has to be last: ffmpeg 9 drops -color_primaries and -color_trc given as output options,
# and without all four tags players guess the matrix from the size.
_TO_BT709 = (
    f"scale=out_color_matrix=bt709:out_range=tv:{_SCALE_FLAGS},format=yuv420p,"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)


@dataclass(frozen=True)
class Mp4Settings:
    """How frames of the source size become a file. Sides in pixels; `comment` None writes none."""

    source_width: int
    source_height: int
    width: int
    height: int
    fps: int
    crf: int = 18
    preset: str = "medium"
    comment: str | None = None


def estimate_size_bytes(width: int, height: int, num_frames: int) -> int:
    """Return about how large a file of detailed frames becomes at crf 18."""
    return math.ceil(width * height * num_frames * BYTES_PER_PIXEL)


def geometry_filter(source_width: int, source_height: int, width: int, height: int) -> str:
    """Return the ffmpeg filters that bring source frames to width x height, "" if they are.

    A source that covers the asked size is cropped around its centre; a smaller one is first scaled
    up with Lanczos, aspect kept, until it covers.
    """
    filters = []
    if source_width < width or source_height < height:
        factor = max(Fraction(width, source_width), Fraction(height, source_height))
        source_width = max(width, round(source_width * factor))
        source_height = max(height, round(source_height * factor))
        filters.append(f"scale={source_width}:{source_height}:{_SCALE_FLAGS}")
    if (source_width, source_height) != (width, height):
        filters.append(f"crop={width}:{height}")
    return ",".join(filters)


class Mp4Writer:
    """Writes one MP4, chunk by chunk; an async context.

    Leaving the context before `finish` returned stops ffmpeg. The file at `path` is the caller's to
    remove then. When a call is cancelled, ffmpeg is killed before the cancellation goes on.

        async with Mp4Writer(part, settings) as writer:
            await writer.write(frames)
            await writer.finish()
    """

    def __init__(
        self,
        path: Path,
        settings: Mp4Settings,
        *,
        stuck_after_s: float = STUCK_AFTER_S,
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        """Args:
        path: where the file is written; replaced if it is there.
        stuck_after_s: ffmpeg is killed when it takes no frame and writes nothing for so long.
        pass_fds: descriptors ffmpeg keeps open while it lives, for a lock on the file.
        """
        self._path, self._settings = path, settings
        self._stuck_after_s, self._pass_fds = stuck_after_s, pass_fds
        self._process: Ffmpeg | None = None
        self.num_frames = 0

    async def __aenter__(self) -> Self:
        # On the loop: starting a process takes about a millisecond, and one that starts in a
        # thread while its caller is cancelled would be nobody's.
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.abort()

    async def write(self, frames: Frames) -> None:
        """Encode the next frames.

        Args: frames: uint8 (T, H, W, 3), RGB, at the source size; any T.
        Raises: EncodingFailed: they are something else, or ffmpeg died or is stuck.
        """
        settings, process = self._settings, self._running()
        wanted = (settings.source_height, settings.source_width, 3)
        if frames.ndim != 4 or frames.shape[1:] != wanted or frames.dtype != "uint8":
            raise EncodingFailed(
                f"frames are {frames.dtype} {frames.shape}, expected uint8 (T, {wanted[0]}, "
                f"{wanted[1]}, 3)"
            )
        await self._explained(process, _write, process, frames)
        self.num_frames += len(frames)

    async def finish(self) -> None:
        """Wait until the file is complete on its path.

        Raises: EncodingFailed: ffmpeg died, is stuck or complained.
        """
        if self.num_frames == 0:
            raise EncodingFailed("there are no frames to encode")
        process = self._running()
        await self._explained(process, process.finish)
        await self.abort()  # it has ended; this closes its pipes

    async def abort(self) -> None:
        """Stop ffmpeg, if it runs."""
        if (process := self._process) is not None:
            self._process = None
            process.kill()
            await asyncio.to_thread(process.close)

    def _running(self) -> Ffmpeg:
        if self._process is None:
            raise EncodingFailed("the writer is not open")
        return self._process

    def _start(self) -> None:
        # The comment goes through a file: arguments end at 128 KiB and all users see them in `ps`.
        with tempfile.TemporaryFile() as metadata:
            metadata.write(b"comment=" + (self._settings.comment or "").encode())
            metadata.seek(0)
            self._process = Ffmpeg(
                encode_arguments(self._path, self._settings, f"/dev/fd/{metadata.fileno()}"),
                stuck_after_s=self._stuck_after_s,
                pass_fds=(metadata.fileno(), *self._pass_fds),
                progress=lambda: _size(self._path),
            )

    async def _explained(self, process: Ffmpeg, step: Callable[..., object], *args: object) -> None:
        """Run a step; only of one that nobody cancelled is it an error that ffmpeg ended."""
        try:
            await in_thread(process, step, *args)
        except FfmpegError as error:
            settings = self._settings
            raise _explain(error, settings.width, settings.height, self.num_frames) from error


def _write(process: Ffmpeg, frames: Frames) -> None:
    for frame in frames:
        process.write(memoryview(frame if frame.flags.c_contiguous else frame.copy()))


def encode_arguments(path: Path, settings: Mp4Settings, metadata: str) -> list[str]:
    """Return ffmpeg's arguments: raw RGB frames on stdin to an MP4.

    Args: metadata: path of a file with `comment=...`, read as it is (`-/option FILE`, ffmpeg 7).
    """
    size = (settings.source_width, settings.source_height)
    geometry = geometry_filter(*size, settings.width, settings.height)
    return [
        *("-hide_banner", "-nostdin", "-y", "-loglevel", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}"),
        *("-framerate", str(settings.fps), "-i", "-"),
        *("-map_metadata", "-1"),
        *(() if settings.comment is None else ("-/metadata", metadata)),
        *("-vf", f"{geometry},{_TO_BT709}" if geometry else _TO_BT709),
        *("-c:v", "libx264", "-profile:v", "high", "-pix_fmt", "yuv420p"),
        *("-preset", settings.preset, "-crf", str(settings.crf)),
        # A picture to jump to every 48 frames makes scrubbing quick; 2 to 6 % larger than without.
        *("-g", "48"),
        # Same frames, same bytes: x264 writes its number of threads into an SEI, which the filter
        # removes (H.264 SEI is unit type 6).
        *("-threads", str(THREADS), "-fflags", "+bitexact", "-flags:v", "+bitexact"),
        *("-bsf:v", "filter_units=remove_types=6"),
        *("-movflags", "+faststart", "-f", "mp4", f"file:{path}"),
    ]


async def verify(
    path: Path,
    *,
    width: int,
    height: int,
    num_frames: int,
    fps: int,
    comment: str | None = None,
    stuck_after_s: float = STUCK_AFTER_S,
) -> Mp4Info:
    """Decode the whole file and compare it, and its boxes, with what was asked.

    Raises: EncodingFailed: names the first thing that differs.
    """
    try:
        info = await asyncio.to_thread(probe, path)
    except (NotAnMp4, OSError) as error:
        raise EncodingFailed(f"the encoded file cannot be read: {error}") from error
    wanted = {
        "size": (width, height),
        "frames": num_frames,
        "fps": Fraction(fps),
        "colour tags": BT709,
        "full range": False,
        "moov first": True,
        "comment": comment,
    }
    found = {
        "size": (info.width, info.height),
        "frames": info.num_frames,
        "fps": info.fps,
        "colour tags": info.colour,
        "full range": info.full_range,
        "moov first": info.moov_first,
        "comment": info.comment,
    }
    for name, value in wanted.items():
        if found[name] != value:
            what = "the recipe" if name == "comment" else f"{name} {found[name]}, not {value}"
            raise EncodingFailed(f"the encoded file differs from what was asked: {what}")
    decoded = await _count_decoded(path, width, height, num_frames, stuck_after_s)
    if decoded != num_frames:
        raise EncodingFailed(
            f"the encoded file differs from what was asked: {decoded} frames decode, not "
            f"{num_frames}"
        )
    return info


async def _count_decoded(
    path: Path, width: int, height: int, num_frames: int, stuck_after_s: float
) -> int:
    process = Ffmpeg(
        [
            *("-hide_banner", "-nostdin", "-loglevel", "error", "-xerror"),
            *("-threads", str(THREADS)),
            *("-i", f"file:{path}", "-map", "0:v", "-fps_mode", "passthrough"),
            # One line a frame, written at once: the lines also show that it is not stuck.
            *("-flush_packets", "1", "-f", "framecrc", "-"),
        ],
        stuck_after_s=stuck_after_s,
    )
    try:
        lines = (await in_thread(process, process.finish)).splitlines()
    except FfmpegError as error:
        raise _explain(error, width, height, num_frames) from error
    finally:
        process.kill()
        await asyncio.to_thread(process.close)
    if process.log:
        logger.error("ffmpeg could not decode %s: %s", path.name, process.log)
        raise EncodingFailed("the encoded file does not decode without errors")
    return sum(not line.startswith(b"#") for line in lines)


def _explain(error: FfmpegError, width: int, height: int, num_frames: int) -> EncodingFailed:
    """Turn what ffmpeg said into a message for the client, without paths, and log it all."""
    logger.error("%s", error)
    if "No space left on device" in error.log:
        return no_space_left(estimate_size_bytes(width, height, num_frames))
    return EncodingFailed(error.reason)


def no_space_left(need_bytes: int) -> EncodingFailed:
    """Return the error for a full disk."""
    need_mb = max(1, math.ceil(need_bytes / 2**20))
    return EncodingFailed(f"no space left in outputs/ (needs about {need_mb} MB)")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
