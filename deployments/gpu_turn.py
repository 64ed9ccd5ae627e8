"""Turns at a GPU that several processes share: first come, first served.

Two models that share a card fit on it, but seldom what both of them compute. So whoever works on a
GPU has the turn, and the others wait. A plain file lock would not do: nothing keeps its last owner
from being the next. Here everybody draws a ticket, a file that is locked while its owner lives; the
turn is that of the lowest one. When a process is killed the kernel lets go of its lock, and the
others pass over its ticket.

Processes of other users, in other containers or on other machines take no part. Knows no torch and
no ray.
"""

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from deployments.core.events import Waiting

POLL_S = 0.05
# How soon somebody who waits can be stopped.
TELL_EVERY_S = 1.0


class GpuTurn:
    """One process's place in the queue for one GPU; not for several threads at once.

    Args:
        uuid: the GPU's, as NVML gives it.
    """

    def __init__(self, uuid: str) -> None:
        # A slice of a card is called MIG-GPU-.../1/0 by older drivers.
        self._folder = _parent() / uuid.replace("/", "-")
        self._number = 0
        self._ticket: IO[bytes] | None = None

    def wait(self) -> Iterator[Waiting]:
        """Wait for the turn; it is had, until `give_back`, when the iterator has ended.

        Yields about once a second: closing it there leaves the queue.

        Raises: PermissionError: the folder of the tickets is somebody else's.
        """
        self._draw()
        told_at = time.monotonic()
        try:
            while not self._is_first():
                time.sleep(POLL_S)
                if time.monotonic() - told_at >= TELL_EVERY_S:
                    yield Waiting()
                    told_at = time.monotonic()
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Let the next one have the turn; nothing without one."""
        if self._ticket is not None:
            with self._alone():
                self._path(self._number).unlink(missing_ok=True)
            self._ticket.close()
            self._ticket = None

    def _draw(self) -> None:
        # Each time: what lies there for days without use is tidied away on many systems.
        _make_own(self._folder.parent)
        self._folder.mkdir(exist_ok=True)
        # Drawn and locked in one: a ticket that nobody has locked is a dead one's.
        with self._alone():
            self._number = max(self._numbers(), default=0) + 1
            self._ticket = self._path(self._number).open("xb")
            fcntl.flock(self._ticket, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _is_first(self) -> bool:
        with self._alone():
            before = [number for number in self._numbers() if number < self._number]
            for number in before:
                if _is_locked(self._path(number)):
                    return False
                self._path(number).unlink()
            return True

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the others from the folder, for less than a millisecond."""
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _parent() -> Path:
    return Path(tempfile.gettempdir()) / f"video-service-{os.getuid()}"


def _make_own(folder: Path) -> None:
    """Make sure that the folder is there and this user's: around it lies everybody's."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not a folder of this user; remove it, or set TMPDIR")
