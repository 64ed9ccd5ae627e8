"""Judge a clip by its pixels: object colour, shape, motion; background and sky.

Works on the frames of a served video (after scaling and H.264); knows the world's palette but
nothing of how the clip was made, and uses no network.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from training.render import (
    BUILDING_COLOURS,
    PEAK_COLOURS,
    TREE_COLOURS,
    shape_distance,
)
from training.scenes import COLOURS, GROUND_COLOURS, PLAIN, SHAPES, SKIES, SKY_COLOURS

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MIN_AREA: Final = 0.01  # of the shorter side squared; the smallest triangle covers 0.04
TEMPLATE_SIDE: Final = 48
STILL_TRAVEL: Final = 0.08  # of the shorter side: less is standing still


@dataclass(frozen=True)
class Verdict:
    """What a clip shows; None where it could not be made out."""

    colour: str | None
    shape: str | None
    motion: str | None
    background: str
    sky: str | None


def _nearest(colour: Array, palette: dict[str, tuple[int, int, int]]) -> tuple[str, float]:
    distances = {name: float(np.linalg.norm(colour - np.array(c))) for name, c in palette.items()}
    name = min(distances, key=lambda key: distances[key])
    return name, distances[name]


def _band(frames: Array, top: float, bottom: float) -> Array:
    """Median colour of a band of rows (shares of the height) over all frames."""
    height = frames.shape[1]
    rows = frames[:, int(top * height) : int(bottom * height)]
    return np.median(rows.reshape(-1, 3), axis=0).astype(np.float32)


def judge_background(frames: Array) -> tuple[str, str | None]:
    """Background and sky (None on a plain background) from the upper and lower bands."""
    upper, lower = _band(frames, 0.02, 0.14), _band(frames, 0.8, 0.97)
    # The object can cover the centre of a band, hardly its outer thirds.
    zenith, horizon = ({sky: SKY_COLOURS[sky][end] for sky in SKIES} for end in (0, 1))
    plain, plain_distance = _nearest(np.asarray((upper + lower) / 2, np.float32), PLAIN)
    sky, sky_distance = _nearest(upper, zenith)
    sky_distance = min(sky_distance, _nearest(upper, horizon)[1])
    grounds = {place: colours[sky] for place, colours in GROUND_COLOURS.items()}
    place, ground_distance = _nearest(lower, grounds)
    flat = float(np.linalg.norm(upper - lower))
    if plain_distance + flat < sky_distance + ground_distance:
        return plain, None
    return place, sky


def _scenery(background: str, sky: str | None) -> Array:
    """Colours (k, 3) that belong to this background, so that they are not taken for objects."""
    if sky is None:
        return np.array([PLAIN[background]], np.float32)
    top, low = (np.array(colour, np.float32) for colour in SKY_COLOURS[sky])
    ramp = [top + (low - top) * share for share in np.linspace(0, 1, 7)]
    ground = np.array(GROUND_COLOURS[background][sky], np.float32)
    # Water is brighter and darker in waves; ridges and rows stand on the horizon.
    others = [ground, ground + 12, ground - 12, *PEAK_COLOURS[sky]]
    if background == "forest":
        others.append(np.array(TREE_COLOURS[sky]))
    if background == "city":
        others.append(np.array(BUILDING_COLOURS[sky]))
    return np.array([*ramp, *others], np.float32)


def _grow(seed: Mask, inside: Mask) -> Mask:
    """The connected part of `inside` that contains `seed` (4-neighbourhood)."""
    grown = seed & inside
    while True:
        wider = grown.copy()
        wider[1:] |= grown[:-1]
        wider[:-1] |= grown[1:]
        wider[:, 1:] |= grown[:, :-1]
        wider[:, :-1] |= grown[:, 1:]
        wider &= inside
        if wider.sum() == grown.sum():
            return grown
        grown = wider


def _largest_part(mask: Mask) -> Mask:
    """The largest connected part, up to specks."""
    left, best = mask.copy(), np.zeros_like(mask)
    while left.sum() > best.sum():
        row, column = np.argwhere(left)[left.sum() // 2]
        seed = np.zeros_like(mask)
        seed[row, column] = True
        part = _grow(seed, left)
        left &= ~part
        if part.sum() > best.sum():
            best = part
    return best


def object_masks(frames: Array, background: str, sky: str | None) -> tuple[str | None, Array]:
    """Colour of the object and where it is.

    Returns: a colour name (None where there is no object), masks (T, H, W) of the largest
    connected part in that colour.
    """
    names = list(COLOURS)
    colours = np.array([COLOURS[name] for name in names], np.float32)
    palette = np.concatenate([colours, _scenery(background, sky)])
    # |a - b|^2 without |a|^2, which is the same for every b.
    distance = (palette**2).sum(axis=-1) - 2 * frames @ palette.T
    nearest = distance.argmin(axis=-1)
    counts = np.array([(nearest == index).sum() for index in range(len(names))])
    side = min(frames.shape[1:3])
    index = int(counts.argmax())
    if counts[index] < MIN_AREA * side**2 * len(frames):
        return None, np.zeros(frames.shape[:3], np.float32)
    masks = np.stack([_largest_part(frame) for frame in nearest == index])
    return names[index], masks.astype(np.float32)


def _templates() -> dict[str, Mask]:
    grid = (np.arange(TEMPLATE_SIDE) + 0.5) / TEMPLATE_SIDE * 2 - 1
    x, y = np.meshgrid(grid, grid)
    scales = {"ball": (1.0, 1.0), "square": (0.88, 0.88), "triangle": (1.05, 0.95)}
    return {
        shape: shape_distance(
            shape,
            (x * scales[shape][0]).astype(np.float32),
            (y * scales[shape][1]).astype(np.float32),
            1.0,
        )
        <= 0
        for shape in SHAPES
    }


def _crop(mask: Mask) -> Mask | None:
    """The mask's bounding box stretched to the templates' size; ignores single-pixel spikes."""
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    if rows.max(initial=0) < 4 or columns.max(initial=0) < 4:
        return None
    top, bottom = np.flatnonzero(rows > 1)[[0, -1]]
    left, right = np.flatnonzero(columns > 1)[[0, -1]]
    steps = (np.arange(TEMPLATE_SIDE) + 0.5) / TEMPLATE_SIDE
    down = (top + steps * (bottom + 1 - top)).astype(int)
    across = (left + steps * (right + 1 - left)).astype(int)
    return np.asarray(mask[np.ix_(down, across)], np.bool_)


def judge_shape(masks: Array) -> str | None:
    """Best match of the average silhouette with a ball, a square or a triangle."""
    crops = [crop for mask in masks if (crop := _crop(mask > 0)) is not None]
    if not crops:
        return None
    silhouette = np.mean(crops, axis=0) > 0.5
    overlaps = {
        shape: (silhouette & template).sum() / (silhouette | template).sum()
        for shape, template in _templates().items()
    }
    return max(overlaps, key=lambda shape: float(overlaps[shape]))


def judge_motion(masks: Array) -> str | None:
    """Direction of the centroid's path, in the words of the captions."""
    _, height, width = masks.shape
    areas = masks.sum(axis=(1, 2))
    seen = areas > 0.3 * np.median(areas[areas > 0]) if areas.any() else areas > 0
    if seen.sum() < 4:
        return None
    down = (masks.sum(axis=2) @ np.arange(height))[seen] / areas[seen] / min(height, width)
    across = (masks.sum(axis=1) @ np.arange(width))[seen] / areas[seen] / min(height, width)
    ends = max(1, len(down) // 5)
    fall = float(down[-ends:].mean() - down[:ends].mean())
    drift = float(across[-ends:].mean() - across[:ends].mean())
    # A bounce goes back on its way: the path is much longer than the way made good.
    way = float(np.abs(np.diff(down)).sum())
    if way > 0.25 and way > 1.6 * abs(fall) and abs(drift) < way:
        return "bouncing"
    if max(abs(fall), abs(drift)) < STILL_TRAVEL:
        return "still"
    if abs(drift) > abs(fall):
        return "right" if drift > 0 else "left"
    return "down" if fall > 0 else "up"


def judge(frames: npt.NDArray[np.uint8]) -> Verdict:
    """Judge a clip of (T, H, W, 3) sRGB frames."""
    # A dozen frames and 128 pixels across show all that is asked, in a tenth of the time.
    every, pixel = max(1, len(frames) // 12), max(1, min(frames.shape[1:3]) // 128)
    values = frames[::every, ::pixel, ::pixel].astype(np.float32)
    background, sky = judge_background(values)
    colour, masks = object_masks(values, background, sky)
    if colour is None:
        return Verdict(None, None, None, background, sky)
    return Verdict(colour, judge_shape(masks), judge_motion(masks), background, sky)
