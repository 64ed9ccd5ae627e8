"""Natural-like pictures, still or slowly panning: what an uploaded photo looks like to a network.

Clouds of 1/f noise and "dead leaves" (discs that cover each other), with the weak colour of
photos: no photo is collected, none is needed.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MAX_PAN: Final = 1.0  # pixels a frame
# Luma and two colour differences to RGB (BT.601), as rows.
YCC_TO_RGB: Final = np.array([[1, 1, 1], [0, -0.344, 1.772], [1.402, -0.714, 0]], np.float32)


def _noise(rng: np.random.Generator, height: int, width: int, slope: float) -> Array:
    """Noise whose amplitude falls as frequency^-slope, of unit deviation; repeats at its edges."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency**slope
    picture = np.fft.irfft2(spectrum, (height, width))
    return (picture / (picture.std() + 1e-6)).astype(np.float32)


def _tint(rng: np.random.Generator) -> Array:
    """A colour as photos have them: any brightness, mostly pale. RGB in 0..1."""
    luma = rng.uniform(0.03, 0.97)
    colour = np.array([luma, *rng.normal(0, 0.07, 2)]) @ YCC_TO_RGB
    return np.clip(colour, 0, 1).astype(np.float32)


def _clouds(rng: np.random.Generator, height: int, width: int) -> Array:
    """1/f noise in luma, weaker in colour, over a tint."""
    slope = rng.uniform(0.9, 1.6)
    planes = [_noise(rng, height, width, slope) for _ in range(3)]
    strength = rng.uniform(0.06, 0.28) * np.array([1, 0.15, 0.15])
    ycc = np.stack(planes, -1) * strength
    return (ycc @ YCC_TO_RGB + _tint(rng)).astype(np.float32)


def _leaves(rng: np.random.Generator, height: int, width: int) -> Array:
    """Discs of all sizes that cover each other (Lee, Mumford and Huang 2001), each in a tint."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.broadcast_to(_tint(rng), (height, width, 3)).copy()
    side = min(height, width)
    # Radii fall as r^-3 between 3 % and half of the side.
    low, high = 0.03 * side, 0.5 * side
    radii = (low**-2 - rng.uniform(size=120) * (low**-2 - high**-2)) ** -0.5
    for radius in np.sort(radii)[::-1]:
        down, across = rng.uniform((0, 0), (height, width))
        squeeze = rng.uniform(0.6, 1.6)
        distance = np.hypot((y - down) * squeeze, (x - across) / squeeze) - radius
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        picture += cover * (_tint(rng) - picture)
    return picture


def _ramp(rng: np.random.Generator, height: int, width: int) -> Array:
    """A gradient between two tints, in any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width] / max(height, width)
    share = 0.5 + (y - 0.5) * np.sin(angle) + (x - 0.5) * np.cos(angle)
    first, second = _tint(rng), _tint(rng)
    return (first + (second - first) * share[..., None]).astype(np.float32)


def draw_picture(rng: np.random.Generator, height: int, width: int) -> Array:
    """One natural-like picture, (height, width, 3) float32 in 0..1."""
    kind = rng.uniform()
    if kind < 0.4:
        picture = _clouds(rng, height, width)
    elif kind < 0.8:
        picture = _leaves(rng, height, width)
        grain = _noise(rng, height, width, 1.0)[..., None]
        picture = picture + rng.uniform(0, 0.06) * grain
    else:
        grain = _noise(rng, height, width, 1.2)[..., None]
        picture = _ramp(rng, height, width) + rng.uniform(0, 0.1) * grain
    return np.clip(picture, 0, 1).astype(np.float32)


def pan(rng: np.random.Generator, height: int, width: int, num_frames: int, speed: float) -> Array:
    """A view that glides over a larger picture in any direction at `speed` pixels a frame.

    Returns: (num_frames, height, width, 3) float32 in 0..1.
    """
    reach = int(np.ceil(speed * (num_frames - 1))) + 1
    large = draw_picture(rng, height + reach, width + reach)
    angle = rng.uniform(0, 2 * np.pi)
    way = speed * np.array([np.sin(angle), np.cos(angle)])
    start = np.where(way < 0, reach - 1.0, 0.0)
    frames = np.empty((num_frames, height, width, 3), np.float32)
    for index, frame in enumerate(frames):
        place = start + way * index
        top, left = np.clip(np.floor(place), 0, reach - 1).astype(int)
        down, across = np.clip(place - (top, left), 0, 1).astype(np.float32)
        window = large[top : top + height + 1, left : left + width + 1]
        rows = window[:-1] + down * (window[1:] - window[:-1])
        frame[:] = rows[:, :-1] + across * (rows[:, 1:] - rows[:, :-1])
    return frames


def moving_picture(rng: np.random.Generator, height: int, width: int, num_frames: int) -> Array:
    """A natural-like clip: half of them stand still, the others pan slowly."""
    if num_frames == 1 or rng.uniform() < 0.5:
        return np.repeat(draw_picture(rng, height, width)[None], num_frames, axis=0)
    return pan(rng, height, width, num_frames, float(rng.uniform(0.15, MAX_PAN)))
