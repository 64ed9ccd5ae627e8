"""What `quality: fast` and drafts save and what they cost, on the bundled checkpoints.

    python -m benchmarks.fast [--models mochi opensora] [--steps 20 50] [--videos 8] [--frames 49]
        [--thresholds 0.05 0.08 0.1 0.12 0.15 0.2 0.3] [--drafts 6 8 10 12] [--threads 1]

For each number of steps: threshold -> the share of passes that reuse, how much quicker the denoise
phase is, and how much the frames look like those of the exact run of the same seed; then the same
for drafts, which take fewer steps than the checkpoint's own number. Prompts are held out of the
checkpoints' training. Each video is made exactly before and after its other runs, and seconds are
those of the processor, which other processes disturb least.
"""

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.likeness import psnr, ssim
from benchmarks.running import print_table
from deployments.backend import Backend, backend_class
from deployments.core.checkpoints import choose_checkpoint
from deployments.core.config import ModelConfig
from deployments.core.events import Decoded, Frames, Notice, PhaseBegan
from deployments.core.spec import VideoRequest, VideoSpec, resolve
from training.captions import plain_prompt
from training.evaluate import held_out_scenes

COUNTED = re.compile(r"Fast: (\d+) of (\d+) passes")
HEADER = ("passes that reuse", "denoise phase", "SSIM", "least SSIM", "PSNR, dB")
SIDE, SEED = 256, 3
Change = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One video: its frames, the processor's seconds of the denoise phase, its passes."""

    frames: Frames
    denoise_s: float
    reused: int
    passes: int


@dataclass(frozen=True)
class Measured:
    """One run beside exact ones of the same video."""

    speed_up: float
    reused: float
    ssim: float
    psnr: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    options = _options(arguments)
    for name in options.models:
        backend, specs = _loaded(name, options)
        videos = f"{len(specs)} videos of {options.frames} frames"
        fast = [{"quality": "fast", "fast_threshold": one} for one in options.thresholds]
        for steps in options.steps:
            print(f"\n{name}, {steps} steps, {videos}\n")
            exact = [spec.model_copy(update={"num_inference_steps": steps}) for spec in specs]
            _print("threshold", options.thresholds, _curve(backend, exact, fast))
        drafts = [{"quality": "draft", "num_inference_steps": one} for one in options.drafts]
        print(f"\n{name}, drafts beside {specs[0].num_inference_steps} steps, {videos}\n")
        _print("steps", options.drafts, _curve(backend, specs, drafts))


def _loaded(name: str, options: argparse.Namespace) -> tuple[Backend, list[VideoSpec]]:
    """Return the model with its bundled checkpoint, and the videos to make."""
    config = ModelConfig(name=name, device="cpu", cpu_threads=options.threads)
    kind = backend_class(config)
    checkpoint = choose_checkpoint(
        config, published=kind.published, bundled=kind.bundled, on_gpu=False
    )
    backend, card = kind(config, checkpoint, "cpu"), kind.card(config, checkpoint)
    backend.load()
    specs = []
    for index, scene in enumerate(held_out_scenes(options.videos, SEED)):
        request = VideoRequest(
            prompt=plain_prompt(scene),
            width=SIDE,
            height=SIDE,
            num_frames=options.frames,
            seed=1000 * SEED + index,
        )
        specs.append(resolve(request, card))
    return backend, specs


def _curve(
    backend: Backend, specs: Sequence[VideoSpec], changes: Sequence[Change]
) -> list[list[Measured]]:
    """Return what each change does to each video, by change."""
    by_video = [_measured(backend, spec, changes) for spec in specs]
    return [list(of_change) for of_change in zip(*by_video, strict=True)]


def _measured(backend: Backend, spec: VideoSpec, changes: Sequence[Change]) -> list[Measured]:
    before = _run(backend, spec)
    runs = [_run(backend, spec.model_copy(update=change)) for change in changes]
    exact_s = (before.denoise_s + _run(backend, spec).denoise_s) / 2
    return [
        Measured(
            speed_up=exact_s / run.denoise_s,
            reused=run.reused / run.passes,
            ssim=ssim(run.frames, before.frames),
            psnr=psnr(run.frames, before.frames),
        )
        for run in runs
    ]


def _run(backend: Backend, spec: VideoSpec) -> Run:
    runs, began, denoise_s = [], 0.0, 0.0
    reused, passes = 0, 1
    for event in backend.generate(spec, None):
        if isinstance(event, PhaseBegan) and event.phase == "denoise":
            began = time.process_time()
        elif isinstance(event, PhaseBegan) and event.phase == "decode":
            denoise_s += time.process_time() - began
        elif isinstance(event, Decoded):
            runs.append(event.frames)
        elif isinstance(event, Notice) and (found := COUNTED.match(event.text)):
            reused, passes = int(found[1]), int(found[2])
    return Run(np.concatenate(runs), denoise_s, reused, passes)


def _print(name: str, values: Sequence[float], curve: Sequence[Sequence[Measured]]) -> None:
    rows = [
        (
            value,
            f"{mean(one.reused for one in measured):.0%}",
            f"{mean(one.speed_up for one in measured):.2f}x",
            f"{mean(one.ssim for one in measured):.4f}",
            f"{min(one.ssim for one in measured):.4f}",
            f"{mean(one.psnr for one in measured):.1f}",
        )
        for value, measured in zip(values, curve, strict=True)
    ]
    print_table([name, *HEADER], rows)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    thresholds = [0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3]
    parser.add_argument("--models", nargs="+", default=["mochi", "opensora"])
    parser.add_argument("--steps", type=int, nargs="*", default=[20, 50])
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--thresholds", type=float, nargs="+", default=thresholds)
    parser.add_argument("--drafts", type=int, nargs="+", default=[6, 8, 10, 12])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
