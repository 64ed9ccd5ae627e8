"""The maps of the bundled checkpoints are fitted to what their autoencoders make of scenes."""

import sys
from pathlib import Path

import pytest
import torch

from deployments.models.preview_fit import AUTOENCODERS, fit
from deployments.models.previewing import PreviewMap
from training import previews

CHANNELS = {"mochi": 12, "opensora": 16}


@pytest.mark.parametrize("family", list(CHANNELS))
def test_the_bundled_map_tells_the_colours_of_scenes(family: str) -> None:
    """A fit to four other scenes agrees with it, and nearly all of the colours are explained."""
    folder = Path("checkpoints") / f"{family}-tiny"
    found = fit(AUTOENCODERS[family](folder), previews.scene_clips(seed=5, count=4))
    assert found.r_squared > 0.99
    bundled = PreviewMap.read(folder, CHANNELS[family])
    assert bundled is not None
    colours = bundled.colours(latents := torch.randn(200, CHANNELS[family]))
    assert (found.preview_map.colours(latents) - colours).abs().mean() < 0.05


def test_the_command_writes_the_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the weights of the checkpoint it is given."""
    (tmp_path / "vae").symlink_to(Path("checkpoints/mochi-tiny/vae").resolve())
    monkeypatch.setattr(
        sys, "argv", ["previews", "--checkpoint", str(tmp_path), "--family", "mochi"]
    )
    monkeypatch.setattr(previews, "CLIPS", 4)
    previews.main()
    assert PreviewMap.read(tmp_path, 12) is not None
