"""Two pictures of a clip, drawn from its frames as they pass by: a poster and a contact sheet.

The poster is the first frame, so that a player shows no jump when it starts. The sheet shows frames
at equal distances, row by row. Knows nothing of files.
"""

import math
from io import BytesIO
from typing import Final

from PIL import Image

from deployments.core.events import Frames

MAX_TILES, COLUMNS = 25, 5
# The longer side of a frame on the sheet, in pixels.
TILE_SIDE: Final = 240
POSTER_QUALITY, SHEET_QUALITY = 85, 85


class ClipPictures:
    """The pictures of one clip; see every frame once, in order.

    Args: width, height: of the video, in pixels; the frames may be of another size.
    """

    def __init__(self, width: int, height: int, num_frames: int) -> None:
        self._size = (width, height)
        scale = TILE_SIDE / max(width, height)
        self._tile_size = (max(1, round(width * scale)), max(1, round(height * scale)))
        count = min(num_frames, MAX_TILES)
        self._shown = {index * num_frames // count for index in range(count)}
        self._tiles: list[Image.Image] = []
        self._poster = b""
        self._seen = 0

    def look(self, frames: Frames) -> None:
        """Take the next frames: uint8 (T, H, W, 3), RGB."""
        for frame in frames:
            if self._seen in self._shown:
                self._draw(Image.fromarray(frame))
            self._seen += 1

    def _draw(self, frame: Image.Image) -> None:
        picture = _fitted(frame, self._size)
        if not self._poster:
            self._poster = _encoded(picture, "WEBP", POSTER_QUALITY)
        self._tiles.append(picture.resize(self._tile_size, Image.Resampling.LANCZOS))

    def poster(self) -> bytes:
        """Return the first frame as a WebP, at the size of the video."""
        return self._poster

    def sheet(self) -> bytes:
        """Return up to 25 frames, five in a row, as a JPEG."""
        width, height = self._tile_size
        rows = math.ceil(len(self._tiles) / COLUMNS)
        columns = min(COLUMNS, len(self._tiles))
        sheet = Image.new("RGB", (columns * width, rows * height))
        for index, tile in enumerate(self._tiles):
            sheet.paste(tile, (index % COLUMNS * width, index // COLUMNS * height))
        return _encoded(sheet, "JPEG", SHEET_QUALITY)


def _fitted(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As `mp4.geometry_filter` does it: scaled up until it covers, then cropped to its centre."""
    width, height = size
    factor = max(1.0, width / frame.width, height / frame.height)
    if factor > 1:
        covering = (
            max(width, round(frame.width * factor)),
            max(height, round(frame.height * factor)),
        )
        frame = frame.resize(covering, Image.Resampling.LANCZOS)
    left, top = (frame.width - width) // 2, (frame.height - height) // 2
    return frame.crop((left, top, left + width, top + height))


def _encoded(picture: Image.Image, kind: str, quality: int) -> bytes:
    file = BytesIO()
    picture.save(file, kind, quality=quality)
    return file.getvalue()
