"""Reads what an MP4 file says of itself from its boxes, without ffprobe.

Reads the kind of file this service writes: one H.264 track, not fragmented (ISO/IEC 14496-12 and
-15; the comment as in Apple's `ilst`). Knows nothing of how files are made.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

MAX_MOOV_BYTES = 64 * 2**20


class NotAnMp4(Exception):
    """The file is not an MP4 of the kind this service writes; the message says what is missing."""


@dataclass(frozen=True)
class Mp4Info:
    """What the boxes of a file say.

    `colour` holds the nclx numbers (primaries, transfer, matrix), 1 1 1 for BT.709, or None without
    a `colr` box. `fps` is exact; None when frames last differently long. `profile` is H.264's
    profile_idc, 100 for High.
    """

    width: int
    height: int
    num_frames: int
    timescale: int
    fps: Fraction | None
    duration_s: float
    profile: int
    colour: tuple[int, int, int] | None
    full_range: bool
    moov_first: bool
    comment: str | None
    size_bytes: int


def probe(path: Path) -> Mp4Info:
    """Read the boxes of the file.

    Raises:
        NotAnMp4: it is something else, or cut short.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        places = _top_level(file, size_bytes)
        if "moov" not in places or "mdat" not in places:
            raise NotAnMp4("there is no moov or no mdat box")
        start, end = places["moov"]
        if end - start > MAX_MOOV_BYTES:
            raise NotAnMp4("the moov box is too large")
        file.seek(start)
        moov = memoryview(file.read(end - start))
    try:
        return _read_moov(moov, size_bytes, moov_first=start < places["mdat"][0])
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise NotAnMp4(f"a box is cut short ({error})") from error


def _top_level(file: BinaryIO, size_bytes: int) -> dict[str, tuple[int, int]]:
    """Return where the contents of each top-level box begin and end."""
    places: dict[str, tuple[int, int]] = {}
    at = 0
    while at + 8 <= size_bytes:
        file.seek(at)
        name, header, size = _header(memoryview(file.read(16)), size_bytes - at)
        places.setdefault(name, (at + header, at + size))
        at += size
    if at != size_bytes:
        raise NotAnMp4("the file is cut short")
    return places


def _header(data: memoryview, available: int) -> tuple[str, int, int]:
    """Return a box's name, the size of its header and its whole size."""
    size, code = struct.unpack_from(">I4s", data)
    header = 8
    if size == 1:
        (size,) = struct.unpack_from(">Q", data, 8)
        header = 16
    elif size == 0:
        size = available
    if not header <= size <= available:
        raise NotAnMp4("a box is longer than the file")
    return code.decode("latin-1"), header, size


def _children(data: memoryview) -> Iterator[tuple[str, memoryview]]:
    at = 0
    while at + 8 <= len(data):
        name, header, size = _header(data[at : at + 16], len(data) - at)
        yield name, data[at + header : at + size]
        at += size


def _find(data: memoryview, *names: str) -> memoryview | None:
    """Return the contents of the first box under `names`, a path downwards."""
    for wanted in names:
        found = next((content for name, content in _children(data) if name == wanted), None)
        if found is None:
            return None
        # `meta` and `stsd` carry fields before their children.
        data = found[{"meta": 4, "stsd": 8}.get(wanted, 0) :]
    return data


def _need(data: memoryview, *names: str) -> memoryview:
    found = _find(data, *names)
    if found is None:
        raise NotAnMp4(f"there is no {'/'.join(names)} box")
    return found


def _read_moov(moov: memoryview, size_bytes: int, *, moov_first: bool) -> Mp4Info:
    media = _need(moov, "trak", "mdia")
    table = _need(media, "minf", "stbl")
    sample = _need(table, "stsd", "avc1")
    width, height = struct.unpack_from(">HH", sample, 24)
    details = sample[78:]  # the fields of a VisualSampleEntry come before its boxes
    timescale, duration = _media_header(_need(media, "mdhd"))
    (num_frames,) = struct.unpack_from(">I", _need(table, "stsz"), 8)
    colour, full_range = _colour(_find(details, "colr"))
    return Mp4Info(
        width=width,
        height=height,
        num_frames=num_frames,
        timescale=timescale,
        fps=_fps(_need(table, "stts"), timescale),
        duration_s=duration / timescale if timescale else 0.0,
        profile=_need(details, "avcC")[1],
        colour=colour,
        full_range=full_range,
        moov_first=moov_first,
        comment=_comment(_find(moov, "udta", "meta", "ilst", "\xa9cmt", "data")),
        size_bytes=size_bytes,
    )


def _media_header(mdhd: memoryview) -> tuple[int, int]:
    timescale, duration = struct.unpack_from(
        ">IQ" if mdhd[0] else ">II", mdhd, 20 if mdhd[0] else 12
    )
    return timescale, duration


def _fps(stts: memoryview, timescale: int) -> Fraction | None:
    entries, _, ticks = struct.unpack_from(">III", stts, 4)
    return Fraction(timescale, ticks) if entries == 1 and ticks else None


def _colour(colr: memoryview | None) -> tuple[tuple[int, int, int] | None, bool]:
    if colr is None or bytes(colr[:4]) != b"nclx":
        return None, False
    primaries, transfer, matrix, flags = struct.unpack_from(">HHHB", colr, 4)
    return (primaries, transfer, matrix), bool(flags & 0x80)


def _comment(data: memoryview | None) -> str | None:
    return None if data is None else bytes(data[8:]).decode()  # after its type and locale
