"""Train a network by flow matching, for a given number of minutes: what both transformers share.

What differs between them is a `Task`: the modules, and the loss of the next batch. Stops and
resumes at any time; runs on one core, on several (torchrun), or on a GPU machine's CPUs.
"""

import argparse
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.muon import Muon

PEAK_RATE, FINAL_SHARE, WARM_UP_STEPS = 1.5e-3, 0.02, 30
# A position frequency is multiplied by up to 96 units: at the full rate every step would shake
# positions.
SLOW_RATE_SHARE = 0.05
EMA_DECAY = 0.998
DECAY_SHARE = 0.4  # of the training, at its end
# Workers train apart and average their weights: on shared cores, waiting for each other at every
# step would cost a third of the time.
MEET_EVERY_STEPS = 8
SAVE_EVERY_S = 120.0
LONGEST_STEP_S = 5.0  # what a step may count for: compiling is not training
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, how many clips it has, and visual tokens of each."""

    value: Tensor
    clips: int
    tokens: int


Batch = TypeVar("Batch")


class Task(Protocol[Batch]):
    """What is trained, and on what."""

    @property
    def modules(self) -> nn.ModuleDict:
        """Everything that is trained and kept."""

    def blocks(self) -> Iterable[nn.Module]:
        """The transformer's blocks; each is compiled by itself, their matrices go to Muon."""

    def slow_parameters(self) -> list[nn.Parameter]:
        """Parameters that must move little at a step."""

    def begin(self, seed: int, rank: int) -> None:
        """Start the stream of data; called once, before the first loss."""

    def draw(self, progress: float) -> Batch:
        """The next batch, at this share (0..1) of the training."""

    def loss(self, batch: Batch) -> Loss:
        """The loss of a batch."""


@dataclass
class Progress:
    """Where the training stands; `elapsed_s` counts training steps only."""

    step: int = 0
    elapsed_s: float = 0.0


def learning_rate(progress: float, steps_since_start: int) -> float:
    """At the peak, then linear to 2 % of it; warms up again after every resume."""
    left = min(1.0, (1 - min(progress, 1)) / DECAY_SHARE)
    warm = min(1.0, (steps_since_start + 1) / WARM_UP_STEPS)
    return PEAK_RATE * warm * (FINAL_SHARE + (1 - FINAL_SHARE) * left)


def draw_shares(count: int, tokens: int) -> Tensor:
    """Shares of data (count,), logit-normal, spread evenly over a batch for a calmer gradient.

    Larger clips show through more noise, so what they are is decided earlier: the more tokens,
    the noisier (resolution-dependent shift, arXiv:2403.03206 section 5.3.2, somewhat weaker).
    """
    even = (torch.randperm(count) + torch.rand(count)) / count
    middle = -0.5 - 0.35 * math.log(max(tokens, 64) / 64)
    return torch.sigmoid(middle + 1.2 * torch.special.ndtri(even.clamp(1e-4, 1 - 1e-4)))


@torch.no_grad()
def _meet(parameters: list[nn.Parameter], elapsed_s: float) -> float:
    """Average the weights (and the clock, so that all stop together) over workers."""
    flat = torch.cat([p.flatten() for p in parameters] + [torch.tensor([elapsed_s])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for parameter in parameters:
        parameter.copy_(flat[offset : offset + parameter.numel()].view_as(parameter))
        offset += parameter.numel()
    return float(flat[-1])


def _matrices(blocks: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The weights that mix channels inside the blocks; modulation is left to AdamW."""
    return [
        parameter
        for block in blocks
        for name, parameter in block.named_parameters()
        if parameter.ndim == 2 and "norm" not in name
    ]


def _adamw(
    parameters: list[nn.Parameter], slow: list[nn.Parameter], muon: Muon
) -> torch.optim.Optimizer:
    """For all that is no matrix of a block; "share" multiplies the learning rate."""
    apart = {id(parameter) for parameter in (*slow, *muon.parameters)}
    groups = [{"params": [p for p in parameters if id(p) not in apart], "share": 1.0}]
    if slow:
        groups.append({"params": slow, "share": SLOW_RATE_SHARE})
    return torch.optim.AdamW(groups, PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.01, fused=True)


class Trainer(Generic[Batch]):
    """A task, its optimisers, the running average and the file they are kept in."""

    def __init__(
        self, task: Task[Batch], arguments: argparse.Namespace, rank: int, workers: int
    ) -> None:
        self.task = task
        self.out: Path = arguments.out
        self.budget_s = 60.0 * arguments.minutes
        self.rank, self.workers = rank, workers
        self.bf16: bool = arguments.bf16
        self.modules = task.modules
        self.parameters = list(self.modules.parameters())
        self.average = {k: v.clone() for k, v in self.modules.state_dict().items()}
        self.muon = Muon(_matrices(task.blocks()))
        self.optimiser = _adamw(self.parameters, task.slow_parameters(), self.muon)
        self.progress = Progress()
        self._resume()
        seed = arguments.seed + self.progress.step
        task.begin(seed, rank)
        torch.manual_seed(seed * 1000 + rank)
        if arguments.compile:
            for block in task.blocks():
                block.compile(dynamic=True)

    def _resume(self) -> None:
        path = self.out / "state.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.modules.load_state_dict(state["modules"])
        self.optimiser.load_state_dict(state["optimiser"])
        for momentum, stored in zip(self.muon.momenta, state["momenta"], strict=True):
            momentum.copy_(stored)
        self.average = state["average"]
        self.progress = Progress(**state["progress"])

    def save(self) -> None:
        """Write everything needed to go on, atomically."""
        state = {
            "modules": self.modules.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "momenta": self.muon.momenta,
            "average": self.average,
            "progress": vars(self.progress),
        }
        torch.save(state, self.out / "state.tmp")
        (self.out / "state.tmp").replace(self.out / "state.pt")

    def step(self, steps_since_start: int) -> Loss:
        """One optimiser step; returns its loss, detached."""
        began = time.monotonic()
        share = self.progress.elapsed_s / self.budget_s
        rate = learning_rate(share, steps_since_start)
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * rate
        batch = self.task.draw(min(share, 1.0))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.task.loss(batch)
        self.modules.zero_grad()
        loss.value.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.muon.step(rate)
        self.progress.step += 1
        self.progress.elapsed_s += min(time.monotonic() - began, LONGEST_STEP_S)
        if self.workers > 1 and self.progress.step % MEET_EVERY_STEPS == 0:
            self.progress.elapsed_s = _meet(self.parameters, self.progress.elapsed_s)
        self._update_average()
        return Loss(loss.value.detach(), loss.clips, loss.tokens)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(EMA_DECAY, (1 + self.progress.step) / (10 + self.progress.step))
        for name, value in self.modules.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def run(self) -> None:
        """Train until the time is used up."""
        saved, steps, recent = time.monotonic(), 0, 1.0
        # Workers stop at the same step: they compare clocks only where they meet.
        while self.progress.elapsed_s < self.budget_s or (
            self.workers > 1 and self.progress.step % MEET_EVERY_STEPS
        ):
            loss = self.step(steps)
            steps += 1
            recent += (loss.value.item() - recent) * max(0.02, 1 / steps)
            if self.rank:
                continue
            if steps % 25 == 0:
                record = {
                    "step": self.progress.step,
                    "elapsed_s": round(self.progress.elapsed_s, 1),
                    "loss": round(recent, 4),
                    "clips": loss.clips,
                    "tokens": loss.tokens,
                }
                _log.info(json.dumps(record))
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        if not self.rank:
            self.save()


def parser(description: str | None, out: Path, latent_space: Path) -> argparse.ArgumentParser:
    """The options that both trainings take."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--minutes", type=float, default=90)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--batch-tokens", type=int, default=1536, help="visual tokens a worker")
    options.add_argument("--compile", action="store_true", help="1.3 times faster, 3 minutes first")
    options.add_argument("--bf16", action="store_true", help="for processors with AVX-512 BF16")
    options.add_argument("--start-from", type=Path, help="a checkpoint, where no state is kept")
    options.add_argument("--out", type=Path, default=out)
    options.add_argument("--latent-space", type=Path, default=latent_space)
    return options


def train(
    new_task: Callable[[argparse.Namespace], Task[Batch]], arguments: argparse.Namespace
) -> None:
    """Run as one of torchrun's workers, or alone."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if workers > 1:
        dist.init_process_group("gloo")
        torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    Trainer(new_task(arguments), arguments, rank, workers).run()
