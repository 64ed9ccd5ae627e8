"""Train the transformer and its text encoder by flow matching, for a given number of minutes.

Mochi's convention: x_s = (1 - s) noise + s data, the model predicts data - noise, timestep
1000 s. Stops and resumes at any time; runs on one core, on several (torchrun), or on a GPU
machine's CPUs:

    python -m training.train_transformer --minutes 90
    torchrun --nproc_per_node 2 -m training.train_transformer --minutes 90
"""

import argparse
import json
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.clips import ClipStream
from training.latents import LatentSpace
from training.models import TextToVelocity, new_model

PEAK_RATE, FINAL_SHARE, WARM_UP_STEPS = 1.5e-3, 0.02, 100
# A frequency is multiplied by up to 96 units: at the full rate every step would shake positions.
POSITION_RATE_SHARE = 0.05
EMA_DECAY = 0.999
SAVE_EVERY_S = 120.0
LONGEST_STEP_S = 5.0  # what a step may count for: compiling is not training
_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where the training stands; `elapsed_s` counts training steps only."""

    step: int = 0
    elapsed_s: float = 0.0


def learning_rate(progress: float, steps_since_start: int) -> float:
    """Cosine from the peak to 2 % of it, warming up again after every resume."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
    warm = min(1.0, (steps_since_start + 1) / WARM_UP_STEPS)
    return PEAK_RATE * warm * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)


def draw_shares(count: int) -> Tensor:
    """Shares of data (count,), logit-normal, spread evenly over a batch for a calmer gradient."""
    even = (torch.randperm(count) + torch.rand(count)) / count
    return torch.sigmoid(1.2 * torch.special.ndtri(even.clamp(1e-4, 1 - 1e-4)) - 0.3)


def flow_loss(model: TextToVelocity, latents: Tensor, captions: list[str]) -> Tensor:
    """Mean squared error of the velocity at a logit-normal share of data."""
    clean_share = draw_shares(len(captions))
    share = clean_share.view(-1, 1, 1, 1, 1)
    noise = torch.randn_like(latents)
    noisy = torch.lerp(noise, latents, share)
    return nn.functional.mse_loss(model(noisy, clean_share, captions), latents - noise)


def _average(parameters: list[nn.Parameter], elapsed_s: float) -> float:
    """Average gradients (and the clock, so that all workers stop together) over workers."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor([elapsed_s])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()
    return float(flat[-1])


class Trainer:
    """Model, optimiser, running average and the file they are kept in."""

    def __init__(self, arguments: argparse.Namespace, rank: int, workers: int) -> None:
        self.out: Path = arguments.out
        self.budget_s = 60.0 * arguments.minutes
        self.rank, self.workers = rank, workers
        self.model = new_model(arguments.tokenizer, arguments.seed)
        self.modules = self.model.modules()
        self.parameters = list(self.modules.parameters())
        self.average = {k: v.clone() for k, v in self.modules.state_dict().items()}
        positions = self.model.transformer.pos_frequencies
        others = [p for p in self.parameters if p is not positions]
        groups = [
            {"params": others, "share": 1.0},
            {"params": [positions], "share": POSITION_RATE_SHARE},
        ]
        self.optimiser = torch.optim.AdamW(
            groups, PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01, fused=True
        )
        self.progress = Progress()
        self._resume()
        space = LatentSpace.load(arguments.latent_space)
        seed = arguments.seed + self.progress.step
        self.stream = ClipStream(space, seed, arguments.batch_tokens, rank)
        torch.manual_seed(seed * 1000 + rank)
        if arguments.compile:
            for block in self.model.transformer.transformer_blocks:
                block.compile(dynamic=True)

    def _resume(self) -> None:
        path = self.out / "state.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.modules.load_state_dict(state["modules"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = state["average"]
        self.progress = Progress(**state["progress"])

    def save(self) -> None:
        """Write everything needed to go on, atomically."""
        state = {
            "modules": self.modules.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "progress": vars(self.progress),
        }
        torch.save(state, self.out / "state.tmp")
        (self.out / "state.tmp").replace(self.out / "state.pt")

    def step(self, steps_since_start: int) -> tuple[float, int, int]:
        """One optimiser step; returns its loss, clips, and visual tokens of a clip."""
        began = time.monotonic()
        share = self.progress.elapsed_s / self.budget_s
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * learning_rate(share, steps_since_start)
        latents, captions = self.stream.batch(min(share, 1.0))
        loss = flow_loss(self.model, latents, captions)
        self.optimiser.zero_grad()
        loss.backward()
        elapsed_s = self.progress.elapsed_s
        if self.workers > 1:
            elapsed_s = _average(self.parameters, elapsed_s)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self._update_average()
        self.progress.step += 1
        self.progress.elapsed_s = elapsed_s + min(time.monotonic() - began, LONGEST_STEP_S)
        return loss.item(), len(captions), latents[0, 0].numel() // 4

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(EMA_DECAY, (1 + self.progress.step) / (10 + self.progress.step))
        for name, value in self.modules.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def run(self) -> None:
        """Train until the time is used up."""
        saved, steps, recent = time.monotonic(), 0, 1.0
        while self.progress.elapsed_s < self.budget_s:
            loss, clips, tokens = self.step(steps)
            steps += 1
            recent += (loss - recent) * max(0.02, 1 / steps)
            if self.rank:
                continue
            if steps % 25 == 0:
                record = {
                    "step": self.progress.step,
                    "elapsed_s": round(self.progress.elapsed_s, 1),
                    "loss": round(recent, 4),
                    "clips": clips,
                    "tokens": tokens,
                }
                _log.info(json.dumps(record))
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        if not self.rank:
            self.save()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-tokens", type=int, default=1536, help="visual tokens a worker")
    parser.add_argument("--compile", action="store_true", help="1.3 times faster, 3 minutes first")
    parser.add_argument("--out", type=Path, default=Path("training/runs/transformer"))
    parser.add_argument("--latent-space", type=Path, default=Path("training/runs/latent_space.npz"))
    parser.add_argument("--tokenizer", type=Path, default=Path("checkpoints/mochi-tiny/tokenizer"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if workers > 1:
        dist.init_process_group("gloo")
        torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    Trainer(arguments, rank, workers).run()


if __name__ == "__main__":
    main()
