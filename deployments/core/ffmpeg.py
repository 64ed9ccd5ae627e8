"""A running ffmpeg and its three pipes: fed, watched for progress, killed when stuck or unwanted.

Knows nothing of what ffmpeg is asked to do.
"""

import asyncio
import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

import imageio_ffmpeg

from deployments.core.errors import EncodingFailed

STUCK_AFTER_S = 120.0
STDERR_KEPT_BYTES = 8192
WRITE_BYTES = 1 << 20

T = TypeVar("T")


def ffmpeg_path() -> str:
    """Return the ffmpeg in use: imageio-ffmpeg's own, or the one IMAGEIO_FFMPEG_EXE names.

    Raises: EncodingFailed: there is none.
    """
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise EncodingFailed("ffmpeg is missing; imageio-ffmpeg brings it") from error


class FfmpegError(Exception):
    """ffmpeg ended badly. `log` is the end of what it said, for our log and not for clients."""

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(reason, log)
        self.reason, self.log = reason, log

    def __str__(self) -> str:
        return f"{self.reason}: {self.log}" if self.log else self.reason


class Ffmpeg:
    """A running ffmpeg with its three pipes. Every method blocks, except `kill`, which may be
    called from another thread and makes the others return."""

    def __init__(
        self,
        arguments: list[str],
        *,
        stuck_after_s: float,
        pass_fds: tuple[int, ...] = (),
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        try:
            self._child = subprocess.Popen(
                [ffmpeg_path(), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=pass_fds,
                bufsize=0,
            )
        except OSError as error:
            raise EncodingFailed(f"ffmpeg cannot be started: {error.strerror}") from error
        self._stuck_after_s, self._progress = stuck_after_s, progress
        self._stdout, self._stderr = bytearray(), bytearray()
        self._stdin = _pipe(self._child.stdin)
        self._selector = selectors.DefaultSelector()
        for stream, kept in (
            (self._child.stdout, self._stdout),
            (self._child.stderr, self._stderr),
        ):
            self._selector.register(_pipe(stream), selectors.EVENT_READ, kept)
        os.set_blocking(self._stdin.fileno(), False)

    def write(self, data: memoryview) -> None:
        """Feed all of `data` to stdin. Raises: FfmpegError."""
        left = data.cast("B")
        self._selector.register(self._stdin, selectors.EVENT_WRITE)
        try:
            while left:
                if self._read_and_wait(self._stuck_after_s):
                    left = left[os.write(self._stdin.fileno(), left[:WRITE_BYTES]) :]
        except (BrokenPipeError, ConnectionResetError):
            raise self._failure("ffmpeg ended before it had all frames") from None
        finally:
            self._selector.unregister(self._stdin)

    def finish(self) -> bytes:
        """Close stdin, wait for the end and return stdout. Raises: FfmpegError."""
        self._stdin.close()
        while self._selector.get_map():
            self._read_and_wait(self._stuck_after_s)
        self._child.wait()
        if self._child.returncode != 0:
            raise self._failure(f"ffmpeg ended with status {self._child.returncode}")
        return bytes(self._stdout)

    @property
    def log(self) -> str:
        """The end of what ffmpeg said on stderr."""
        return bytes(self._stderr[-STDERR_KEPT_BYTES:]).decode(errors="replace").strip()

    def kill(self) -> None:
        """Stop ffmpeg at once."""
        self._child.kill()

    def close(self) -> None:
        """Wait for the end and close the pipes."""
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            _pipe(stream).close()
        self._selector.close()

    def _read_and_wait(self, timeout_s: float) -> bool:
        """Wait until something moves and read what came; True when stdin takes more.

        What `progress` returns counts as movement when it changes: at the end of a clip ffmpeg
        writes for a while without reading or saying anything.
        """
        deadline, seen = time.monotonic() + timeout_s, self._progress()
        while not (events := self._selector.select(min(timeout_s, 1.0))):
            if (now := self._progress()) != seen:
                deadline, seen = time.monotonic() + timeout_s, now
            if time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"ffmpeg made no progress for {timeout_s:.0f} s")
        writable = False
        for key, _ in events:
            if key.fileobj is self._stdin:
                writable = True
            elif data := os.read(key.fd, 65536):
                key.data.extend(data)
                del self._stderr[:-STDERR_KEPT_BYTES]
            else:
                self._selector.unregister(key.fileobj)
        return writable

    def _failure(self, reason: str) -> FfmpegError:
        """Collect ffmpeg's last words; it has ended, or is about to."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=1)
        self._child.kill()
        self._child.wait()
        stderr = _pipe(self._child.stderr)
        os.set_blocking(stderr.fileno(), False)
        self._stderr.extend(stderr.read() or b"")
        if self._child.returncode < 0:
            reason = f"{reason} (signal {-self._child.returncode})"
        return FfmpegError(reason, self.log)


async def in_thread(process: Ffmpeg, step: Callable[..., T], *args: Any) -> T:
    """Run a blocking step of `process` in a thread. When cancelled, the process is killed and the
    step ends before the cancellation goes on, so that nothing writes behind the caller's back."""
    running = asyncio.ensure_future(asyncio.to_thread(step, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        process.kill()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # it says that ffmpeg was killed, which we know
        raise


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the process was started without this pipe")
    return stream
