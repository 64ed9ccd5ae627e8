"""What crashes leave in the outputs folder."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from deployments.core import outputs
from deployments.core.left_overs import remove_left_overs
from deployments.core.outputs import reserve

NOW = datetime(2025, 1, 27, 14, 30, 22, tzinfo=UTC)
SERENE = "A serene lake at sunset with mountains in the background"
LAKE = "20250127_143022_serene_lake.mp4"


def test_left_overs_of_a_dead_writer_are_found(tmp_path: Path) -> None:
    """A process that was killed while it wrote leaves an orphan, one that lives does not; files of
    others are never touched."""
    program = (
        "import sys, time; from pathlib import Path\n"
        "from deployments.core.part_file import PartFile\n"
        "part = PartFile(Path(sys.argv[1])).__enter__(); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / LAKE)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        (tmp_path / "holiday.part").write_text("a user's own")
        (tmp_path / "notes.mp4.part").write_text("a user's own")
        (tmp_path / "link.mp4.00000000.part").symlink_to(tmp_path / "notes.mp4.part")
        assert remove_left_overs(tmp_path) == []
        writer.kill()
    assert [name[: len(LAKE)] for name in remove_left_overs(tmp_path)] == [LAKE]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "holiday.part",
        "link.mp4.00000000.part",
        "notes.mp4.part",
    ]


def test_reservations_without_a_job_are_left_overs_after_a_minute(tmp_path: Path) -> None:
    """A crash between reserving and storing the name blocks nothing for long."""
    names = [reserve(tmp_path, SERENE, NOW) for _ in range(3)]
    for name in names[:2]:
        marker = tmp_path / f".{name}.reserved"
        os.utime(marker, (marker.stat().st_atime, marker.stat().st_mtime - 120))
    assert remove_left_overs(tmp_path, held={names[0]}) == [f".{names[1]}.reserved"]


def test_a_missing_folder_has_no_left_overs(tmp_path: Path) -> None:
    """The first start has nothing to clean."""
    assert remove_left_overs(tmp_path / "outputs") == []


def test_pictures_without_a_video_are_left_overs_after_a_minute(tmp_path: Path) -> None:
    """A crash between the pictures and their video; a job that still has the name keeps them."""
    for name in ("made.mp4", "held.mp4", "lost.mp4"):
        poster, _ = outputs.picture_paths(tmp_path / name)
        outputs.write_whole(poster, b"poster")
        os.utime(poster, (poster.stat().st_atime, poster.stat().st_mtime - 120))
    (tmp_path / "made.mp4").write_bytes(b"video")
    assert remove_left_overs(tmp_path, held={"held.mp4"}) == ["lost.webp"]
