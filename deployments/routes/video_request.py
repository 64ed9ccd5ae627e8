"""From a form under `/v1/videos` to a `VideoRequest`, or to an error that names the field.

`seconds` and `size` are kept exactly or refused: nothing is rounded in silence.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from deployments.core.errors import ConsentRequired, InvalidRequest
from deployments.core.spec import (
    AUTO,
    MAX_AREA,
    MAX_FRAMES,
    MAX_SIDE,
    MIN_SIDE,
    SIDE_STEP,
    ModelCard,
    VideoRequest,
)
from deployments.routes.body import Part, shown
from deployments.routes.fields import FALSE, TRUE, boolean
from deployments.routes.form_reader import CONSENT, consent_in
from deployments.routes.lora_field import read_loras
from deployments.routes.video_forms import (
    CONSENT_HEADER,
    SECONDS_PATTERN,
    SIZE_PATTERN,
    VideoForm,
)

HOW_TO_CONSENT = (
    f": send the form field {CONSENT}=true, or the header {CONSENT_HEADER}: true; or the operator "
    "sets `consent: operator` in the config"
)
DEFAULT_SECONDS, DEFAULT_FPS = 4, 24
DEFAULT_SIZE = (720, 1280)
MIN_FRAMES = 8
# What OpenAI's clients ask for when nobody tells them of the models here.
OPENAI_MODEL = "sora-2"


@dataclass(frozen=True)
class Defaults:
    """What a video has when its form does not say; `size_field` is where that size comes from."""

    size: tuple[int, int] = DEFAULT_SIZE
    fps: int = DEFAULT_FPS
    size_field: str = "size"


def require_consent(parts: list[Part], header: str, consent: str) -> None:
    """Refuse what nobody agreed to use lawfully: the field counts before the header, the header
    before the operator's word.

    Raises: ConsentRequired, InvalidRequest.
    """
    agreed = consent_in(parts)
    if agreed is None and header:
        try:
            agreed = boolean(header.strip())
        except ValueError as error:
            words = ", ".join(TRUE + FALSE)
            raise InvalidRequest(CONSENT_HEADER, f"{error}; allowed: {words}") from None
    if not (consent == "operator" if agreed is None else agreed):
        raise ConsentRequired(HOW_TO_CONSENT)


def video_request(
    form: VideoForm, cards: Sequence[ModelCard], defaults: Defaults, *, has_image: bool
) -> VideoRequest:
    """Return the request in `form`. Raises: InvalidRequest."""
    width, height = _size(form, defaults)
    num_frames, fps = _length(form, defaults)
    return VideoRequest(
        prompt=form.prompt,
        negative_prompt=form.negative_prompt,
        width=width,
        height=height,
        num_frames=num_frames,
        fps=fps,
        seed=form.seed,
        prefer_backend=_backend(form.model, cards),
        low_vram=form.low_vram,
        num_inference_steps=form.num_inference_steps,
        guidance_scale=form.guidance_scale,
        quality=form.quality,
        loras=read_loras(form.loras),
        has_image=has_image,
    )


def _backend(name: str, cards: Sequence[ModelCard]) -> str:
    if name == AUTO or name.startswith(OPENAI_MODEL):
        return AUTO
    names = [card.name for card in cards]
    if name not in names:
        raise InvalidRequest(
            "model",
            f"{shown(name)} is not here; there is {', '.join(names)}; leave it out, or send "
            f"{AUTO} or {OPENAI_MODEL}, for whichever can make the video",
        )
    return name


def _size(form: VideoForm, defaults: Defaults) -> tuple[int, int]:
    width, height = defaults.size
    field = defaults.size_field
    if form.size is not None:
        field = "size"
        if not re.fullmatch(SIZE_PATTERN, form.size, re.ASCII):
            raise InvalidRequest("size", f"{shown(form.size)} is not WIDTHxHEIGHT, like 1280x720")
        width, height = map(int, form.size.split("x"))
        for name, side, given in (("width", width, form.width), ("height", height, form.height)):
            if given not in (None, side):
                raise InvalidRequest(name, f"{given} is not that of size {form.size}; send one")
    elif form.width is not None or form.height is not None:
        field = "height" if form.width is None else "width"
        width, height = form.width or width, form.height or height
    _refuse_size(field, width, height)
    return width, height


def _refuse_size(field: str, width: int, height: int) -> None:
    size = f"{width}x{height}"
    for side in (width, height):
        if not MIN_SIDE <= side <= MAX_SIDE:
            raise InvalidRequest(
                field, f"{size}: each side has to be {MIN_SIDE} to {MAX_SIDE} pixels"
            )
        if side % SIDE_STEP:
            below = side - side % SIDE_STEP
            raise InvalidRequest(
                field,
                f"{size}: {side} is not a multiple of {SIDE_STEP}; the nearest are {below} and "
                f"{below + SIDE_STEP}",
            )
    if width * height > MAX_AREA:
        raise InvalidRequest(field, f"{size} is more than {MAX_AREA} pixels (1920 x 1080)")


def seconds_text(num_frames: int, fps: int) -> str:
    """Return a length in seconds as the API writes it: short, at most two decimals."""
    return f"{num_frames / fps:.2f}".rstrip("0").rstrip(".")


def _length(form: VideoForm, defaults: Defaults) -> tuple[int, int]:
    """Return the number of frames and the frames per second."""
    fps = form.fps or defaults.fps
    if form.seconds is None:
        return form.num_frames or DEFAULT_SECONDS * fps, fps
    seconds = _seconds(form.seconds)
    if form.num_frames is not None:
        if not _lasts(form.num_frames, fps, seconds):
            lasts = seconds_text(form.num_frames, fps)
            raise InvalidRequest(
                "seconds",
                f"{form.num_frames} frames at {fps} fps last {lasts} seconds, not {form.seconds}; "
                "send one of the two",
            )
        return form.num_frames, fps
    frames = round(seconds * fps)
    if seconds * fps > MAX_FRAMES:
        raise _too_long(seconds, form.seconds, fps)
    if not _lasts(frames, fps, seconds):
        below = int(seconds * fps)
        raise InvalidRequest(
            "seconds",
            f"{form.seconds} at {fps} fps is no whole number of frames; the nearest are "
            f"num_frames {below} and {below + 1}",
        )
    if frames < MIN_FRAMES:
        raise InvalidRequest(
            "seconds",
            f"{form.seconds} at {fps} fps is {frames} frames; at least {MIN_FRAMES} are made",
        )
    return frames, fps


def _seconds(text: str) -> Fraction:
    if not re.fullmatch(SECONDS_PATTERN, text, re.ASCII) or not Fraction(text):
        raise InvalidRequest(
            "seconds", f"{shown(text)} is no length; send a decimal number above 0, like 4"
        )
    return Fraction(text)


def _lasts(frames: int, fps: int, seconds: Fraction) -> bool:
    """Whether so many frames last as long, exactly or as `seconds_text` writes it."""
    return frames == seconds * fps or Fraction(seconds_text(frames, fps)) == seconds


def _too_long(seconds: Fraction, text: str, fps: int) -> InvalidRequest:
    most = int(MAX_FRAMES / seconds)
    fits = f"the highest fps that fits is {most}" if most else f"at most {MAX_FRAMES} s at 1 fps"
    frames = float(seconds * fps)
    return InvalidRequest(
        "seconds",
        f"{text} at {fps} fps is {frames:g} frames; at most {MAX_FRAMES} are made, {fits}",
    )
