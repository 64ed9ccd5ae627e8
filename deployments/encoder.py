"""The encoder: frames of one job in, as its model decodes them; out come a verified MP4 at its
final path, a poster and a contact sheet.

Several jobs may be open at once, as one whose model decodes slowly must not keep another's file
out. They take turns at the work, chunk by chunk, so that no more of it is done at a time than there
are CPUs for; one that waits for its model has an ffmpeg that sleeps.

A plain class that becomes a deployment elsewhere. Never imports torch, and knows of Ray only that a
reference to frames can be awaited.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterable, Awaitable
from pathlib import Path

from deployments import metrics
from deployments.core import mp4, outputs
from deployments.core.clip_pictures import ClipPictures
from deployments.core.errors import EncodingFailed
from deployments.core.events import EncodedVideo, EncodeOrder, Frames
from deployments.core.ffmpeg import STUCK_AFTER_S
from deployments.core.log import following, logger
from deployments.core.mp4_boxes import Mp4Info
from deployments.core.part_file import PartFile

FrameSource = AsyncIterable[Awaitable[Frames]]
"""References in the order of the clip, as they come; each gives uint8 (T, H, W, 3)."""


class Encoder:
    """Makes the files of jobs."""

    def __init__(self, stuck_after_s: float = STUCK_AFTER_S) -> None:
        """Args:
        stuck_after_s: ffmpeg is killed when it makes no progress for so long.
        """
        self._stuck_after_s = stuck_after_s
        cpus = len(os.sched_getaffinity(0))
        self._turns = asyncio.Semaphore(max(1, cpus // mp4.THREADS))

    async def encode(self, order: EncodeOrder, source: FrameSource) -> EncodedVideo:
        """Write the frames of `source` to `order.path`, verify the file and return its facts.

        The file appears at its path complete or not at all, and its pictures before it; a failure,
        a cancel or a crash leaves nothing behind for longer than until the next start. The same
        order again is safe: when its verified file is already there, because only the answer was
        lost, it is returned.

        Args: source: read to its end; its frames have the source size.
        Raises:
            EncodingFailed: the file could not be made.
            Exception: whatever the source or a reference raises goes up unchanged, so that jobs can
                tell frames lost with their model from a failed encode.
        """
        began = time.monotonic()
        final = Path(order.path)
        with following(order.job_id):
            if await asyncio.to_thread(os.path.lexists, final):
                info = await self._verify(order, final)
                await asyncio.to_thread(outputs.release, final.parent, final.name)
            else:
                info = await self._make(order, final, source)
            elapsed_s = time.monotonic() - began
            told = "%s, %d bytes, ready %.1f s after its first frames came"
            logger.info(told, final.name, info.size_bytes, elapsed_s)
        metrics.FRAMES_ENCODED.add(order.num_frames)
        return EncodedVideo(path=order.path, size_bytes=info.size_bytes, elapsed_s=elapsed_s)

    async def _make(self, order: EncodeOrder, final: Path, source: FrameSource) -> Mp4Info:
        settings = mp4.Mp4Settings(
            source_width=order.source_width,
            source_height=order.source_height,
            width=order.width,
            height=order.height,
            fps=order.fps,
            crf=order.crf,
            preset=order.preset,
            comment=order.comment,
        )
        pictures = ClipPictures(order.width, order.height, order.num_frames)
        # Entering and leaving take a few system calls, too short to need a thread.
        with PartFile(final) as part:
            # ffmpeg inherits the lock: the file counts as written to until both of us are gone.
            async with mp4.Mp4Writer(
                part.path, settings, stuck_after_s=self._stuck_after_s, pass_fds=(part.fileno(),)
            ) as writer:
                async for ref in source:
                    frames = await ref
                    async with self._turns:
                        await writer.write(frames)
                        await asyncio.to_thread(pictures.look, frames)
                async with self._turns:
                    await writer.finish()
            info = await self._verify(order, part.path)
            if not await _publish(part, final, pictures):
                # Another replica was given the same order and was faster.
                info = await self._verify(order, final)
        return info

    async def _verify(self, order: EncodeOrder, path: Path) -> Mp4Info:
        async with self._turns:
            return await mp4.verify(
                path,
                width=order.width,
                height=order.height,
                num_frames=order.num_frames,
                fps=order.fps,
                comment=order.comment,
                stuck_after_s=self._stuck_after_s,
            )


async def _publish(part: PartFile, final: Path, pictures: ClipPictures) -> bool:
    """Publish in a thread. A cancelled job has no file: a cancel that comes meanwhile undoes it."""
    publishing = asyncio.ensure_future(asyncio.to_thread(_write_all, part, final, pictures))
    try:
        return await asyncio.shield(publishing)
    except asyncio.CancelledError:
        await asyncio.wait([publishing])
        if publishing.exception() is None and publishing.result():
            await asyncio.to_thread(outputs.remove, final.parent, final.name)
        raise


def _write_all(part: PartFile, final: Path, pictures: ClipPictures) -> bool:
    """The pictures first: where the video is, they are."""
    poster, sheet = outputs.picture_paths(final)
    outputs.write_whole(poster, pictures.poster())
    outputs.write_whole(sheet, pictures.sheet())
    try:
        return part.publish()
    except EncodingFailed:
        # Without the marker: it is what a retry publishes under, or gone already.
        for picture in (poster, sheet):
            picture.unlink(missing_ok=True)
        raise
