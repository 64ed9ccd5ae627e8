"""Draw a scene as frames with numpy: signed-distance shapes over a static background.

Coordinates are in units of the frame's shorter side; colours are float32 in 0..1.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from training.scenes import (
    COLOURS,
    FULL_TRAVEL_FRAMES,
    GROUND_COLOURS,
    MARGIN,
    PLAIN,
    SKY_COLOURS,
    Rgb,
    Scene,
    Thing,
)

Array = npt.NDArray[np.float32]

HORIZON: Final = 0.58  # share of the height
PEAK_COLOURS: Final[dict[str, tuple[Rgb, Rgb]]] = {  # rock and snow cap
    "noon": ((120, 126, 148), (226, 232, 242)),
    "sunset": ((96, 70, 104), (240, 206, 190)),
    "night": ((30, 30, 54), (96, 102, 136)),
}
TREE_COLOURS: Final[dict[str, Rgb]] = {
    "noon": (24, 66, 34),
    "sunset": (36, 40, 28),
    "night": (8, 24, 16),
}
BUILDING_COLOURS: Final[dict[str, Rgb]] = {
    "noon": (72, 76, 92),
    "sunset": (60, 48, 66),
    "night": (22, 22, 34),
}
CLOUD_COLOURS: Final[dict[str, Rgb]] = {
    "noon": (216, 226, 238),
    "sunset": (190, 130, 140),
    "night": (54, 58, 84),
}
SUN_COLOURS: Final[dict[str, Rgb]] = {
    "noon": (255, 248, 200),
    "sunset": (255, 228, 150),
    "night": (226, 226, 206),
}


def _unit(colour: Rgb) -> Array:
    return (np.asarray(colour) / 255).astype(np.float32)


def _blend(image: Array, colour: Rgb, alpha: Array) -> None:
    """Lay a colour over `image` (H, W, 3) in place, by `alpha` (H, W) in 0..1."""
    image += alpha[..., None] * (_unit(colour) - image)


def _cover(distance: Array, pixel: float) -> Array:
    """Antialiased coverage of a shape from its signed distance (negative inside)."""
    covered: Array = np.clip(0.5 - distance / pixel, 0, 1).astype(np.float32)
    return covered


def shape_distance(shape: str, x: Array, y: Array, radius: float) -> Array:
    """Signed distance to a shape about the origin; areas of the three differ by design."""
    if shape == "ball":
        return (np.sqrt(x * x + y * y) - radius).astype(np.float32)
    if shape == "square":
        return (np.maximum(np.abs(x), np.abs(y)) - 0.88 * radius).astype(np.float32)
    # Triangle, apex up: base 2.1 radii, height 1.9 radii.
    half_base, half_height = 1.05 * radius, 0.95 * radius
    slope = np.hypot(2 * half_height, half_base)
    side = (np.abs(x) * 2 * half_height + (-y - half_height) * half_base) / slope
    return np.maximum(side, y - half_height).astype(np.float32)


def path(thing: Thing, aspect: tuple[float, float], num_frames: int) -> Array:
    """Centre of the object in every frame.

    Args:
        aspect: (height, width) of the frame in units of its shorter side.
        num_frames: a clip shorter than 19 frames shows the first part of the travel.
    Returns: (num_frames, 2) as (y, x), in units of the shorter side.
    """
    low = MARGIN + 1.05 * thing.radius
    free = np.asarray(aspect, np.float32) - 2 * low
    start = np.asarray(thing.start, np.float32)
    time = np.arange(num_frames, dtype=np.float32)
    share = np.tile(start, (num_frames, 1))
    progress = time / max(num_frames - 1, FULL_TRAVEL_FRAMES - 1) * thing.travel
    if thing.motion in ("right", "down"):
        axis = 1 if thing.motion == "right" else 0
        share[:, axis] = start[axis] * (1 - thing.travel) + progress
    elif thing.motion in ("left", "up"):
        axis = 1 if thing.motion == "left" else 0
        share[:, axis] = 1 - start[axis] * (1 - thing.travel) - progress
    elif thing.motion == "bouncing":
        height = np.abs(np.sin(np.pi * (time / thing.bounce_period + thing.bounce_phase)))
        share[:, 0] = 1 - thing.travel * height
    return (low + free * share).astype(np.float32)


def _peaks(rng: np.random.Generator, width: float, x: Array) -> Array:
    """Height of a mountain ridge above the horizon at every x (W,)."""
    count = max(2, round(2.5 * width))
    centres = (np.arange(count) + rng.uniform(0.2, 0.8, count)) * width / count
    tall = rng.uniform(0.16, 0.3, count)
    steep = rng.uniform(0.9, 1.3, count)
    ridge = tall[:, None] - np.abs(x[None] - centres[:, None]) * steep[:, None]
    return np.maximum(ridge.max(axis=0), 0).astype(np.float32)


def _blocks(rng: np.random.Generator, width: float, x: Array, *, pointed: bool) -> Array:
    """Height of a row of trees (pointed) or buildings above the horizon at every x."""
    step = 0.15 if pointed else 0.17
    count = int(width / step) + 2
    centres = (np.arange(count) + rng.uniform(0.1, 0.5, count)) * step
    tall = rng.uniform(0.12, 0.24, count) if pointed else rng.uniform(0.1, 0.34, count)
    away = np.abs(x[None] - centres[:, None])
    if pointed:
        rows = tall[:, None] * (1 - away / (0.75 * step))
    else:
        rows = np.where(away < 0.42 * step, tall[:, None], 0)
    return np.maximum(rows.max(axis=0), 0).astype(np.float32)


def _sun(seed: int, sky: str, image: Array, x: Array, y: Array, horizon: float) -> None:
    rng = np.random.default_rng(seed)
    across = rng.uniform(0.2, 0.8) * float(x[-1])
    down = horizon if sky == "sunset" else horizon * rng.uniform(0.2, 0.4)
    radius = 0.11 if sky == "sunset" else 0.075
    distance = shape_distance("ball", x[None] - across, y[:, None] - down, radius)
    _blend(image, SUN_COLOURS[sky], _cover(distance, float(x[1] - x[0])))


def _static(scene: Scene, sky: str, x: Array, y: Array) -> Array:
    """The part of a place that stands still, (H, W, 3)."""
    rng = np.random.default_rng(scene.layout_seed)
    pixel = float(x[1] - x[0])
    bottom = float(y[-1]) + pixel / 2
    horizon = HORIZON * bottom
    top, low = (_unit(c) for c in SKY_COLOURS[sky])
    gradient = top + (low - top) * np.clip(y / horizon, 0, 1)[:, None]
    image = np.repeat(gradient[:, None], len(x), axis=1).astype(np.float32)
    if scene.sun:
        _sun(scene.layout_seed + 3, sky, image, x, y, horizon)
    above = (horizon - y)[:, None]  # height above the horizon, (H, 1)
    if scene.mountains or scene.background == "mountains":
        ridge = _peaks(rng, float(x[-1]), x)[None]
        rock, cap = PEAK_COLOURS[sky]
        _blend(image, rock, _cover(above - ridge, pixel))
        _blend(image, cap, _cover(np.maximum(above - ridge, 0.17 - above), pixel))
    if scene.background in ("forest", "city"):
        pointed = scene.background == "forest"
        colours = TREE_COLOURS if pointed else BUILDING_COLOURS
        row = _blocks(rng, float(x[-1]), x, pointed=pointed)[None]
        _blend(image, colours[sky], _cover(above - row, pixel))
    ground = _cover(np.broadcast_to(above, image.shape[:2]), pixel)
    _blend(image, GROUND_COLOURS[scene.background][sky], ground)
    return image


def _waves(scene: Scene, frames: Array, y: Array) -> None:
    """Brighten and darken the water in slow bands, in place on (T, H, W, 3)."""
    horizon = HORIZON * (2 * float(y[-1]) - float(y[-2]))
    depth = np.clip((y - horizon) / 0.08, 0, 1)[None]
    size, speed = (0.05, 0.05) if scene.background == "sea" else (0.022, 0.025)
    time = np.arange(len(frames), dtype=np.float32)[:, None]
    phase = np.random.default_rng(scene.layout_seed + 1).uniform(0, 2 * np.pi)
    band = size * np.sin(2 * np.pi * (y[None] / 0.17 - speed * time) + phase) * depth
    frames += band[:, :, None, None].astype(np.float32)


def _drifting(scene: Scene, sky: str, frames: Array, x: Array, y: Array) -> None:
    """Clouds and a boat, moving slowly, in place on (T, H, W, 3)."""
    rng = np.random.default_rng(scene.layout_seed + 2)
    pixel, width = float(x[1] - x[0]), float(x[-1])
    horizon = HORIZON * float(y[-1])
    clouds = rng.uniform((0.1, 0.12), (0.9, 0.5), (2, 2)) * (width, horizon)
    boat = rng.uniform(0.2, 0.8) * width
    for index, frame in enumerate(frames):
        drift = 0.002 * index
        for across, down in clouds if scene.clouds else ():
            wide = (x[None] - across - drift) / 0.2
            distance = np.sqrt(wide**2 + ((y[:, None] - down) / 0.075) ** 2) - 1
            _blend(frame, CLOUD_COLOURS[sky], np.clip(-4 * distance, 0, 0.85))
        if scene.boat:
            left, down = x[None] - boat - drift, y[:, None] - horizon - 0.1
            sail = shape_distance("triangle", left, down + 0.075, 0.075)
            _blend(frame, (206, 196, 180), _cover(sail, pixel))
            hull = np.maximum(np.abs(left) - 0.11, np.abs(down - 0.02) - 0.022)
            _blend(frame, (92, 44, 30), _cover(hull, pixel))


def _draw_thing(thing: Thing, frames: Array, x: Array, y: Array) -> None:
    pixel = float(x[1] - x[0])
    aspect = (float(y[-1]) + pixel / 2, float(x[-1]) + pixel / 2)
    for frame, (down, across) in zip(frames, path(thing, aspect, len(frames)), strict=True):
        reach = 1.1 * thing.radius + 2 * pixel
        rows = slice(*np.searchsorted(y, (down - reach, down + reach)))
        columns = slice(*np.searchsorted(x, (across - reach, across + reach)))
        distance = shape_distance(
            thing.shape, x[None, columns] - across, y[rows, None] - down, thing.radius
        )
        _blend(frame[rows, columns], COLOURS[thing.colour], _cover(distance, pixel))


def render(scene: Scene, height: int, width: int, num_frames: int) -> Array:
    """Draw a scene.

    Returns: (num_frames, height, width, 3) float32 in 0..1.
    """
    side = min(height, width)
    x = ((np.arange(width) + 0.5) / side).astype(np.float32)
    y = ((np.arange(height) + 0.5) / side).astype(np.float32)
    if scene.sky is None:
        still = np.broadcast_to(_unit(PLAIN[scene.background]), (height, width, 3))
    else:
        still = _static(scene, scene.sky, x, y)
    frames = np.repeat(still[None], num_frames, axis=0)
    if scene.background in ("sea", "lake"):
        _waves(scene, frames, y)
    if scene.sky is not None and (scene.clouds or scene.boat):
        _drifting(scene, scene.sky, frames, x, y)
    if scene.thing is not None:
        _draw_thing(scene.thing, frames, x, y)
    return np.clip(frames, 0, 1)
