"""Small pictures of a clip while it is made, from the latents that a sampler foresees.

A linear map takes each latent to the mean colour of the patch of pixels that it stands for. It is
fitted to a checkpoint's own encodings (`preview_fit`) and lies beside its weights; a checkpoint
without one has no previews. Nothing here changes a latent: a clip has the same bits either way.
"""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

PREVIEW_MAP = "preview.json"
# Of one job: enough to watch it appear, and little for whoever only looks at its end.
MOST_PREVIEWS = 12
JPEG_QUALITY = 85


@dataclass(frozen=True)
class PreviewMap:
    """From latents to colours in [-1, 1]: colour = latent @ weight + bias.

    Attributes:
        weight: (C, 3), float32.
        bias: (3,), float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def read(cls, folder: Path, channels: int) -> "PreviewMap | None":
        """Return the map of the checkpoint in `folder`, None where it has none.

        Raises: ValueError: what lies there is no map of latents with so many `channels`.
        """
        path = folder / PREVIEW_MAP
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text())
            weight, bias = torch.tensor(stored["weight"]), torch.tensor(stored["bias"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder.name}/{PREVIEW_MAP} is no map of latents: {error}"
            ) from error
        if weight.shape != (channels, 3) or bias.shape != (3,):
            shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
            raise ValueError(
                f"{folder.name}/{PREVIEW_MAP}: weight and bias must be ({channels}, 3) and (3,), "
                f"got {shapes}"
            )
        return cls(weight.float(), bias.float())

    def write(self, folder: Path) -> None:
        """Put the map beside the weights in `folder`."""
        stored = {"weight": _rounded(self.weight), "bias": _rounded(self.bias)}
        (folder / PREVIEW_MAP).write_text(json.dumps(stored, indent=1) + "\n")

    def colours(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the colours (..., 3) of `latents` (..., C), about in [-1, 1]."""
        return latents @ self.weight + self.bias

    def picture(self, latents: torch.Tensor) -> bytes:
        """Return the clip's middle as a JPEG, a pixel for each latent.

        The middle, because the first frame of a clip that begins with an image is known.

        Args: latents: (1, C, T, h, w), as the sampler has them.
        """
        middle = latents[0, :, latents.shape[2] // 2].float().cpu()
        colours = self.colours(middle.permute(1, 2, 0)) / 2 + 0.5
        pixels = colours.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
        file = io.BytesIO()
        # No subsampling: a pixel of this picture is eight of the video.
        Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return file.getvalue()


class Previews:
    """The previews of one job, at equal distances.

    Args:
        preview_map: None for a checkpoint without one; then there are none.
        num_steps: of the whole job.
    """

    def __init__(self, preview_map: PreviewMap | None, num_steps: int) -> None:
        count = min(num_steps, MOST_PREVIEWS)
        self._map = preview_map
        self._steps = {math.ceil(index * num_steps / count) for index in range(1, count + 1)}

    def after(self, step: int, predicted: torch.Tensor) -> bytes | None:
        """Return the picture to show after `step`, which counts from 1, if there is to be one.

        Args: predicted: (1, C, T, h, w), the clean latents as the model foresees them.
        """
        if self._map is None or step not in self._steps:
            return None
        return self._map.picture(predicted)


def _rounded(values: torch.Tensor) -> list[float] | list[list[float]]:
    """Five digits: a colour level is 0.008."""
    rounded: list[float] | list[list[float]] = values.double().round(decimals=5).tolist()
    return rounded
