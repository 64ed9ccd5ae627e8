"""How fast, and how large: one clip through `Mp4Writer` at several sizes and presets.

    python -m benchmarks.encode [--frames 24] [--sizes 264x360 720x720] [--presets veryfast medium]

Speed depends on the machine and on what else it does, so compare the ratios within one run: each
row's are to the first preset of its size. The clip is drawn: moving shapes over a soft background
with film grain, which costs about what generated footage costs.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np

from deployments.core.events import Frames
from deployments.core.mp4 import Mp4Settings, Mp4Writer, verify

GRAIN = 4.0  # standard deviation, of 255


def draw_clip(num_frames: int, width: int, height: int) -> Frames:
    """Return uint8 (T, H, W, 3): drifting gradients, two moving discs, and grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(width, height)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        time_s = index / 24
        picture = np.stack(
            [120 + 90 * np.sin(6 * x + k + time_s) * np.cos(5 * y - k) for k in range(3)], axis=-1
        )
        for k, colour in enumerate([(240, 200, 60), (30, 60, 160)]):
            centre_x, centre_y = 0.4 + 0.25 * np.sin(2 * time_s + k), 0.4 + 0.2 * np.cos(time_s + k)
            picture[(x - centre_x) ** 2 + (y - centre_y) ** 2 < 0.02] = colour
        grain = rng.normal(0, GRAIN, (height, width, 1)).astype(np.float32)
        frames[index] = np.clip(picture + grain, 0, 255)
    return frames


async def measure(frames: Frames, preset: str, path: Path) -> tuple[float, float, int]:
    """Return the seconds to encode, the seconds to verify, and the size in bytes."""
    num_frames, height, width, _ = frames.shape
    settings = Mp4Settings(width, height, width, height, fps=24, preset=preset)
    began = time.perf_counter()
    async with Mp4Writer(path, settings) as writer:
        await writer.write(frames)
        await writer.finish()
    encoded = time.perf_counter()
    info = await verify(path, width=width, height=height, num_frames=num_frames, fps=24)
    return encoded - began, time.perf_counter() - encoded, info.size_bytes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--sizes", nargs="+", default=["264x360", "720x720"])
    parser.add_argument("--presets", nargs="+", default=["ultrafast", "veryfast", "fast", "medium"])
    arguments = parser.parse_args()
    print("size       preset     frames/s   ratio   verify s   bytes/pixel   ratio")
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            width, height = (int(side) for side in size.split("x"))
            frames = draw_clip(arguments.frames, width, height)
            first: tuple[float, int] | None = None
            for preset in arguments.presets:
                encode_s, verify_s, size_bytes = asyncio.run(
                    measure(frames, preset, Path(folder) / "clip.mp4")
                )
                speed = len(frames) / encode_s
                first = first or (speed, size_bytes)
                print(
                    f"{size:<10} {preset:<10} {speed:8.1f} {speed / first[0]:7.2f} {verify_s:10.2f}"
                    f" {size_bytes / frames.size * 3:13.3f} {size_bytes / first[1]:7.2f}"
                )


if __name__ == "__main__":
    main()
