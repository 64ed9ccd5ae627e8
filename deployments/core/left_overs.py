"""What crashes leave in the outputs folder, told from what is still in use.

Nothing is touched that is not named as we name things: a file of the user's own stays.
"""

import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from deployments.core import outputs, part_file

# A marker this young may belong to a job that another replica has just begun.
MARKER_GRACE_S = 60.0

_MARKER = re.compile(r"\.(?P<name>.+\.mp4)\.reserved")


def left_overs(folder: Path, held: Collection[str] = ()) -> list[Path]:
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
        if part_file.is_abandoned(path):
            found.append(path)
    return found


def _lost_pictures(folder: Path, held: Collection[str]) -> Iterator[Path]:
    if not (folder / outputs.PREVIEWS).is_dir():
        return
    for path in sorted((folder / outputs.PREVIEWS).iterdir()):
        name = f"{path.name.partition('.')[0]}.mp4"
        kept = name in held or (folder / name).exists()
        if not kept and path.is_file() and _age_s(path) > MARKER_GRACE_S:
            yield path


def remove_left_overs(folder: Path, held: Collection[str] = ()) -> list[str]:
    """Remove what `left_overs` finds and return the names; for the start of the service."""
    removed = []
    for path in left_overs(folder, held):
        path.unlink(missing_ok=True)
        removed.append(path.name)
    return removed


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
