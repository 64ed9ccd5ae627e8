"""An endless stream of training batches: rendered scenes as latents, with captions.

Clips are kept in a pool per size and each is used a few times with fresh noise and a fresh
caption, so that rendering costs a few percent of a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.captions import training_caption
from training.latents import GROUP, PATCH, LatentSpace
from training.render import render
from training.scenes import Scene, draw_training_scene

POOL_CLIPS: Final = 1500
USES: Final = 4  # how often a clip is seen before it is replaced


@dataclass(frozen=True)
class Size:
    """Height and width in pixels, length in frames (a multiple of the group, and 1)."""

    height: int
    width: int
    num_frames: int

    def tokens(self, group: int = GROUP) -> int:
        """Visual tokens of the transformer: 2x2 latent positions each, `group` frames a latent."""
        per_frame = (self.height // (2 * PATCH)) * (self.width // (2 * PATCH))
        return per_frame * ((self.num_frames - 1) // group + 1)


# (until this share of the training, [(weight, size)]): small and short first, then the native
# area in several aspect ratios and long clips.
Sizes = list[tuple[float, Size]]

SMALL: Final[Sizes] = [
    (3, Size(64, 64, 19)),
    (2, Size(64, 64, 13)),
    (1, Size(64, 64, 7)),
    (1, Size(64, 64, 37)),
]
NATIVE: Final[Sizes] = [
    (4, Size(96, 96, 25)),
    (2, Size(96, 96, 13)),
    (1, Size(64, 64, 25)),
    (0.7, Size(96, 96, 49)),
    (0.15, Size(96, 96, 97)),
    (0.07, Size(96, 96, 163)),
    (0.1, Size(96, 96, 1)),
    (0.4, Size(80, 112, 25)),
    (0.4, Size(112, 80, 25)),
    (0.3, Size(64, 128, 25)),
    (0.3, Size(128, 64, 25)),
]
CURRICULUM: Final = ((0.1, SMALL), (1.01, NATIVE))


def choose_size(
    rng: np.random.Generator, curriculum: Sequence[tuple[float, Sizes]], progress: float
) -> Size:
    """One of the weighted sizes for this share (0..1) of the training."""
    weights, sizes = zip(
        *next(sizes for until, sizes in curriculum if progress < until), strict=True
    )
    return sizes[int(rng.choice(len(sizes), p=np.asarray(weights) / sum(weights)))]


class ClipStream:
    """Batches of one size each, deterministic by seed."""

    def __init__(self, space: LatentSpace, seed: int, batch_tokens: int, rank: int = 0) -> None:
        self._space = space
        self._rng = np.random.default_rng((seed, rank))
        self._size_rng = np.random.default_rng(seed)  # all workers train on the same size
        self._batch_tokens = batch_tokens
        self._pools: dict[Size, list[tuple[Scene, Tensor]]] = {}

    def _new_clip(self, size: Size) -> tuple[Scene, Tensor]:
        scene = draw_training_scene(self._rng)
        frames = render(scene, size.height, size.width, size.num_frames)
        return scene, torch.from_numpy(self._space.encode(frames)).half()

    def batch(self, progress: float) -> tuple[Tensor, list[str]]:
        """Latents (B, 12, T, h, w) float32 and a caption for each."""
        size = choose_size(self._size_rng, CURRICULUM, progress)
        count = max(2, round(self._batch_tokens / size.tokens()))
        pool = self._pools.setdefault(size, [])
        filling = len(pool) < POOL_CLIPS
        for _ in range(count if filling else max(1, count // USES)):
            clip = self._new_clip(size)
            if filling:
                pool.append(clip)
            else:
                pool[int(self._rng.integers(len(pool)))] = clip
        # While the pool fills, the newest clips are the batch; later any of the pool.
        chosen = pool[-count:] if filling else [pool[i] for i in self._draw(len(pool), count)]
        latents = torch.stack([clip for _, clip in chosen]).float()
        return latents, [training_caption(self._rng, scene) for scene, _ in chosen]

    def _draw(self, total: int, count: int) -> list[int]:
        return [int(i) for i in self._rng.choice(total, count, replace=False)]
