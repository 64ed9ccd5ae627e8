"""Names in the outputs folder, and who holds them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.core import outputs
from deployments.core.errors import EncodingFailed, InsufficientDisk
from deployments.core.outputs import release, reserve

NOW = datetime(2025, 1, 27, 14, 30, 22, tzinfo=UTC)
SERENE = "A serene lake at sunset with mountains in the background"
LAKE = "20250127_143022_serene_lake.mp4"


def test_the_name_is_the_time_and_two_words(tmp_path: Path) -> None:
    """The example of the API reference, word for word."""
    assert reserve(tmp_path, SERENE, NOW) == LAKE


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


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    """A fresh checkout has no outputs folder."""
    assert reserve(tmp_path / "new" / "outputs", SERENE, NOW) == LAKE


def test_a_folder_that_cannot_be_written_is_an_encoding_failure(tmp_path: Path) -> None:
    """The client reads a reason without a path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EncodingFailed, match="cannot be written: ") as caught:
        reserve(tmp_path / "file", SERENE, NOW)
    assert str(tmp_path) not in str(caught.value)


def test_too_full_a_disk_is_refused_before_the_run(tmp_path: Path) -> None:
    """The message holds both figures; a folder that is not there yet counts as its parent."""
    outputs.require_free_disk(tmp_path / "not" / "there", 1)
    with pytest.raises(InsufficientDisk, match=r"needs ~1000000000000MB, but only \d+MB"):
        outputs.require_free_disk(tmp_path / "not" / "there", 1e12)


def test_a_removed_video_leaves_nothing(tmp_path: Path) -> None:
    """Its pictures and its reservation go with it; a second time does no harm."""
    name = reserve(tmp_path, SERENE, NOW)
    for path in (tmp_path / name, *outputs.picture_paths(tmp_path / name)):
        outputs.write_whole(path, b"bytes")
    (tmp_path / "holiday.mp4").write_bytes(b"a user's own")
    for _ in range(2):
        outputs.remove(tmp_path, name)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["holiday.mp4"]
