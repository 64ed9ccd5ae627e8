"""From an uploaded file to the image that starts a clip: a PNG of 8-bit RGB, upright, in sRGB.

The files come from strangers. What a file is, is read from its content, never from its name; its
size is judged before a pixel is decoded; and only pixels go on: not a place, a camera or a profile.
Blocking, and of one thread at a time: `Door` calls it on a thread of its own.
"""

import contextlib
import math
import warnings
from io import BytesIO
from typing import Final

from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

from deployments.core.errors import InvalidRequest
from deployments.core.log import logger

FIELD = "image"
TAKEN = "JPEG, PNG or WebP"
MIN_IMAGE_SIDE = 16
# A model fills its frame with the image and crops the rest: of a strip it would use next to nothing
# and hold a hundred megapixels on the way.
MAX_ASPECT = 10
# A UHD frame is kept as it is. Larger ones are reduced: ten times what a network draws is enough,
# and the job table and Ray carry the rest for nothing.
MAX_KEPT_PIXELS = 3840 * 2176

# The plug-ins themselves instead of `Image.open`: that tries formats nobody asked for, and has a
# limit of its own, with warnings, in a global.
READERS: Final[dict[str, type[ImageFile]]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
# How to turn an image that lies as its EXIF orientation says; 1 is upright.
TURNS: Final[dict[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def normalise(data: bytes, max_megapixels: float) -> bytes:
    """Return the image in the file `data` as a PNG of 8-bit RGB without metadata.

    Transparent parts become black, 16 bits are scaled to 8, a colour profile is applied, the EXIF
    orientation too.

    Raises:
        InvalidRequest: it is no image that a model can start from; the message says what would do.
    """
    kind = _kind(data)
    if kind is None:
        raise InvalidRequest(FIELD, f"is {_other_kind(data)}; send a {TAKEN} file")
    try:
        # Pillow warns of odd metadata, which is not what the file was sent for. These filters are
        # the process's: hence one thread at a time.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with READERS[kind](BytesIO(data)) as image:
                _refuse_unusable(image, max_megapixels)
                return _png(_upright(_reduced(_rgb(image)), _orientation(image)))
    except InvalidRequest:
        raise
    except Image.DecompressionBombError as error:  # of WebP, before it tells the size
        what = f"has too many pixels; at most {max_megapixels:g} megapixels are taken"
        raise InvalidRequest(FIELD, what) from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        logger.info("an uploaded %s file cannot be read: %r", kind, error)
        raise InvalidRequest(
            FIELD,
            f"begins like a {kind} file but is damaged or cut off; send it again, or a copy saved "
            f"anew as {TAKEN}",
        ) from error


# --- what it is --------------------------------------------------------------------------


def _kind(data: bytes) -> str | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    return None


def _other_kind(data: bytes) -> str:
    """Name what people send by mistake."""
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
            return "a HEIC picture"
        return "an AVIF picture" if brand in (b"avif", b"avis") else "a video"
    begins = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begins.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return "an SVG drawing"
    signatures = {b"GIF8": "a GIF", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF"}
    found = [name for signature, name in signatures.items() if data.startswith(signature)]
    return f"{found[0]} picture" if found else f"neither {TAKEN.replace(' or', ' nor')}"


def _refuse_unusable(image: ImageFile, max_megapixels: float) -> None:
    """Judge the header; nothing is decoded yet."""
    width, height = image.size
    size = f"is {width} x {height} pixels"
    if width * height > max_megapixels * 1e6:
        raise InvalidRequest(FIELD, f"{size}; at most {max_megapixels:g} megapixels are taken")
    if min(width, height) < MIN_IMAGE_SIDE:
        raise InvalidRequest(FIELD, f"{size}; at least {MIN_IMAGE_SIDE} on each side are needed")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidRequest(
            FIELD,
            f"{size}; the longer side may be {MAX_ASPECT} times the shorter, so crop it first",
        )
    if (pictures := getattr(image, "n_frames", 1)) > 1:
        raise InvalidRequest(
            FIELD, f"is an animation of {pictures} pictures; send one of them as {TAKEN}"
        )


# --- what becomes of it ------------------------------------------------------------------


def _rgb(image: Image.Image) -> Image.Image:
    """Return any mode as RGB in sRGB."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    if image.has_transparency_data:
        image = _on_black(image)
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if profile:
        image = _in_srgb(image, profile)
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; `convert` would clip it."""
    table = [(value + 128) // 257 for value in range(2**16)]
    wide = image.convert("I")
    # A grey that stands for "transparent" is shown as black, like every transparent part.
    transparent = wide.info.pop("transparency", None)
    if isinstance(transparent, int) and 0 <= transparent < len(table):
        table[transparent] = 0
    return wide.point(table, "L")


def _on_black(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    flat = Image.new("RGB", layer.size)
    flat.paste(layer, mask=layer.getchannel("A"))
    return flat


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply the colour profile; one that is broken, or of another mode, counts as none."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        logger.info("the colour profile of an uploaded image is not used: %r", error)
        return image
    return converted or image


def _reduced(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width * height <= MAX_KEPT_PIXELS:
        return image
    scale = math.sqrt(MAX_KEPT_PIXELS / (width * height))
    size = (math.floor(width * scale), math.floor(height * scale))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _orientation(image: Image.Image) -> object:
    with contextlib.suppress(Exception):  # an EXIF block that cannot be read turns nothing
        return image.getexif().get(ExifTags.Base.Orientation)
    return None


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _png(image: Image.Image) -> bytes:
    image.info.clear()  # the profile, among others, would be written
    file = BytesIO()
    # Level 1 takes a third of the time of the default, for a sixth more bytes (a noisy UHD frame).
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
