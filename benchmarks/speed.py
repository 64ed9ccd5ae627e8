"""Speed of each model by size, length and mode, beside the stock pipeline in the same run.

    python -m benchmarks.speed [--models mochi opensora] [--networks tiny mid] [--frames 25 49]
        [--modes exact compiled fast] [--steps 20] [--pairs 5] [--threads 1] [--device cpu]

A row is a mode of a model at one size and length: seconds a step, of the decode, of the encode to
MP4, the most memory, and how much quicker it is than the stock pipeline: in the denoise phase, and
from the prompt to the MP4. Stock is diffusers' `MochiPipeline`; for Open-Sora, which diffusers has
none for, a loop of all three passes at each step. Networks are the bundled ones (tiny) and random
ones of some 70 million parameters (mid). All take turns within a round; a figure is the median of
`--pairs` rounds, a ratio that of the rounds' ratios. On the CPU seconds are the processor's, which
other processes disturb least, and memory is how much the process grew.
"""

import argparse
import asyncio
import ctypes
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.encode import measure as encode
from benchmarks.running import print_table
from benchmarks.speed_networks import mid_size
from benchmarks.speed_stock import Mark, stock
from deployments.backend import Backend, backend_class
from deployments.core.checkpoints import Checkpoint, choose_checkpoint
from deployments.core.config import ModelConfig
from deployments.core.events import Decoded, Frames, PhaseBegan, Step
from deployments.core.spec import Quality, VideoRequest, VideoSpec, resolve

PROMPT = "a red ball moving right over the sea at sunset"
# Larger than what any of the networks was made for: each makes its native area.
REQUESTED_SIDE = 512
# Mode -> whether the blocks are compiled, and the quality that is asked for. A mode that a
# checkpoint does not offer is left out.
MODES: dict[str, tuple[bool, Quality]] = {
    "exact": (False, "exact"),
    "compiled": (True, "exact"),
    "fast": (False, "fast"),
    "fast compiled": (True, "fast"),
    "draft": (False, "draft"),
}
HEADER = (
    *("model", "networks", "size", "frames", "mode", "steps"),
    *("s a step", "decode, s", "encode, s", "memory, MiB", "denoise, x stock", "whole, x stock"),
)
Work = Callable[[VideoSpec, Mark], Frames]


@dataclass
class Run:
    """One video: seconds by phase, of each step, and the most memory in MiB."""

    steps_s: list[float] = field(default_factory=list)
    denoise_s: float = 0.0
    decode_s: float = 0.0
    whole_s: float = 0.0
    memory_mib: float = 0.0


class Meter:
    """Measures runs on one device."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device != "cpu"

    def run(self, work: Work, spec: VideoSpec) -> tuple[Run, Frames]:
        """Make a video and return what it took, without its encode."""
        run, marks = Run(), {"began": self._now()}
        last_step = 0.0

        def mark(what: str) -> None:
            nonlocal last_step
            now = self._now()
            if what == "step":
                run.steps_s.append(now - last_step)
            else:
                marks[what] = now
            last_step = now

        with self._memory(run):
            frames = work(spec, mark)
        ended = self._now()
        run.denoise_s = marks["decode"] - marks["denoise"]
        run.decode_s, run.whole_s = ended - marks["decode"], ended - marks["began"]
        return run, frames

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    @contextmanager
    def _memory(self, run: Run) -> Iterator[None]:
        if self._on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            yield
            run.memory_mib = torch.cuda.max_memory_allocated() / 2**20
            return
        ctypes.CDLL(None).malloc_trim(0)  # what is free but kept would be taken again unseen
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is used now
        before = _resident_mib("VmRSS")
        yield
        run.memory_mib = _resident_mib("VmHWM") - before


def ours(backend: Backend) -> Work:
    """Return how `backend` makes a video."""

    def work(spec: VideoSpec, mark: Mark) -> Frames:
        runs = []
        for event in backend.generate(spec, None):
            if isinstance(event, PhaseBegan) and event.phase in ("denoise", "decode"):
                mark(event.phase)
            elif isinstance(event, Step):
                mark("step")
            elif isinstance(event, Decoded):
                runs.append(event.frames)
        return np.concatenate(runs)

    return work


class Contest:
    """One model with one checkpoint: the stock pipeline and the modes that it offers."""

    def __init__(self, config: ModelConfig, options: argparse.Namespace) -> None:
        kind = backend_class(config)
        self._checkpoint = choose_checkpoint(
            config, published=kind.published, bundled=kind.bundled, on_gpu=False
        )
        self._card = kind.card(config, self._checkpoint)
        self._steps, self._rounds, self._meter = options.steps, options.pairs, Meter(options.device)
        self.modes = [name for name in options.modes if MODES[name][1] in self._card.qualities]
        backends = {
            compile_: _loaded(config.model_copy(update={"compile": compile_}), self._checkpoint)
            for compile_ in sorted({MODES[name][0] for name in self.modes})
        }
        self._works = {name: ours(backends[MODES[name][0]]) for name in self.modes}
        self._stock = stock(config.name, self._checkpoint.source, config.device).run

    def rows(self, num_frames: int) -> Iterator[tuple[object, ...]]:
        """Measure all modes for one length and yield their rows, stock's first."""
        specs = {name: self._spec(name, num_frames) for name in self.modes}
        exact = self._spec("exact", num_frames)
        contestants = {"stock": (self._stock, exact)}
        contestants |= {name: (self._works[name], specs[name]) for name in self.modes}
        found: dict[str, list[Run]] = {name: [] for name in contestants}
        for index in range(self._rounds + 1):
            for name, (work, spec) in contestants.items():
                run, frames = self._meter.run(work, spec)
                if index:  # the first round warms up
                    found[name].append(run)
        encode_s = _encode_s(frames)
        for name, runs in found.items():
            spec = contestants[name][1]
            yield (
                f"{spec.generated_width}x{spec.generated_height}",
                *(num_frames, name, spec.num_inference_steps),
                *_figures(runs, found["stock"], encode_s),
            )

    def _spec(self, mode: str, num_frames: int) -> VideoSpec:
        quality = MODES[mode][1]
        request = VideoRequest(
            prompt=PROMPT,
            width=REQUESTED_SIDE,
            height=REQUESTED_SIDE,
            num_frames=num_frames,
            seed=0,
            quality=quality,
            num_inference_steps=None if quality == "draft" else self._steps,
        )
        return resolve(request, self._card)


def _loaded(config: ModelConfig, checkpoint: Checkpoint) -> Backend:
    backend = backend_class(config)(config, checkpoint, config.device)
    backend.load()
    return backend


def _figures(runs: Sequence[Run], stock_runs: Sequence[Run], encode_s: float) -> tuple[str, ...]:
    denoise = median(
        before.denoise_s / run.denoise_s for run, before in zip(runs, stock_runs, strict=True)
    )
    whole = median(
        (before.whole_s + encode_s) / (run.whole_s + encode_s)
        for run, before in zip(runs, stock_runs, strict=True)
    )
    return (
        f"{median(second for run in runs for second in run.steps_s):.4f}",
        f"{median(run.decode_s for run in runs):.3f}",
        f"{encode_s:.3f}",
        f"{median(run.memory_mib for run in runs):.0f}",
        f"{denoise:.2f}",
        f"{whole:.2f}",
    )


def _encode_s(frames: Frames) -> float:
    with TemporaryDirectory() as folder:
        seconds, _, _ = asyncio.run(encode(frames, "medium", Path(folder) / "clip.mp4"))
    return seconds


def _resident_mib(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 2**10 if found else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    options = _options(arguments)
    # Mochi's RoPE switches autocast off by asking for float32, and torch remarks on that.
    warnings.filterwarnings("ignore", message="In (CPU|CUDA) autocast")
    print_table(HEADER, _rows(options))


def _rows(options: argparse.Namespace) -> Iterator[tuple[object, ...]]:
    for model, networks in product(options.models, options.networks):
        with TemporaryDirectory() as folder:
            config = ModelConfig(name=model, device=options.device, cpu_threads=options.threads)
            if networks == "mid":
                checkpoint = Path(folder) / "mid"
                mid_size(model, backend_class(config).bundled, checkpoint)
                config = config.model_copy(update={"checkpoint": str(checkpoint)})
            contest = Contest(config, options)
            for num_frames in options.frames:
                yield from ((model, networks, *row) for row in contest.rows(num_frames))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["mochi", "opensora"])
    parser.add_argument("--networks", nargs="+", choices=["tiny", "mid"], default=["tiny", "mid"])
    parser.add_argument("--frames", type=int, nargs="+", default=[25, 49])
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--steps", type=int, help="of all but drafts; the checkpoint's own if not")
    parser.add_argument("--pairs", type=int, default=5, help="rounds that count")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
