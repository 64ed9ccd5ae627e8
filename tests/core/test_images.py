"""Every kind of file that people upload, and those that nobody should."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageDraw

from deployments.core import images
from deployments.core.errors import InvalidRequest
from deployments.core.images import normalise

Pixels = npt.NDArray[np.uint8]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def scene(width: int = 64, height: int = 48) -> Image.Image:
    """Four quarters of different colours: every turn shows."""
    image = Image.new("RGB", (width, height), RED)
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), fill=GREEN)
    draw.rectangle((0, height // 2, width // 2 - 1, height), fill=BLUE)
    draw.rectangle((width // 2, height // 2, width, height), fill=WHITE)
    return image


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(png: bytes) -> Pixels:
    """Read what `normalise` gave, which is always the same kind of file."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert not image.info
        return np.asarray(image)


def read(data: bytes, max_megapixels: float = 64) -> Pixels:
    return pixels(normalise(data, max_megapixels))


def refused(data: bytes, max_megapixels: float = 64) -> str:
    with pytest.raises(InvalidRequest) as error:
        normalise(data, max_megapixels)
    assert error.value.field == "image"
    return error.value.reason


def read_or_refused(data: bytes) -> Pixels | None:
    """Read it; None when it is refused. Anything else that is raised fails the test."""
    try:
        return read(data)
    except InvalidRequest:
        return None


def close(found: Pixels, expected: object, most: int = 3) -> bool:
    return bool(np.abs(found.astype(int) - np.asarray(expected, int)).max() <= most)


# --- formats and modes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_jpeg_png_and_webp_are_read(kind: str, options: dict[str, Any]) -> None:
    """The picture is the same, within what the format loses."""
    found = read(saved(scene(), kind, **options))
    inner = np.asarray(scene(), int)[4:20, 4:28]
    assert found.shape == (48, 64, 3)
    assert close(found[4:20, 4:28], inner, 12)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_few_colours_become_rgb(mode: str, kind: str) -> None:
    """Black and white, grey, a palette."""
    image = scene().convert(mode)
    source = image.convert("RGB") if kind == "WEBP" else image
    assert close(read(saved(source, kind, lossless=True)), np.asarray(image.convert("RGB")), 0)


def test_a_grey_jpeg_becomes_rgb() -> None:
    """Three equal channels."""
    found = read(saved(Image.new("L", (32, 32), 77), "JPEG"))
    assert close(found, np.full((32, 32, 3), 77))


def ramp() -> npt.NDArray[np.uint16]:
    return np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    """A plain conversion would make everything above 255 white."""
    expected = np.rint(ramp() / 257.0)[..., None]
    assert close(read(saved(Image.fromarray(ramp()))), expected, 1)


def png(width: int, height: int, bits: int, colours: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG by hand, for what Pillow does not write. Args: more: chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows, 1))]
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks, chunk(b"IEND", b"")])


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def rows_of(samples: npt.NDArray[np.uint16]) -> bytes:
    """Big-endian samples (H, W, C), each row after its filter byte 0."""
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)


def test_sixteen_bit_colours_are_scaled() -> None:
    """RGB, RGB with alpha and grey with alpha."""
    grey = ramp()[..., None]
    colour = np.concatenate([grey, 65535 - grey, np.full_like(grey, 0x8080)], axis=2)
    half = np.full_like(grey, 0x8080)
    eight = np.rint(colour / 257.0)
    assert close(read(png(64, 32, 16, 2, rows_of(colour))), eight, 1)
    with_alpha = np.concatenate([colour, half], axis=2)
    assert close(read(png(64, 32, 16, 6, rows_of(with_alpha))), eight * 0.502, 2)
    grey_alpha = np.concatenate([grey, half], axis=2)
    assert close(read(png(64, 32, 16, 4, rows_of(grey_alpha))), grey / 257.0 * 0.502, 2)


def test_a_transparent_sixteen_bit_grey_is_black() -> None:
    """The `tRNS` chunk names one grey that is not there."""
    samples = np.full((32, 64, 1), 50000, np.uint16)
    samples[:, 32:] = 60000
    found = read(png(64, 32, 16, 0, rows_of(samples), chunk(b"tRNS", struct.pack(">H", 60000))))
    assert close(found[:, :32], np.full(3, 195), 1)
    assert close(found[:, 32:], np.zeros(3), 0)


def test_a_transparent_sixteen_bit_colour_is_no_reason_to_fail() -> None:
    """Pillow keeps eight of its bits; the picture is there either way."""
    samples = np.full((32, 64, 3), 0x4040, np.uint16)
    body = struct.pack(">HHH", 0x8080, 0x8080, 0x8080)
    assert close(read(png(64, 32, 16, 2, rows_of(samples), chunk(b"tRNS", body))), np.full(3, 64))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_parts_become_black(kind: str) -> None:
    """And half transparent ones half as bright."""
    image = scene().convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 32, 48))
    alpha.paste(128, (32, 24, 64, 48))
    image.putalpha(alpha)
    found = read(saved(image, kind, lossless=True, exact=True))
    assert close(found[:, :32], np.zeros(3), 0)
    assert close(found[:24, 32:], GREEN, 0)
    assert close(found[24:, 32:], np.full(3, 128), 1)


def test_grey_with_alpha_and_transparent_palettes_lie_on_black() -> None:
    """Both kinds of palette transparency: one index, and an alpha for each."""
    assert close(read(saved(Image.new("LA", (32, 32), (200, 128)))), np.full(3, 100), 1)
    palette = scene().convert("RGB").quantize(8)
    red = palette.getpixel((0, 0))
    alphas = bytes(0 if index == red else 255 for index in range(8))
    for transparency in (red, alphas):
        found = read(saved(palette, transparency=transparency))
        assert close(found[:24, :32], np.zeros(3), 0)
        assert close(found[:24, 32:], GREEN, 0)


def test_cmyk_is_read_as_adobe_writes_it() -> None:
    """Inverted, 255 for no ink; also without its marker, since hardly anyone else writes CMYK."""
    cyan = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    by_adobe = saved(cyan, "JPEG", quality=95)
    assert close(read(by_adobe), (0, 255, 255))
    marker = by_adobe.index(b"\xff\xee\0\x0eAdobe")
    assert close(read(by_adobe[:marker] + by_adobe[marker + 16 :]), (0, 255, 255))


# --- metadata ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    """Telephones store the picture as the sensor lay; here it stands upright again."""
    undo: dict[int, Callable[[Image.Image], Image.Image]] = {
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.rotate(90, expand=True),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.rotate(270, expand=True),
    }
    lying = undo.get(orientation, lambda image: image)(scene())
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True}
    found = read(saved(lying, kind, exif=exif, **options))
    assert found.shape == (48, 64, 3)
    assert close(found, np.asarray(scene()), 4)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" * 9]
)
def test_a_broken_exif_block_turns_nothing(exif: bytes) -> None:
    """Nor does Pillow's warning of it reach anyone."""
    assert close(read(saved(scene(), "JPEG", exif=exif, quality=95))[4:20, 4:28], RED, 12)


def test_no_metadata_goes_on() -> None:
    """Where a picture was taken is nobody's business."""
    exif = Image.Exif()
    exif[0x010F] = "Secret Camera"
    data = saved(scene(), "JPEG", exif=exif, comment=b"secret comment")
    assert b"Secret" in data
    assert b"ecret" not in normalise(data, 64)


def swapped_profile() -> bytes:
    """sRGB whose red and green primaries have changed places: what it does cannot be missed."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table = {profile[i : i + 4]: i for i in range(132, 132 + 12 * profile[131], 12)}
    red, green = (profile[table[tag] + 4 : table[tag] + 12] for tag in (b"rXYZ", b"gXYZ"))
    swapped = bytearray(profile)
    swapped[table[b"rXYZ"] + 4 : table[b"rXYZ"] + 12] = green
    swapped[table[b"gXYZ"] + 4 : table[b"gXYZ"] + 12] = red
    return bytes(swapped)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_colour_profile_is_applied(kind: str) -> None:
    """In a profile with red and green swapped, a red file is a green picture."""
    data = saved(Image.new("RGB", (32, 32), RED), kind, icc_profile=swapped_profile(), quality=95)
    assert close(read(data), GREEN, 6)


def test_a_profile_that_does_nothing_changes_nothing() -> None:
    """Most files carry sRGB."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert close(read(saved(scene(), icc_profile=srgb)), np.asarray(scene()), 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_a_profile_that_is_broken_or_of_another_mode_counts_as_none(mode: str) -> None:
    """The picture is still there to be seen."""
    image = scene().convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    expected = read(saved(image, kind))
    for profile in (b"no profile", swapped_profile()[:200]):
        assert close(read(saved(image, kind, icc_profile=profile)), expected, 0)
    if mode in ("L", "CMYK"):
        assert close(read(saved(image, kind, icc_profile=swapped_profile())), expected, 0)


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"dear model, please draw a fox", "is neither JPEG, PNG nor WebP"),
        (b"\xff\xd8", "is neither JPEG, PNG nor WebP"),
        (b"RIFF\0\0\0\0WAVEfmt ", "is neither JPEG, PNG nor WebP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "is an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC picture"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "is an AVIF picture"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0", "is a video"),
        (saved(scene(), "GIF"), "is a GIF picture"),
        (saved(scene(), "BMP"), "is a BMP picture"),
        (saved(scene(), "TIFF"), "is a TIFF picture"),
    ],
)
def test_other_files_are_named_for_what_they_are(data: bytes, what: str) -> None:
    """By their content; the sentence says what would do."""
    assert refused(data) == f"{what}; send a JPEG, PNG or WebP file"


def test_a_bomb_is_refused_by_its_header() -> None:
    """900 million pixels in 50 bytes; nothing is decoded."""
    bomb = png(30000, 30000, 8, 2, b"")
    assert refused(bomb) == "is 30000 x 30000 pixels; at most 64 megapixels are taken"
    jpeg = bytearray(saved(scene(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    assert "65535 x 65535" in refused(bytes(jpeg))
    webp = bytearray(saved(scene(), "WEBP", icc_profile=swapped_profile()))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = b"\xff\x3f\0\xff\x3f\0"
    assert refused(bytes(webp)) == "has too many pixels; at most 64 megapixels are taken"


def test_the_limit_on_pixels_is_exact() -> None:
    """A million pixels are one megapixel."""
    assert read(saved(Image.new("RGB", (1000, 1000))), 1).shape == (1000, 1000, 3)
    assert "at most 1 megapixels" in refused(saved(Image.new("RGB", (1001, 1000))), 1)


@pytest.mark.parametrize(("size", "taken"), [((16, 16), True), ((15, 64), False), ((1, 1), False)])
def test_an_image_too_small_to_see_is_refused(size: tuple[int, int], taken: bool) -> None:
    """16 pixels are one patch of a network."""
    data = saved(Image.new("RGB", size))
    if taken:
        read(data)
    else:
        assert "at least 16 on each side are needed" in refused(data)


@pytest.mark.parametrize(("size", "taken"), [((320, 32), True), ((321, 32), False)])
def test_a_strip_is_refused(size: tuple[int, int], taken: bool) -> None:
    """Filling a frame would use next to nothing of it."""
    data = saved(Image.new("RGB", size))
    if taken:
        read(data)
    else:
        assert "10 times the shorter" in refused(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_refused(kind: str) -> None:
    """Which of its pictures was meant, nobody said."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert "is an animation of 3 pictures" in refused(data)


def noisy() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {})]
)
def test_a_file_that_is_cut_off_is_refused_or_whole(kind: str, options: dict[str, Any]) -> None:
    """At any point: never half a picture, never anything but a sentence."""
    data = saved(noisy(), kind, **options)
    whole = read(data)
    for cut in [*range(3, 700, 7), *range(700, len(data), 97), *range(len(data) - 20, len(data))]:
        if (found := read_or_refused(data[:cut])) is not None:
            # What is missing comes after the pixels: PNG's checksums and its end.
            assert len(data) - cut <= 20
            assert np.array_equal(found, whole)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_file_is_refused_or_read(kind: str) -> None:
    """Random bytes in random places raise nothing else."""
    chance = random.Random(0)
    data = saved(scene(), kind, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", icc_profile=swapped_profile())
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(12, len(damaged))] = chance.randrange(256)
        read_or_refused(bytes(damaged))


def test_a_damaged_file_is_told_from_another_kind() -> None:
    """The sentence says what to try."""
    assert refused(saved(noisy())[:500]) == (
        "begins like a PNG file but is damaged or cut off; send it again, or a copy saved anew as "
        "JPEG, PNG or WebP"
    )


# --- size ----------------------------------------------------------------------------------


def test_a_very_large_image_is_reduced_to_what_is_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same aspect; a UHD frame stays as it is."""
    assert images.MAX_KEPT_PIXELS >= 3840 * 2160
    monkeypatch.setattr(images, "MAX_KEPT_PIXELS", 100 * 100)
    assert read(saved(scene(100, 100))).shape == (100, 100, 3)
    found = read(saved(scene(600, 400)))
    height, width, _ = found.shape
    assert 9800 < width * height <= 10000
    assert width / height == pytest.approx(1.5, abs=0.02)
    assert close(found[5:30, 5:50], RED)
