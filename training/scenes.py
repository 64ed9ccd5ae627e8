"""The drawn world: its vocabulary, what a scene consists of, and which scenes are held out.

Pure data and random choice; drawing is in `render`, words are in `captions`. Lengths are in
units of the frame's shorter side, colours are sRGB in 0..255, the y axis points down.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

Rgb = tuple[int, int, int]

COLOURS: Final[dict[str, Rgb]] = {
    "red": (230, 38, 31),
    "green": (38, 179, 51),
    "blue": (38, 77, 230),
    "yellow": (242, 217, 38),
    "purple": (140, 51, 179),
    "orange": (242, 128, 26),
    "white": (242, 242, 242),
    "pink": (242, 128, 179),
}
PLAIN: Final[dict[str, Rgb]] = {
    "black": (8, 8, 8),
    "gray": (128, 128, 128),
    "teal": (26, 128, 128),
    "brown": (115, 77, 38),
}
SHAPES: Final = ("ball", "square", "triangle")
MOTIONS: Final = ("left", "right", "up", "down", "bouncing", "still")
SKIES: Final = ("noon", "sunset", "night")
# Sky gradient, zenith and horizon.
SKY_COLOURS: Final[dict[str, tuple[Rgb, Rgb]]] = {
    "noon": ((96, 160, 236), (176, 216, 248)),
    "sunset": ((92, 58, 112), (252, 176, 110)),
    "night": ((10, 12, 36), (32, 38, 84)),
}
# Ground colour of a place under each sky; chosen to stay apart from each other (the judge
# measures them) and from the object colours.
GROUND_COLOURS: Final[dict[str, dict[str, Rgb]]] = {
    "sea": {"noon": (28, 84, 150), "sunset": (70, 70, 130), "night": (10, 34, 92)},
    "lake": {"noon": (70, 150, 190), "sunset": (150, 120, 150), "night": (34, 86, 128)},
    "mountains": {"noon": (134, 104, 78), "sunset": (128, 86, 66), "night": (84, 56, 40)},
    "meadow": {"noon": (120, 170, 70), "sunset": (112, 132, 48), "night": (44, 84, 40)},
    "desert": {"noon": (220, 186, 124), "sunset": (214, 150, 96), "night": (104, 86, 62)},
    "forest": {"noon": (34, 84, 44), "sunset": (50, 62, 36), "night": (12, 40, 24)},
    "city": {"noon": (104, 106, 112), "sunset": (92, 78, 88), "night": (58, 58, 70)},
    "snow": {"noon": (228, 236, 244), "sunset": (226, 190, 196), "night": (112, 124, 160)},
}
PLACES: Final = tuple(GROUND_COLOURS)
BACKGROUNDS: Final = (*PLAIN, *PLACES)
# What may stand on the horizon besides what belongs to the place.
MOUNTAIN_PLACES: Final = ("sea", "lake", "meadow", "desert", "snow")

MARGIN: Final = 0.05
MIN_RADIUS, MAX_RADIUS = 0.19, 0.235
# Objects keep to the middle of the frame and cross most of it: where they are is nearly settled by
# the prompt, which a network of this size learns in minutes instead of hours.
MIDDLE: Final = (0.38, 0.62)
# Nearer than this (RGB distance, 1 = 255) an object could not be told from its background.
MIN_CONTRAST: Final = 0.2
HELD_OUT_SHARE: Final = 10  # one combination in ten
FULL_TRAVEL_FRAMES: Final = 19  # shorter clips show a part of the travel


@dataclass(frozen=True)
class Thing:
    """The moving object. `start` (down, across) and `travel` are shares of the free path, 0..1."""

    colour: str
    shape: str
    motion: str
    radius: float
    start: tuple[float, float]
    travel: float
    bounce_period: float  # frames from ground to ground
    bounce_phase: float


@dataclass(frozen=True)
class Scene:
    """All that a clip shows; rendering it is deterministic."""

    background: str
    sky: str | None  # None on a plain background
    thing: Thing | None
    mountains: bool = False
    clouds: bool = False
    boat: bool = False
    sun: bool = False  # the moon at night
    layout_seed: int = 0  # silhouettes, waves, where sun, clouds and boat are


def contrast(first: Rgb, second: Rgb) -> float:
    """Euclidean RGB distance, 1 = 255 levels."""
    return float(np.linalg.norm(np.subtract(first, second))) / 255


def is_visible(colour: str, background: str, sky: str | None) -> bool:
    """Whether an object of this colour stands out everywhere on this background."""
    if sky is None:
        return contrast(COLOURS[colour], PLAIN[background]) >= MIN_CONTRAST
    behind = (*SKY_COLOURS[sky], GROUND_COLOURS[background][sky])
    return all(contrast(COLOURS[colour], other) >= MIN_CONTRAST for other in behind)


def is_held_out(colour: str, shape: str, motion: str, background: str) -> bool:
    """Whether this combination is never drawn in training (fixed for ever by its name)."""
    key = f"{colour} {shape} {motion} {background}".encode()
    return hashlib.sha256(key).digest()[0] % HELD_OUT_SHARE == 0


def held_out_combinations() -> list[tuple[str, str, str, str]]:
    """All (colour, shape, motion, background) kept from training, in a fixed order."""
    return [
        (colour, shape, motion, background)
        for colour in COLOURS
        for shape in SHAPES
        for motion in MOTIONS
        for background in BACKGROUNDS
        if is_held_out(colour, shape, motion, background)
    ]


def draw_thing(rng: np.random.Generator, colour: str, shape: str, motion: str) -> Thing:
    """Choose size, path and timing for an object."""
    return Thing(
        colour=colour,
        shape=shape,
        motion=motion,
        radius=float(rng.uniform(MIN_RADIUS, MAX_RADIUS)),
        start=(float(rng.uniform(*MIDDLE)), float(rng.uniform(*MIDDLE))),
        travel=float(rng.uniform(0.85, 1.0)),
        bounce_period=float(rng.uniform(23, 25)),
        bounce_phase=float(rng.uniform(0, 0.08)),
    )


def draw_scene(
    rng: np.random.Generator,
    *,
    background: str | None = None,
    sky: str | None = None,
    thing: Thing | None = None,
) -> Scene:
    """A random scene around the given parts, with extras rarely."""
    if background is None:
        background = str(rng.choice(BACKGROUNDS if thing is not None else PLACES))
    seed = int(rng.integers(2**31))
    if background in PLAIN:
        return Scene(background, None, thing, layout_seed=seed)
    sky = sky or str(rng.choice(SKIES))
    extras = rng.uniform(size=4) < (0.12 if thing is not None else 0.35)
    light = thing is not None and thing.colour in ("white", "yellow")
    return Scene(
        background,
        sky,
        thing,
        mountains=background in MOUNTAIN_PLACES and bool(extras[0]),
        clouds=bool(extras[1]) and not light,
        boat=background in ("sea", "lake") and bool(extras[2]) and not light,
        sun=not light and ((thing is None and sky != "noon") or bool(extras[3])),
        layout_seed=seed,
    )


def draw_training_scene(rng: np.random.Generator) -> Scene:
    """A random scene whose combination is allowed in training: 4 in 5 with an object."""
    if rng.uniform() < 0.2:
        return draw_scene(rng)
    while True:
        colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
        motion = str(rng.choice(MOTIONS))
        # Places have more to learn than plain colours: two scenes in three.
        background = str(rng.choice(tuple(PLAIN) if rng.uniform() < 1 / 3 else PLACES))
        sky = None if background in PLAIN else str(rng.choice(SKIES))
        if is_held_out(colour, shape, motion, background):
            continue
        if is_visible(colour, background, sky):
            thing = draw_thing(rng, colour, shape, motion)
            return draw_scene(rng, background=background, sky=sky, thing=thing)
