"""Measure a checkpoint on prompts whose combinations were held out of its training.

Each prompt goes through the service's own sampler, decoder and MP4 writer; the file is read back
and judged by its pixels. Writes a table as Markdown and JSON.

    python -m training.evaluate --checkpoint checkpoints/mochi-tiny
    python -m training.evaluate --checkpoint checkpoints/opensora-tiny --out FOLDER
"""

import argparse
import asyncio
import json
import logging
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from diffusers import MochiPipeline

from deployments.core.mp4 import Mp4Settings, Mp4Writer, ffmpeg_path
from deployments.models.mochi1.decode import decode, denormalise, to_uint8
from deployments.models.mochi1.sampling import denoise, initial_noise, linear_quadratic
from training.captions import plain_prompt
from training.judge import Verdict, judge
from training.opensora.generator import OpenSoraGenerator
from training.render import render
from training.scenes import (
    PLAIN,
    SKIES,
    Scene,
    draw_thing,
    held_out_combinations,
    is_visible,
)

Frames = npt.NDArray[np.uint8]

ASPECTS: Final = ("colour", "shape", "motion", "background", "sky")
TARGETS: Final = {"colour": 95, "shape": 90, "motion": 95, "background": 95, "sky": 95}
FPS: Final = 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """A prompt, what it asks for, and what was seen."""

    prompt: str
    seed: int
    asked: Verdict
    seen: Verdict

    def is_right(self, aspect: str) -> bool:
        """Whether this aspect came out as asked."""
        return bool(getattr(self.asked, aspect) == getattr(self.seen, aspect))


def held_out_scenes(count: int, seed: int) -> Iterator[Scene]:
    """Scenes of held-out combinations, plain backgrounds and places, without extras."""
    rng = np.random.default_rng(seed)
    combinations = held_out_combinations()
    order: list[int] = []
    while count:
        order = order or [int(i) for i in rng.permutation(len(combinations))]
        colour, shape, motion, background = combinations[order.pop()]
        sky = None if background in PLAIN else str(rng.choice(SKIES))
        if is_visible(colour, background, sky):
            count -= 1
            thing = draw_thing(rng, colour, shape, motion)
            yield Scene(background, sky, thing, layout_seed=int(rng.integers(2**31)))


def asked_of(scene: Scene) -> Verdict:
    """What a right clip of this scene shows."""
    if scene.thing is None:
        raise ValueError("an evaluation scene has an object")
    thing = scene.thing
    return Verdict(thing.colour, thing.shape, thing.motion, scene.background, scene.sky)


class Generator(Protocol):
    """A checkpoint, driven as the service drives it."""

    settings: dict[str, Any]

    def __call__(self, prompt: str, num_frames: int, side: int, seed: int) -> Frames:
        """A clip of (num_frames, side, side, 3)."""


class MochiGenerator:
    """A Mochi in a folder, with the settings that are stored beside it."""

    def __init__(self, checkpoint: Path) -> None:
        self._pipeline = MochiPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
        self.settings: dict[str, Any] = json.loads(
            (checkpoint / "generation_config.json").read_text()
        )

    def _embed(self, prompt: str) -> torch.Tensor:
        tokens = self._pipeline.tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            embedding: torch.Tensor = self._pipeline.text_encoder(**tokens).last_hidden_state
        return embedding

    def __call__(self, prompt: str, num_frames: int, side: int, seed: int) -> Frames:
        """A clip of (num_frames, side, side, 3), num_frames = 6k + 1."""
        embedding = self._embed(prompt)
        sigmas = linear_quadratic(
            self.settings["num_inference_steps"],
            self.settings["threshold_noise"],
            self.settings["linear_steps"],
        )
        noise = initial_noise(seed, (1, 12, (num_frames - 1) // 6 + 1, side // 8, side // 8))
        steps = denoise(
            self._pipeline.transformer,
            noise,
            embedding,
            embedding[:, :0],
            sigmas,
            self.settings["guidance_scale"],
        )
        *_, last = steps
        latents = denormalise(self._pipeline.vae, last.latents)
        return np.concatenate([to_uint8(part) for part in decode(self._pipeline.vae, latents)])


def new_generator(checkpoint: Path) -> Generator:
    """Load a Mochi or an Open-Sora, whichever lies there."""
    pipeline = json.loads((checkpoint / "model_index.json").read_text())["_class_name"]
    if pipeline == "OpenSoraPipeline":
        return OpenSoraGenerator(checkpoint)
    return MochiGenerator(checkpoint)


async def _write_mp4(frames: Frames, path: Path, size: int) -> None:
    _, height, width, _ = frames.shape
    settings = Mp4Settings(width, height, size, size, FPS)
    async with Mp4Writer(path, settings) as writer:
        await writer.write(frames)
        await writer.finish()


def served(frames: Frames, size: int) -> Frames:
    """The frames as a client sees them: scaled, H.264, decoded again to (T, size, size, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        asyncio.run(_write_mp4(frames, path, size))
        return read_frames(path, size)


def read_frames(path: Path, size: int) -> Frames:
    """The frames of a square clip, (T, size, size, 3)."""
    command = [ffmpeg_path(), "-v", "error", "-i", str(path)]
    command += ["-vf", "scale=in_color_matrix=bt709", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    raw = subprocess.run([*command, "-"], check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, size, size, 3)


def table(cases: list[Case]) -> str:
    """Right answers per aspect as a Markdown table; sky counts only where there is one."""
    lines = ["| aspect | prompts | right | share | target |", "| --- | --- | --- | --- | --- |"]
    for aspect in ASPECTS:
        relevant = [case for case in cases if aspect != "sky" or case.asked.sky is not None]
        right = sum(case.is_right(aspect) for case in relevant)
        share = 100 * right / max(1, len(relevant))
        target = f"{TARGETS[aspect]} %"
        lines.append(f"| {aspect} | {len(relevant)} | {right} | {share:.1f} % | {target} |")
    return "\n".join(lines)


def write_results(cases: list[Case], header: dict[str, Any], out: Path) -> None:
    """Write results.md and results.json."""
    out.mkdir(parents=True, exist_ok=True)
    told = "\n".join(f"- {key}: {value}" for key, value in header.items())
    wrong = [
        f"- {case.prompt} (seed {case.seed}): "
        + ", ".join(f"{a} seen {getattr(case.seen, a)}" for a in ASPECTS if not case.is_right(a))
        for case in cases
        if not all(case.is_right(aspect) for aspect in ASPECTS)
    ]
    text = f"# Held-out prompts\n\n{told}\n\n{table(cases)}\n\n## Wrong\n\n"
    (out / "results.md").write_text(text + ("\n".join(wrong) or "None.") + "\n")
    record = {"settings": header, "cases": [asdict(case) for case in cases]}
    (out / "results.json").write_text(json.dumps(record, indent=1) + "\n")


def evaluate(arguments: argparse.Namespace) -> None:
    """Generate, judge and report."""
    truth = arguments.ground_truth
    generator = None if truth else new_generator(arguments.checkpoint)
    cases: list[Case] = []
    began = time.monotonic()
    for index, scene in enumerate(held_out_scenes(arguments.prompts, arguments.seed)):
        prompt, seed = plain_prompt(scene), arguments.seed * 1000 + index
        if generator is None:
            drawn = render(scene, arguments.side, arguments.side, arguments.frames)
            frames: Frames = np.round(drawn * 255).astype(np.uint8)
        else:
            frames = generator(prompt, arguments.frames, arguments.side, seed)
        seen = judge(served(frames, arguments.size))
        cases.append(Case(prompt, seed, asked_of(scene), seen))
        wrong = [aspect for aspect in ASPECTS if not cases[-1].is_right(aspect)]
        _log.info("%3d %-60s %s", index + 1, prompt, ", ".join(wrong) or "right")
    header: dict[str, Any] = {
        "source": "ground truth renders" if generator is None else arguments.checkpoint.name,
        "prompts": arguments.prompts,
        "generated": f"{arguments.side}x{arguments.side}, {arguments.frames} frames",
        "served": f"{arguments.size}x{arguments.size} H.264",
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - began),
    }
    if generator is not None:
        header |= generator.settings
    write_results(cases, header, arguments.out)
    _log.info("\n%s\n%d s", table(cases), header["seconds"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/mochi-tiny"))
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--side", type=int, default=96, help="side of the generated square")
    parser.add_argument("--size", type=int, default=256, help="side of the served square")
    parser.add_argument("--frames", type=int, default=25, help="6k + 1, or 4k + 1 of Open-Sora")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("training/results"))
    parser.add_argument(
        "--ground-truth", action="store_true", help="judge renders instead: tests the judge"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    evaluate(arguments)


if __name__ == "__main__":
    main()
