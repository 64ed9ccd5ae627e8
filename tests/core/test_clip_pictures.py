"""The poster and the contact sheet of a clip."""

import io

import numpy as np
import pytest
from PIL import Image

from deployments.core.clip_pictures import ClipPictures
from deployments.core.events import Frames


def clip(count: int, height: int = 96, width: int = 64) -> Frames:
    """Flat frames; frame k is k + 1 times ten in red."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 0] = (10 * np.arange(1, count + 1))[:, None, None] % 256
    return frames


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_the_poster_is_the_first_frame_at_the_size_of_the_video() -> None:
    """A player that shows it does not jump when the video starts."""
    pictures = ClipPictures(56, 88, 8)
    for chunk in np.array_split(clip(8), 3):
        pictures.look(chunk)
    poster = opened(pictures.poster())
    assert poster.size == (56, 88)
    assert abs(poster.getpixel((20, 20))[0] - 10) < 6


@pytest.mark.parametrize(
    ("frames", "columns", "rows"), [(3, 3, 1), (8, 5, 2), (25, 5, 5), (240, 5, 5)]
)
def test_the_sheet_shows_up_to_25_frames(frames: int, columns: int, rows: int) -> None:
    """Five in a row, each with a longer side of 240 pixels."""
    pictures = ClipPictures(64, 96, frames)
    pictures.look(clip(frames))
    assert opened(pictures.sheet()).size == (columns * 160, rows * 240)


def test_the_frames_of_the_sheet_stand_at_equal_distances_in_order() -> None:
    """Of fifty every second one, from the first on."""
    pictures = ClipPictures(64, 96, 50)
    frames = clip(50)
    frames[..., 0] = (5 * np.arange(50))[:, None, None]
    pictures.look(frames)
    sheet = opened(pictures.sheet())
    reds = [sheet.getpixel((k % 5 * 160 + 80, k // 5 * 240 + 120))[0] for k in range(25)]
    assert reds == pytest.approx([10 * k for k in range(25)], abs=4)


@pytest.mark.parametrize("size", [(64, 96), (56, 88), (128, 192), (136, 96)])
def test_frames_of_another_size_fill_the_picture(size: tuple[int, int]) -> None:
    """Cropped where they are larger, scaled up where they are smaller, as in the video."""
    frames = clip(8)
    frames[:, 48] = 255  # a line through the middle stays there
    pictures = ClipPictures(*size, 8)
    pictures.look(frames)
    poster = opened(pictures.poster())
    assert poster.size == size
    assert max(poster.getpixel((size[0] // 2, size[1] // 2 + dy))[1] for dy in (-1, 0, 1, 2)) > 100
