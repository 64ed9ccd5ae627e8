"""Fit the previews of a bundled checkpoint to scenes of the drawn world, and write its map.

python -m training.previews --checkpoint checkpoints/mochi-tiny --family mochi

Weights from elsewhere are fitted by `make weights`, to clips that are drawn for that.
"""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from deployments.models.preview_fit import AUTOENCODERS, fit
from training.render import render
from training.scenes import draw_training_scene

CLIPS, FRAMES, SIDE = 40, 13, 96
_log = logging.getLogger(__name__)


def scene_clips(seed: int, count: int) -> Iterator[torch.Tensor]:
    """Clips (1, 3, 13, 96, 96) in [-1, 1]."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        frames = render(draw_training_scene(rng), SIDE, SIDE, FRAMES)
        yield torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--family", choices=list(AUTOENCODERS), required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = fit(
        AUTOENCODERS[arguments.family](arguments.checkpoint), scene_clips(arguments.seed, CLIPS)
    )
    found.preview_map.write(arguments.checkpoint)
    _log.info("%s: R2 %.4f on scenes not fitted to", arguments.checkpoint, found.r_squared)


if __name__ == "__main__":
    main()
