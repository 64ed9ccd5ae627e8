"""Endless training batches for the tiny Open-Sora: latents, captions and given images.

As for the tiny Mochi, clips are kept in a pool per size and used a few times, each time with a
fresh caption, fresh noise and a freshly chosen task: text alone, or with the first image, the last
image or both.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from deployments.models.opensora.packing import make_condition
from deployments.models.opensora.text import prompt_with_suffix
from training.captions import training_caption
from training.clips import Size, Sizes, choose_size
from training.latents import LatentSpace
from training.pictures import moving_picture
from training.render import render
from training.scenes import Scene, draw_scene, draw_training_scene

POOL_CLIPS: Final = 1200
USES: Final = 4  # how often a clip is seen before it is replaced
# Clips that always begin with their image: natural-like pictures, and scenes that go on after
# their path's end, as the second part of a long clip does.
PICTURE_SHARE: Final = 0.07
CONTINUED_SHARE: Final = 0.06
# (share, first image given, last image given)
TASKS: Final = ((0.45, False, False), (0.35, True, False), (0.08, False, True), (0.12, True, True))
# How captions end: nearly always as the service ends prompts by default.
FPS: Final = 24
MOTION_SCORE: Final = 4
OTHER_SUFFIX_SHARE: Final = 0.1

SMALL: Final[Sizes] = [
    (3, Size(64, 64, 17)),
    (2, Size(64, 64, 13)),
    (1, Size(64, 64, 9)),
    (1, Size(64, 64, 33)),
]
NATIVE: Final[Sizes] = [
    (4, Size(96, 96, 25)),
    (2.5, Size(96, 96, 13)),
    (1, Size(64, 64, 25)),
    (0.5, Size(96, 96, 49)),
    (0.12, Size(96, 96, 97)),
    (0.05, Size(96, 96, 1)),
    (0.3, Size(80, 112, 25)),
    (0.2, Size(112, 80, 25)),
    (0.2, Size(64, 128, 25)),
    (0.1, Size(128, 64, 25)),
]
CURRICULUM: Final = ((0.12, SMALL), (1.01, NATIVE))


@dataclass(frozen=True)
class Clip:
    """A clip as the transformer sees it.

    `latents` is (16, T, h, w); `last` (16, 1, h, w) is its last frame encoded as an image, which
    is how it will be given: the clip's own last latents stand for four frames. `told` is what the
    caption says; None means a natural-like picture, of which it says anything. `needs_first` says
    that the clip makes sense only with its first image given.
    """

    latents: Tensor
    last: Tensor
    told: Scene | None
    needs_first: bool


@dataclass(frozen=True)
class Batch:
    """Clips of one size: latents (B, 16, T, h, w), packed condition (B, L, 68), captions."""

    latents: Tensor
    condition: Tensor
    captions: list[str]


def suffixed(rng: np.random.Generator, caption: str) -> str:
    """A caption with Open-Sora's suffix; the empty one stays empty, as negative prompts are."""
    if not caption:
        return caption
    if rng.uniform() < OTHER_SUFFIX_SHARE:
        return prompt_with_suffix(caption, int(rng.integers(8, 31)), int(rng.integers(1, 8)))
    return prompt_with_suffix(caption, FPS, MOTION_SCORE)


def continued(scene: Scene, num_frames: int) -> Scene:
    """The scene as it goes on after a clip: what bounced bounces, what moved has arrived."""
    thing = scene.thing
    if thing is None or thing.motion == "still":
        return scene
    if thing.motion == "bouncing":
        phase = thing.bounce_phase + (num_frames - 1) / thing.bounce_period
        return replace(scene, thing=replace(thing, bounce_phase=phase))
    axis = 1 if thing.motion in ("left", "right") else 0
    share = thing.start[axis] * (1 - thing.travel)
    arrived = list(thing.start)
    forward = thing.motion in ("right", "down")
    arrived[axis] = share + thing.travel if forward else 1 - share - thing.travel
    resting = replace(thing, motion="still", start=(arrived[0], arrived[1]))
    return replace(scene, thing=resting)


def new_clip(rng: np.random.Generator, space: LatentSpace, size: Size) -> Clip:
    """Draw a scene or, now and then, a natural-like picture or a scene that goes on."""
    shape = size.height, size.width, size.num_frames
    chance = rng.uniform()
    told = None if chance < PICTURE_SHARE else draw_training_scene(rng)
    goes_on = PICTURE_SHARE <= chance < PICTURE_SHARE + CONTINUED_SHARE
    if told is None:
        frames = moving_picture(rng, *shape)
    else:
        frames = render(continued(told, size.num_frames) if goes_on else told, *shape)
    latents, last = (torch.from_numpy(space.encode(part)).half() for part in (frames, frames[-1:]))
    return Clip(latents, last, told, needs_first=told is None or goes_on)


def conditions(latents: Tensor, last: Tensor, has_first: Tensor, has_last: Tensor) -> Tensor:
    """Packed condition (B, L, 68), for each clip with the images that it is given.

    Args:
        latents: (B, 16, T, h, w), T at least 2.
        last: (B, 16, 1, h, w), the last frame as an image.
        has_first: (B,), bool, and `has_last` alike.
    """
    by_first = make_condition(latents.shape, first=latents[:, :, :1])
    by_last = make_condition(latents.shape, last=last)
    return by_first * has_first[:, None, None] + by_last * has_last[:, None, None]


class ConditionedStream:
    """Batches of one size each, deterministic by seed."""

    def __init__(self, space: LatentSpace, seed: int, batch_tokens: int, rank: int = 0) -> None:
        self._space = space
        self._rng = np.random.default_rng((seed, rank))
        self._size_rng = np.random.default_rng(seed)  # all workers train on the same size
        self._batch_tokens = batch_tokens
        self._pools: dict[Size, list[Clip]] = {}

    def batch(self, progress: float) -> Batch:
        """The next batch, at this share (0..1) of the training."""
        size = choose_size(self._size_rng, CURRICULUM, progress)
        count = max(2, round(self._batch_tokens / size.tokens(self._space.group)))
        chosen = self._clips(size, count)
        latents = torch.stack([clip.latents for clip in chosen]).float()
        last = torch.stack([clip.last for clip in chosen]).float()
        tasks = self._rng.choice(len(TASKS), count, p=[share for share, *_ in TASKS])
        given = torch.tensor([TASKS[task][1:] for task in tasks])
        given[:, 0] |= torch.tensor([clip.needs_first for clip in chosen])
        if latents.shape[2] == 1:
            condition = make_condition(latents.shape)
        else:
            condition = conditions(latents, last, given[:, 0], given[:, 1])
        return Batch(latents, condition, [self._caption(clip) for clip in chosen])

    def _caption(self, clip: Clip) -> str:
        # What is asked of a photo has nothing to do with it; the image wins.
        scene = clip.told or draw_scene(self._rng)
        return suffixed(self._rng, training_caption(self._rng, scene))

    def _clips(self, size: Size, count: int) -> list[Clip]:
        """While the pool fills, the newest clips; later any of it, a part of it replaced."""
        pool = self._pools.setdefault(size, [])
        if len(pool) < POOL_CLIPS:
            pool.extend(new_clip(self._rng, self._space, size) for _ in range(count))
            return pool[-count:]
        for _ in range(max(1, count // USES)):
            clip = new_clip(self._rng, self._space, size)
            pool[int(self._rng.integers(len(pool)))] = clip
        return [pool[int(i)] for i in self._rng.choice(len(pool), count, replace=False)]
