"""Names and left-overs in the outputs folder."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.core import outputs
from deployments.core.errors import EncodingFailed, InsufficientDisk
from deployments.core.outputs import PartFile, release, remove_orphans, reserve, title_words

NOW = datetime(2025, 1, 27, 14, 30, 22, tzinfo=UTC)
SERENE = "A serene lake at sunset with mountains in the background"
LAKE = "20250127_143022_serene_lake.mp4"


def test_the_name_is_the_time_and_two_words(tmp_path: Path) -> None:
    """The example of the API reference, word for word."""
    assert reserve(tmp_path, SERENE, NOW) == LAKE


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("The Café déjà vu", ["cafe", "deja"]),
        ("Straße über Łódź", ["strasse", "uber"]),
        ("don't stop", ["dont", "stop"]),
        ("a of the", ["video"]),
        ("静かな湖の夕日", ["video"]),
        ("🦊🦊🦊", ["video"]),
        ("שלום עולם fox", ["fox"]),
        ("\u202egnp.exe fox", ["gnp", "exe"]),
        ("../../etc/passwd", ["etc", "passwd"]),
        ("..\\..\\windows\x00\n\r\t", ["windows"]),
        ("CON NUL", ["con", "nul"]),
        ("-rf *", ["rf"]),
        ("４K video_of__rain", ["4k", "video"]),
        ("x" * 1000, ["x" * 24]),
        ("", ["video"]),
    ],
)
def test_any_prompt_gives_a_safe_name(tmp_path: Path, prompt: str, words: list[str]) -> None:
    """Only lower-case ASCII letters, digits and underscores follow the time."""
    assert title_words(prompt) == words
    name = reserve(tmp_path, prompt, NOW)
    assert name == f"20250127_143022_{'_'.join(words)}.mp4"
    assert (tmp_path / name).parent == tmp_path


def test_names_never_collide(tmp_path: Path) -> None:
    """Jobs of one second and one prompt get _2, _3 ...; finished files count too."""
    (tmp_path / LAKE).write_bytes(b"a finished video")
    names = [reserve(tmp_path, SERENE, NOW) for _ in range(3)]
    assert names == [LAKE.replace(".mp4", f"_{n}.mp4") for n in (2, 3, 4)]
    assert (tmp_path / LAKE).read_bytes() == b"a finished video"


def test_names_taken_at_once_are_different(tmp_path: Path) -> None:
    """The file system decides, not a look before a leap."""
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda _: reserve(tmp_path, SERENE, NOW), range(40)))
    assert len(set(names)) == 40


def test_a_released_name_is_free_again(tmp_path: Path) -> None:
    """A job that ends without a file leaves nothing, and releasing twice does no harm."""
    name = reserve(tmp_path, SERENE, NOW)
    release(tmp_path, name)
    release(tmp_path, name)
    assert list(tmp_path.iterdir()) == []
    assert reserve(tmp_path, SERENE, NOW) == name


def test_a_published_file_keeps_its_name(tmp_path: Path) -> None:
    """The part and the reservation are gone, the file is there, and its name stays taken."""
    name = reserve(tmp_path, SERENE, NOW)
    with PartFile(tmp_path / name) as part:
        part.path.write_bytes(b"video")
        assert part.publish()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"video"
    assert reserve(tmp_path, SERENE, NOW) != name


def test_publishing_never_overwrites(tmp_path: Path) -> None:
    """A file under the final name is left alone, and the part removed."""
    (tmp_path / LAKE).write_bytes(b"first")
    with PartFile(tmp_path / LAKE) as part:
        assert not part.publish()
    assert [path.name for path in tmp_path.iterdir()] == [LAKE]
    assert (tmp_path / LAKE).read_bytes() == b"first"


def test_a_failure_removes_the_part_and_keeps_the_name(tmp_path: Path) -> None:
    """The reservation lives on, so that a retry gets the same name."""
    name = reserve(tmp_path, SERENE, NOW)
    with pytest.raises(ZeroDivisionError), PartFile(tmp_path / name):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == [f".{name}.reserved"]
    assert reserve(tmp_path, SERENE, NOW) != name


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    """A fresh checkout has no outputs folder."""
    assert reserve(tmp_path / "new" / "outputs", SERENE, NOW) == LAKE


def test_a_folder_that_cannot_be_written_is_an_encoding_failure(tmp_path: Path) -> None:
    """The client reads a reason without a path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EncodingFailed, match="cannot be written: ") as caught:
        reserve(tmp_path / "file", SERENE, NOW)
    assert str(tmp_path) not in str(caught.value)


def test_left_overs_of_a_dead_writer_are_found(tmp_path: Path) -> None:
    """A process that was killed while it wrote leaves an orphan, one that lives does not; files of
    others are never touched."""
    program = (
        "import sys, time; from pathlib import Path; from deployments.core.outputs import PartFile;"
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
        assert remove_orphans(tmp_path) == []
        writer.kill()
    assert [name[: len(LAKE)] for name in remove_orphans(tmp_path)] == [LAKE]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "holiday.part",
        "link.mp4.00000000.part",
        "notes.mp4.part",
    ]


def test_a_new_writer_removes_what_a_dead_one_of_its_name_left(tmp_path: Path) -> None:
    """An encode that is tried again does not collect parts; a living writer's part stays."""
    (tmp_path / f"{LAKE}.0badcafe.part").write_bytes(b"half")
    with PartFile(tmp_path / LAKE) as first, PartFile(tmp_path / LAKE) as second:
        assert sorted(tmp_path.iterdir()) == sorted([first.path, second.path])


def test_reservations_without_a_job_are_orphans_after_a_minute(tmp_path: Path) -> None:
    """A crash between reserving and storing the name blocks nothing for long."""
    names = [reserve(tmp_path, SERENE, NOW) for _ in range(3)]
    for name in names[:2]:
        marker = tmp_path / f".{name}.reserved"
        os.utime(marker, (marker.stat().st_atime, marker.stat().st_mtime - 120))
    assert remove_orphans(tmp_path, held={names[0]}) == [f".{names[1]}.reserved"]


def test_a_missing_folder_has_no_orphans(tmp_path: Path) -> None:
    """The first start has nothing to clean."""
    assert remove_orphans(tmp_path / "outputs") == []


def test_too_full_a_disk_is_refused_before_the_run(tmp_path: Path) -> None:
    """The message holds both figures; a folder that is not there yet counts as its parent."""
    outputs.require_free_disk(tmp_path / "not" / "there", 1)
    with pytest.raises(InsufficientDisk, match=r"needs ~1000000000000MB, but only \d+MB"):
        outputs.require_free_disk(tmp_path / "not" / "there", 1e12)


def test_a_disk_without_hard_links_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT and some network disks refuse links: then the file is renamed, and still not over
    another."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with PartFile(tmp_path / LAKE) as part:
        assert part.publish()
    with PartFile(tmp_path / LAKE) as part:
        assert not part.publish()
    assert [path.name for path in tmp_path.iterdir()] == [LAKE]


def test_a_removed_video_leaves_nothing(tmp_path: Path) -> None:
    """Its pictures and its reservation go with it; a second time does no harm."""
    name = reserve(tmp_path, SERENE, NOW)
    for path in (tmp_path / name, *outputs.preview_paths(tmp_path / name)):
        outputs.write_whole(path, b"bytes")
    (tmp_path / "holiday.mp4").write_bytes(b"a user's own")
    for _ in range(2):
        outputs.remove(tmp_path, name)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["holiday.mp4"]


def test_pictures_without_a_video_are_orphans_after_a_minute(tmp_path: Path) -> None:
    """A crash between the pictures and their video; a job that still has the name keeps them."""
    for name in ("made.mp4", "held.mp4", "lost.mp4"):
        poster, _ = outputs.preview_paths(tmp_path / name)
        outputs.write_whole(poster, b"poster")
        os.utime(poster, (poster.stat().st_atime, poster.stat().st_mtime - 120))
    (tmp_path / "made.mp4").write_bytes(b"video")
    assert remove_orphans(tmp_path, held={"held.mp4"}) == ["lost.webp"]
