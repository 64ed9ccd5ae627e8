"""What the service costs: `POST /generate` against the same generation and encoding in one plain
process.

Both make the same clip, in turn, in the same run; the ratio of a pair is free of the machine's
drift. The job is sized to take ten seconds or more, as the aim is stated for such jobs: at most
1.10.
"""

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.running import print_table, running_graph, shipped_config
from deployments.core import outputs
from deployments.core.checkpoints import choose_checkpoint
from deployments.core.events import Decoded, Frames
from deployments.core.spec import VideoRequest, VideoSpec, resolve
from deployments.encoder import Encoder
from deployments.frame_refs import FrameRefs
from deployments.job_run import encode_order
from deployments.mochi import Mochi

MODEL = "mochi"
PROMPT = "a red ball moving right over the sea at sunset"


class Plain:
    """The model and the encoder in this process, without a service around them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = shipped_config(folder)
        model = next(model for model in self._config.models if model.name == MODEL)
        checkpoint = choose_checkpoint(
            model, published=Mochi.published, bundled=Mochi.bundled, on_gpu=False
        )
        self._card = Mochi.card(model, checkpoint)
        self._mochi = Mochi(model, checkpoint, "cpu")
        self._mochi.load()

    def run(self, request: VideoRequest, name: str) -> float:
        """Make and verify the file; returns seconds."""
        began = time.perf_counter()
        asyncio.run(self._make(resolve(request, self._card), self._folder / name))
        return time.perf_counter() - began

    async def _make(self, spec: VideoSpec, path: Path) -> None:
        outputs.hold(path.parent, path.name)
        order = encode_order(path.stem, path, spec, self._config.encoder)
        source = FrameRefs()
        for event in self._mochi.generate(spec):
            if isinstance(event, Decoded):
                source.add(_ready(event.frames))
        source.complete()
        await Encoder().encode(order, source)


async def _ready(frames: Frames) -> Frames:
    return frames


def served(url: str, request: VideoRequest) -> float:
    """Make the clip through the service; returns seconds."""
    form = {
        "prompt": request.prompt,
        "width": str(request.width),
        "height": str(request.height),
        "num_frames": str(request.num_frames),
        "seed": str(request.seed),
        "num_inference_steps": str(request.num_inference_steps),
        "prefer_backend": MODEL,
        "lawful_use_consent": "true",
    }
    began = time.perf_counter()
    answer = httpx.post(f"{url}/generate", data=form, timeout=600)
    answer.raise_for_status()
    return time.perf_counter() - began


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--frames", type=int, default=163)
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    request = VideoRequest(
        prompt=PROMPT,
        width=512,
        height=512,
        num_frames=options.frames,
        seed=1,
        num_inference_steps=options.steps,
    )
    with TemporaryDirectory() as folder, running_graph() as url:
        plain = Plain(Path(folder))
        plain.run(request, "warm.mp4"), served(url, request)
        pairs = [
            (served(url, request), plain.run(request, f"{n}.mp4")) for n in range(options.pairs)
        ]
    ratios = [with_service / without for with_service, without in pairs]
    rows = [[f"{a:.1f}", f"{b:.1f}", f"{a / b:.3f}"] for a, b in pairs]
    print_table(["service, s", "plain process, s", "ratio"], rows)
    print(json.dumps({"median_ratio": round(statistics.median(ratios), 3), "pairs": len(pairs)}))


if __name__ == "__main__":
    main()
