"""Train the tiny Open-Sora and its text encoders by flow matching, for a number of minutes.

Open-Sora's convention: x_t = (1 - t) data + t noise, the model predicts noise - data. One network
learns text alone, and text with the first image, the last image or both. Stops and resumes at any
time:

    torchrun --nproc_per_node 2 -m training.opensora.train --minutes 90 --compile
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from training.latents import LatentSpace
from training.opensora.clips import Batch, ConditionedStream
from training.opensora.models import ConditionedVelocity, load_exported, new_model
from training.trainer import Loss, draw_shares, parser, train

CHECKPOINT: Final = Path("checkpoints/opensora-tiny")
RUN: Final = Path("training/runs/opensora-transformer")
LATENT_SPACE: Final = Path("training/opensora/latent_space.npz")


def flow_loss(model: ConditionedVelocity, batch: Batch) -> Tensor:
    """Mean squared error of the velocity at a logit-normal time."""
    latents = batch.latents
    time = 1 - draw_shares(len(latents), batch.condition.shape[1])
    noise = torch.randn_like(latents)
    noisy = torch.lerp(latents, noise, time.view(-1, 1, 1, 1, 1))
    velocity = model(noisy, batch.condition, time, batch.captions).float()
    return nn.functional.mse_loss(velocity, noise - latents)


class OpenSoraTask:
    """Text to video, with and without images."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.model = new_model(arguments.tokenizers, arguments.seed)
        self.modules = self.model.modules()
        if arguments.start_from is not None and not (arguments.out / "state.pt").exists():
            load_exported(self.model, arguments.start_from)
        self._space = LatentSpace.load(arguments.latent_space)
        self._batch_tokens: int = arguments.batch_tokens

    def blocks(self) -> Iterable[nn.Module]:
        """Double and single blocks of the transformer."""
        return self.model.blocks()

    def slow_parameters(self) -> list[nn.Parameter]:
        """None: positions are fixed."""
        return []

    def begin(self, seed: int, rank: int) -> None:
        """Start the stream of clips."""
        self._stream = ConditionedStream(self._space, seed, self._batch_tokens, rank)

    def draw(self, progress: float) -> Batch:
        """Latents, condition and captions."""
        return self._stream.batch(progress)

    def loss(self, batch: Batch) -> Loss:
        """Of the predicted velocity."""
        value = flow_loss(self.model, batch)
        return Loss(value, len(batch.captions), batch.condition.shape[1])


def main() -> None:
    """Command line."""
    options = parser(__doc__, RUN, LATENT_SPACE)
    options.add_argument("--tokenizers", type=Path, default=CHECKPOINT, help="their checkpoint")
    train(OpenSoraTask, options.parse_args())


if __name__ == "__main__":
    main()
