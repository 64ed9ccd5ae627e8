"""A video on its way to its final name."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.core import outputs
from deployments.core.errors import EncodingFailed
from deployments.core.outputs import reserve
from deployments.core.part_file import PartFile

NOW = datetime(2025, 1, 27, 14, 30, 22, tzinfo=UTC)
SERENE = "A serene lake at sunset with mountains in the background"
LAKE = "20250127_143022_serene_lake.mp4"


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


def test_a_new_writer_removes_what_a_dead_one_of_its_name_left(tmp_path: Path) -> None:
    """An encode that is tried again does not collect parts; a living writer's part stays."""
    (tmp_path / f"{LAKE}.0badcafe.part").write_bytes(b"half")
    with PartFile(tmp_path / LAKE) as first, PartFile(tmp_path / LAKE) as second:
        assert sorted(tmp_path.iterdir()) == sorted([first.path, second.path])


def test_a_disk_without_hard_links_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT and some network disks refuse links: then the file is renamed, and still not over
    another."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    outputs.hold(tmp_path, LAKE)
    with PartFile(tmp_path / LAKE) as part:
        assert part.publish()
    with PartFile(tmp_path / LAKE) as part:
        assert not part.publish()
    assert [path.name for path in tmp_path.iterdir()] == [LAKE]


def test_a_video_that_was_called_off_is_not_published(tmp_path: Path) -> None:
    """Its job was cancelled while the last frames were written: no file appears behind it."""
    name = reserve(tmp_path, SERENE, NOW)
    with PartFile(tmp_path / name) as part:
        outputs.remove(tmp_path, name)
        with pytest.raises(EncodingFailed, match="called off"):
            part.publish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["before the marker", "after the marker"])
def test_calling_off_and_publishing_at_once_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whichever comes first: the file that just got its name is removed by one of the two."""
    name = reserve(tmp_path, SERENE, NOW)
    link = os.link

    def link_and_be_called_off(source: Path, target: Path) -> None:
        link(source, target)
        if moment == "before the marker":
            outputs.remove(tmp_path, name)
        else:  # the other one has removed the marker already, and not yet looked for the file
            outputs.release(tmp_path, name)

    monkeypatch.setattr(os, "link", link_and_be_called_off)
    with PartFile(tmp_path / name) as part, pytest.raises(EncodingFailed):
        part.publish()
    assert list(tmp_path.iterdir()) == []
