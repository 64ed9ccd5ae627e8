"""The files of the outputs folder: their names, half-written files, left-overs, and free space.

Four kinds of files are ours:

    20250127_143022_serene_lake.mp4                a finished video: appears whole or not at all
    .previews/20250127_143022_serene_lake.webp     its poster; beside it, as .jpg, a contact sheet
    .20250127_143022_serene_lake.mp4.reserved      empty: the name is taken by a job that runs
    20250127_143022_serene_lake.mp4.1a2b3c4d.part  being written: locked while its writer lives

`reserve` takes a name by creating the marker exclusively, so two jobs never get the same one. The
job keeps its name over retries; `PartFile.publish` refuses to overwrite, then removes the marker.
What a crash leaves is found by `orphans`: a .part whose lock nobody holds (the kernel drops locks
with their process), a marker that no job knows, pictures without a video. The folder has to be on a
local disk of one node.

Knows nothing of what is in the files.
"""

import contextlib
import errno
import fcntl
import glob
import itertools
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Self

from deployments.core.errors import EncodingFailed, InsufficientDisk

MB = 2**20
MAX_WORD = 24
PREVIEWS = ".previews"
# A marker this young may belong to a job that another replica has just begun.
MARKER_GRACE_S = 60.0

_ENGLISH = """
a about above across after against all along am among an and any are around as at be because
been before behind being below beneath beside between beyond both but by can could did do does
down during each either for from had has have having he her here hers him his how i if in inside
into is it its itself just like me more most my near no nor not of off on onto or our out
outside over own per she should so some such than that the their them then there these they this
those through to too toward towards under until up upon us very was we were what when where
which while who whom whose why will with within without would you your
"""
_STOP_WORDS = frozenset(_ENGLISH.split())
# Letters that Unicode does not take apart into a base letter and an accent.
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_APOSTROPHES = re.compile("['\u2019\u02bc]")
_WORD = re.compile(r"[^\W_]+")
_PART = re.compile(r".+\.mp4\.[0-9a-f]{8}\.part")
_MARKER = re.compile(r"\.(?P<name>.+\.mp4)\.reserved")


def reserve(folder: Path, prompt: str, now: datetime) -> str:
    """Take a file name for a video of `prompt` and return it, for example
    `20250127_143022_serene_lake.mp4`; no other call gets the same one.

    Args: now: the time in the name, as its own zone shows it.
    Raises: EncodingFailed: the folder cannot be written.
    """
    stem = "_".join([now.strftime("%Y%m%d_%H%M%S"), *title_words(prompt)])
    with _writing():
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while not _take(
            folder / (name := f"{stem}.mp4" if number == 1 else f"{stem}_{number}.mp4")
        ):
            number += 1
    return name


def _take(final: Path) -> bool:
    """Create the marker of `final` and return True, or False if the name is taken."""
    marker = _marker(final)
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    # Looked at after the marker is ours: a name turns into a file only under its marker.
    if not os.path.lexists(final):
        return True
    marker.unlink()
    return False


def release(folder: Path, name: str) -> None:
    """Give a reserved name back, for a job that ends without a file. No effect otherwise."""
    _marker(folder / name).unlink(missing_ok=True)


def preview_paths(final: Path) -> tuple[Path, Path]:
    """Return where the poster and the contact sheet of the video `final` lie."""
    folder = final.parent / PREVIEWS
    return folder / f"{final.stem}.webp", folder / f"{final.stem}.jpg"


def remove(folder: Path, name: str) -> None:
    """Remove the video `name` and all that belongs to it. No effect where nothing is there."""
    final = folder / name
    for path in (final, *preview_paths(final), _marker(final)):
        path.unlink(missing_ok=True)


def title_words(prompt: str) -> list[str]:
    """Return the words of a file name: the first two of `prompt` that are not stop words, in
    lower-case ASCII with accents folded, or `video` if it has none."""
    folded = _APOSTROPHES.sub("", prompt).lower().translate(_LETTERS)
    folded = unicodedata.normalize("NFKD", folded)
    folded = "".join(c for c in folded if not unicodedata.combining(c))
    words = (
        word[:MAX_WORD]
        for word in _WORD.findall(folded)
        if word.isascii() and word not in _STOP_WORDS
    )
    return list(itertools.islice(words, 2)) or ["video"]


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file that appears whole or not at all, and replaces the one that is there.

    Raises: EncodingFailed: the folder cannot be written.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with _writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


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
        with _writing():
            self._final.parent.mkdir(parents=True, exist_ok=True)
            self._remove_stale()
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX)  # nobody else knows the name yet
        return self

    def _remove_stale(self) -> None:
        name = self._final.name
        for part in self._final.parent.glob(f"{glob.escape(name)}.*.part"):
            if _PART.fullmatch(part.name) and not _has_writer(part):
                part.unlink(missing_ok=True)

    def fileno(self) -> int:
        """The descriptor that holds the lock; valid inside the context."""
        return self._fd

    def publish(self) -> bool:
        """Give the file its final name, durably, and free the reservation.

        Returns: False when there is a file of that name already; it is left alone.
        Raises: EncodingFailed: the folder cannot be written.
        """
        with _writing():
            os.fsync(self._fd)
            if not _rename_exclusively(self.path, self._final):
                return False
            release(self._final.parent, self._final.name)
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


def orphans(folder: Path, held: Collection[str] = ()) -> list[Path]:
    """Return what crashes left: .part files without a living writer, and markers and pictures older
    than a minute, of names not in `held` (those of the jobs that are not done)."""
    if not folder.is_dir():
        return []
    found = list(_lost_pictures(folder, held))
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        marker = _MARKER.fullmatch(path.name)
        if marker is not None and marker["name"] not in held and _age_s(path) > MARKER_GRACE_S:
            found.append(path)
        if _PART.fullmatch(path.name) and not _has_writer(path):
            found.append(path)
    return found


def _lost_pictures(folder: Path, held: Collection[str]) -> Iterator[Path]:
    if not (folder / PREVIEWS).is_dir():
        return
    for path in sorted((folder / PREVIEWS).iterdir()):
        name = f"{path.name.partition('.')[0]}.mp4"
        kept = name in held or (folder / name).exists()
        if not kept and path.is_file() and _age_s(path) > MARKER_GRACE_S:
            yield path


def remove_orphans(folder: Path, held: Collection[str] = ()) -> list[str]:
    """Remove what `orphans` finds and return the names; for the start of the service."""
    removed = []
    for path in orphans(folder, held):
        path.unlink(missing_ok=True)
        removed.append(path.name)
    return removed


def require_free_disk(folder: Path, need_mb: float) -> None:
    """Raise InsufficientDisk when the disk of `folder` has less than `need_mb` MiB free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(there).free / MB
    if free_mb < need_mb:
        raise InsufficientDisk(need_mb, free_mb)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Name a disk that cannot be written to the client, without its path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EncodingFailed("no space left in outputs/") from error
        reason = error.strerror or type(error).__name__
        raise EncodingFailed(f"the outputs folder cannot be written: {reason}") from error


def _marker(final: Path) -> Path:
    return final.with_name(f".{final.name}.reserved")


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


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
