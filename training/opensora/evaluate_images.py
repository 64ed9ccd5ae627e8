"""Measure how well a clip begins with the picture that was uploaded: photos and drawn scenes.

Photos are those of a folder, or the public-domain ones that come with scikit-image where that
package is installed. Each goes through the service's own preparation, sampler and decoder; both
sides are compared at the checkpoint's native size.

    python -m training.opensora.evaluate_images --checkpoint checkpoints/opensora-tiny
"""

import argparse
import importlib.util
import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from deployments.models.opensora.autoencode import preprocess_image, to_uint8
from training.opensora.generator import OpenSoraGenerator
from training.opensora.train import CHECKPOINT
from training.render import render
from training.scenes import draw_training_scene

# scikit-image's photographs in colour and grey; its diagrams and test cards are left out.
PHOTOS: Final[tuple[str, ...]] = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "ihc", "moon", "motorcycle_left", "retina", "rocket"),
)
TARGETS_DB: Final = {"photo": 18.0, "drawn": 24.0}
PHOTO_PROMPT: Final = "a photo"
DRAWN: Final = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """A picture, and PSNR in dB of the first frame and of the last frame against it."""

    kind: str
    name: str
    first_db: float
    last_db: float


def psnr(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two pictures in dB."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def photo_folder() -> Path:
    """Where scikit-image keeps its photos."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "no --photos FOLDER given and scikit-image is not installed; "
            "`pip install scikit-image` brings its photos"
        )
    return Path(package.origin).parent / "data"


def pictures(photos: Path, seed: int) -> Iterator[tuple[str, str, Image.Image, str]]:
    """Kind, name, picture and prompt: the folder's photos, then drawn scenes."""
    found = {
        path.stem: path for path in sorted(photos.iterdir()) if path.suffix in (".png", ".jpg")
    }
    for name in [name for name in PHOTOS if name in found] or list(found):
        with Image.open(found[name]) as opened:
            yield "photo", name, opened.convert("RGB"), PHOTO_PROMPT
    rng = np.random.default_rng(seed)
    for index in range(DRAWN):
        drawn = render(draw_training_scene(rng), 384, 384, 1)[0]
        picture = Image.fromarray(np.round(drawn * 255).astype(np.uint8))
        yield "drawn", f"scene {index + 1}", picture, ""


def table(cases: list[Case]) -> str:
    """Every photo, and the drawn scenes' mean and worst, as a Markdown table."""
    lines = ["| picture | first frame | last frame | target |", "| --- | --- | --- | --- |"]
    for case in cases:
        target = f"{TARGETS_DB[case.kind]:.0f} dB"
        lines.append(f"| {case.name} | {case.first_db:.1f} dB | {case.last_db:.1f} dB | {target} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--photos", type=Path, help="a folder; default: scikit-image's")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--frames", type=int, default=25, help="4k + 1")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("training/results/opensora"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    generator = OpenSoraGenerator(arguments.checkpoint)
    cases: list[Case] = []
    folder = arguments.photos or photo_folder()
    for kind, name, picture, prompt in pictures(folder, arguments.seed):
        clip = generator(prompt, arguments.frames, arguments.side, arguments.seed, picture)
        asked = to_uint8(preprocess_image(picture, arguments.side, arguments.side)[:, :, None])[0]
        cases.append(Case(kind, name, psnr(clip[0], asked), psnr(clip[-1], asked)))
        _log.info("%s %.1f dB, last frame %.1f dB", name, cases[-1].first_db, cases[-1].last_db)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "images.md").write_text(f"# First frames\n\n{table(cases)}\n")
    record = [asdict(case) for case in cases]
    (arguments.out / "images.json").write_text(json.dumps(record, indent=1) + "\n")
    missed = [case.name for case in cases if case.first_db < TARGETS_DB[case.kind]]
    _log.info("%d of %d below their target: %s", len(missed), len(cases), ", ".join(missed))


if __name__ == "__main__":
    main()
