"""The files of the outputs folder: their names, who holds a name, and free space.

Four kinds of files are ours:

    20250127_143022_serene_lake.mp4                a finished video: appears whole or not at all
    .previews/20250127_143022_serene_lake.webp     its poster; beside it, as .jpg, a contact sheet
    .20250127_143022_serene_lake.mp4.reserved      empty: the name is taken by a job that runs
    20250127_143022_serene_lake.mp4.1a2b3c4d.part  being written: locked while its writer lives

`reserve` takes a name by creating the marker exclusively, so two jobs never get the same one. The
job keeps its name over retries; `part_file` refuses to overwrite, and a file stays under its final
name only if the marker was still there to be removed: whoever takes the marker away before, as the
end of a cancelled job does, has called the video off. What a crash leaves is found by `left_overs`:
a .part whose lock nobody holds (the kernel drops locks with their process), a marker that no job
knows, pictures without a video. The folder has to be on a local disk of one node.

Knows nothing of what is in the files.
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from deployments.core.errors import EncodingFailed, InsufficientDisk
from deployments.core.titles import title_words

MB = 2**20
PREVIEWS = ".previews"


def reserve(folder: Path, prompt: str, now: datetime) -> str:
    """Take a file name for a video of `prompt` and return it, for example
    `20250127_143022_serene_lake.mp4`; no other call gets the same one.

    Args: now: the time in the name, as its own zone shows it.
    Raises: EncodingFailed: the folder cannot be written.
    """
    stem = "_".join([now.strftime("%Y%m%d_%H%M%S"), *title_words(prompt)])
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while not _take(
            folder / (name := f"{stem}.mp4" if number == 1 else f"{stem}_{number}.mp4")
        ):
            number += 1
    return name


def _take(final: Path) -> bool:
    """Create the marker of `final` and return True, or False if the name is taken."""
    marker = marker_path(final)
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    # Looked at after the marker is ours: a name turns into a file only under its marker.
    if not os.path.lexists(final):
        return True
    marker.unlink()
    return False


def hold(folder: Path, name: str) -> None:
    """Mark a name as taken that the caller's job has already, before its file is written again.

    Raises: EncodingFailed: the folder cannot be written.
    """
    with writing():
        folder.mkdir(parents=True, exist_ok=True)
        marker_path(folder / name).touch()


def release(folder: Path, name: str) -> None:
    """Give a name back whose marker is not needed any more. No effect without one."""
    marker_path(folder / name).unlink(missing_ok=True)


def picture_paths(final: Path) -> tuple[Path, Path]:
    """Return where the poster and the contact sheet of the video `final` lie."""
    folder = final.parent / PREVIEWS
    return folder / f"{final.stem}.webp", folder / f"{final.stem}.jpg"


def remove(folder: Path, name: str) -> None:
    """Remove the video `name` and all that belongs to it. No effect where nothing is there.

    The marker goes first: an encoder that is about to publish under the name finds it gone.
    """
    final = folder / name
    for path in (marker_path(final), final, *picture_paths(final)):
        path.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file that appears whole or not at all, and replaces the one that is there.

    Raises: EncodingFailed: the folder cannot be written.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def require_free_disk(folder: Path, need_mb: float) -> None:
    """Raise InsufficientDisk when the disk of `folder` has less than `need_mb` MiB free."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(there).free / MB
    if free_mb < need_mb:
        raise InsufficientDisk(need_mb, free_mb)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Name a disk that cannot be written to the client, without its path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EncodingFailed("no space left in outputs/") from error
        reason = error.strerror or type(error).__name__
        raise EncodingFailed(f"the outputs folder cannot be written: {reason}") from error


def marker_path(final: Path) -> Path:
    """Return the empty file that holds the name of the video `final`."""
    return final.with_name(f".{final.name}.reserved")
