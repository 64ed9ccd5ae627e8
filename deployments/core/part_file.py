"""A video on its way to its final name: whole or not at all.

Knows nothing of what is in the file.
"""

import contextlib
import errno
import fcntl
import glob
import os
import re
import secrets
from pathlib import Path
from typing import Self

from deployments.core import outputs
from deployments.core.errors import EncodingFailed

_PART = re.compile(r".+\.mp4\.[0-9a-f]{8}\.part")


class PartFile:
    """A file on its way to `final`, a context: leaving it before `publish` removes the file.

    The lock on it is held by this process and by every child that inherits `fileno`.
    """

    def __init__(self, final: Path) -> None:
        self._final = final
        self.path = final.with_name(f"{final.name}.{secrets.token_hex(4)}.part")
        self._fd = -1

    def __enter__(self) -> Self:
        """Create the file, after removing what dead writers of the same name left.

        Raises: EncodingFailed: the folder cannot be written.
        """
        with outputs.writing():
            self._final.parent.mkdir(parents=True, exist_ok=True)
            self._remove_stale()
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX)  # nobody else knows the name yet
        return self

    def _remove_stale(self) -> None:
        name = self._final.name
        for part in self._final.parent.glob(f"{glob.escape(name)}.*.part"):
            if is_abandoned(part):
                part.unlink(missing_ok=True)

    def fileno(self) -> int:
        """The descriptor that holds the lock; valid inside the context."""
        return self._fd

    def publish(self) -> bool:
        """Give the file its final name, durably, and free the reservation.

        Returns: False when there is a file of that name already; it is left alone.
        Raises: EncodingFailed: the name was given back meanwhile, as when its job was cancelled, or
            the folder cannot be written.
        """
        with outputs.writing():
            os.fsync(self._fd)
            if not _rename_exclusively(self.path, self._final):
                return False
            try:
                # Asked after the name is taken: whoever calls the video off removes the marker
                # first and the file second, so one of the two of us removes the file.
                outputs.marker_path(self._final).unlink()
            except FileNotFoundError:
                self._final.unlink(missing_ok=True)
                raise EncodingFailed("the video was called off while it was written") from None
            _sync_folder(self._final.parent)
        return True

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _rename_exclusively(source: Path, target: Path) -> bool:
    """Rename and return True, or return False where os.rename would overwrite."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        # A disk without hard links. The reservation alone keeps others away from the name.
        if os.path.lexists(target):
            return False
        source.rename(target)
    else:
        source.unlink(missing_ok=True)
    return True


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems do not sync folders
            os.fsync(fd)
    finally:
        os.close(fd)


def is_abandoned(path: Path) -> bool:
    """Whether `path` is a half-written video whose writer is dead."""
    return _PART.fullmatch(path.name) is not None and not _has_writer(path)


def _has_writer(part: Path) -> bool:
    """Whether a living process holds the lock of the file."""
    try:
        fd = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True  # gone, or not ours to touch
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(fd)
