"""What the tiny Open-Sora is shown: its tasks, its captions, and scenes that go on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deployments.models.opensora.packing import unpack
from training.clips import Size
from training.latents import LatentSpace
from training.opensora.clips import (
    CURRICULUM,
    ConditionedStream,
    conditions,
    continued,
    new_clip,
    suffixed,
)
from training.render import path
from training.scenes import MOTIONS, Scene, draw_thing


@pytest.fixture(scope="module")
def space() -> LatentSpace:
    return LatentSpace.load(Path("training/opensora/latent_space.npz"))


def test_all_sizes_suit_the_network() -> None:
    """Multiples of 16 pixels and 4k + 1 frames."""
    for _, sizes in CURRICULUM:
        for _, size in sizes:
            assert size.height % 16 == size.width % 16 == 0
            assert size.num_frames % 4 == 1
    assert Size(96, 96, 25).tokens(group=4) == 252


def test_each_clip_has_the_images_that_it_is_given() -> None:
    """Mask and reference latents at the first and last latent frame, zeros elsewhere."""
    latents, last = torch.randn(4, 16, 3, 4, 4), torch.randn(4, 16, 1, 4, 4)
    has_first, has_last = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    packed = conditions(latents, last, has_first.bool(), has_last.bool())
    mask = unpack(packed[..., :4], 3, 4, 4)[:, 0]
    given = unpack(packed[..., 4:], 3, 4, 4)
    for clip in range(4):
        assert mask[clip].mean(dim=(1, 2)).tolist() == [has_first[clip], 0, has_last[clip]]
        torch.testing.assert_close(given[clip, :, 0], latents[clip, :, 0] * has_first[clip])
        torch.testing.assert_close(given[clip, :, 2], last[clip, :, 0] * has_last[clip])
        assert not given[clip, :, 1].any()


def test_the_last_image_is_encoded_as_the_image_that_it_is(space: LatentSpace) -> None:
    """A clip's own last latents stand for four frames, an uploaded picture for one."""
    clip = new_clip(np.random.default_rng(0), space, Size(64, 64, 13))
    assert clip.latents.shape == (16, 4, 8, 8)
    assert clip.last.shape == (16, 1, 8, 8)
    # The components of change have the same value all over a still picture.
    assert clip.last[13:].float().std(dim=(1, 2, 3)).max() < 1e-2


def test_a_batch_is_shaped_for_the_network_and_repeatable(space: LatentSpace) -> None:
    """Captions end as the service ends prompts, or are empty for guidance."""
    batches = [ConditionedStream(space, 5, 600).batch(0.0) for _ in range(2)]
    batch = batches[0]
    count, _, frames, height, width = batch.latents.shape
    assert batch.condition.shape == (count, frames * height * width // 4, 68)
    assert all(not text or text.endswith("motion score.") for text in batch.captions)
    torch.testing.assert_close(batch.latents, batches[1].latents)
    torch.testing.assert_close(batch.condition, batches[1].condition)
    assert batch.captions == batches[1].captions


def test_captions_mostly_end_as_the_service_ends_prompts_by_default() -> None:
    rng = np.random.default_rng(1)
    told = [suffixed(rng, "a red ball") for _ in range(500)]
    usual = told.count("a red ball. 24 FPS. 4 motion score.")
    assert 400 < usual < 500
    assert suffixed(rng, "") == ""


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_scene_goes_on_where_its_clip_ended(motion: str) -> None:
    """The second part of a long clip: what moved has arrived, what bounced goes on bouncing."""
    thing = draw_thing(np.random.default_rng(2), "red", "ball", motion)
    scene = Scene("teal", None, replace(thing, bounce_period=24.0))
    after = continued(scene, 25).thing
    assert after is not None
    assert scene.thing is not None
    before_way, after_way = path(scene.thing, (1.0, 1.0), 25), path(after, (1.0, 1.0), 25)
    np.testing.assert_allclose(after_way[0], before_way[-1], atol=1e-4)
    moves = float(np.abs(after_way - after_way[0]).max())
    assert (moves > 0.2) == (motion == "bouncing")
