"""Train the tiny Mochi and its text encoder by flow matching, for a given number of minutes.

Mochi's convention: x_s = (1 - s) noise + s data, the model predicts data - noise, timestep
1000 s. Stops and resumes at any time; runs on one core, on several (torchrun), or on a GPU
machine's CPUs:

    python -m training.train_transformer --minutes 90
    torchrun --nproc_per_node 2 -m training.train_transformer --minutes 90
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from training.clips import ClipStream
from training.latents import LatentSpace
from training.models import TextToVelocity, load_exported, new_model
from training.trainer import Loss, draw_shares, parser, train


def flow_loss(model: TextToVelocity, latents: Tensor, captions: list[str]) -> Tensor:
    """Mean squared error of the velocity at a logit-normal share of data."""
    clean_share = draw_shares(len(captions), latents[0, 0].numel() // 4)
    share = clean_share.view(-1, 1, 1, 1, 1)
    noise = torch.randn_like(latents)
    noisy = torch.lerp(noise, latents, share)
    velocity = model(noisy, clean_share, captions).float()
    return nn.functional.mse_loss(velocity, latents - noise)


class MochiTask:
    """Text to video alone."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.model = new_model(arguments.tokenizer, arguments.seed)
        self.modules = self.model.modules()
        if arguments.start_from is not None and not (arguments.out / "state.pt").exists():
            load_exported(self.model, arguments.start_from)
        self._space = LatentSpace.load(arguments.latent_space)
        self._batch_tokens: int = arguments.batch_tokens

    def blocks(self) -> Iterable[nn.Module]:
        """The transformer's blocks."""
        blocks: Iterable[nn.Module] = self.model.transformer.transformer_blocks
        return blocks

    def slow_parameters(self) -> list[nn.Parameter]:
        """The learned position frequencies."""
        return [self.model.transformer.pos_frequencies]

    def begin(self, seed: int, rank: int) -> None:
        """Start the stream of clips."""
        self._stream = ClipStream(self._space, seed, self._batch_tokens, rank)

    def draw(self, progress: float) -> tuple[Tensor, list[str]]:
        """Latents and captions."""
        return self._stream.batch(progress)

    def loss(self, batch: tuple[Tensor, list[str]]) -> Loss:
        """Of the predicted velocity."""
        latents, captions = batch
        value = flow_loss(self.model, latents, captions)
        return Loss(value, len(captions), latents[0, 0].numel() // 4)


def main() -> None:
    """Command line."""
    options = parser(__doc__, Path("training/runs/transformer"), Path("training/latent_space.npz"))
    options.add_argument("--tokenizer", type=Path, default=Path("checkpoints/mochi-tiny/tokenizer"))
    train(MochiTask, options.parse_args())


if __name__ == "__main__":
    main()
