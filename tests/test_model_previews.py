"""Both models show previews on their way where their checkpoint has a map, and only there."""

import io
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deployments.core.events import Decoded, Preview, Step
from deployments.models.previewing import PREVIEW_MAP, PreviewMap
from tests import test_mochi, test_opensora
from tests.tiny_mochi import tiny_pipeline as tiny_mochi
from tests.tiny_opensora import tiny_pipeline as tiny_opensora

MOCHI = SimpleNamespace(
    backend=test_mochi.BACKEND,
    config=test_mochi.CONFIG,
    checkpoint=test_mochi.checkpoint,
    pipeline=tiny_mochi,
    spec=test_mochi.spec(),
    image=None,
    channels=12,
    shown=[1, 2, 3],
)
# An image, and two segments: steps count over both.
OPENSORA = SimpleNamespace(
    backend=test_opensora.BACKEND,
    config=test_opensora.CONFIG,
    checkpoint=test_opensora.checkpoint,
    pipeline=tiny_opensora,
    spec=test_opensora.spec(conditioned=True, num_frames=14, segments=2),
    image=test_opensora.png(),
    channels=16,
    shown=[1, 2, 3, 4, 5, 6],
)


def events(family: Any, folder: Path) -> list[Any]:
    model = family.backend(family.config, family.checkpoint(folder), "cpu")
    model.load()
    return list(model.generate(family.spec, family.image))


@pytest.mark.parametrize("family", [MOCHI, OPENSORA], ids=["mochi", "opensora"])
def test_previews_come_between_the_steps_and_change_no_frame(family: Any, tmp_path: Path) -> None:
    """A JPEG of the latents' grid after a step; without a map there are none."""
    threads = torch.get_num_threads()
    family.pipeline().save_pretrained(tmp_path)
    without = events(family, tmp_path)
    torch.manual_seed(0)
    PreviewMap(torch.randn(family.channels, 3), torch.zeros(3)).write(tmp_path)
    shown = events(family, tmp_path)
    torch.set_num_threads(threads)
    assert not [event for event in without if isinstance(event, Preview)]
    previews = [event for event in shown if isinstance(event, Preview)]
    assert [event.step for event in previews] == family.shown
    for event, after in pairwise(shown):
        if isinstance(after, Preview):
            assert event == Step(after.step, family.shown[-1])
    for preview in previews:
        with Image.open(io.BytesIO(preview.picture)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (6, 4))
    assert len({preview.picture for preview in previews}) == len(previews)
    first, second = (
        np.concatenate([event.frames for event in all_ if isinstance(event, Decoded)])
        for all_ in (without, shown)
    )
    assert np.array_equal(first, second)


def test_a_map_of_another_checkpoint_keeps_the_model_from_loading(tmp_path: Path) -> None:
    """Its pictures would show nothing; the file is named."""
    tiny_mochi().save_pretrained(tmp_path)
    PreviewMap(torch.zeros(16, 3), torch.zeros(3)).write(tmp_path)
    model = MOCHI.backend(MOCHI.config, MOCHI.checkpoint(tmp_path), "cpu")
    with pytest.raises(ValueError, match=PREVIEW_MAP):
        model.load()
