"""The judge is right on ground truth after the service's own scaling and encoding."""

import numpy as np
import pytest

from training.evaluate import asked_of, held_out_scenes, served
from training.judge import judge
from training.render import render


@pytest.mark.timeout(120)
def test_the_judge_is_right_about_ground_truth() -> None:
    """Every aspect of held-out scenes, read back from an H.264 file at 192x192."""
    for scene in held_out_scenes(8, seed=11):
        frames = np.round(render(scene, 128, 128, 25) * 255).astype(np.uint8)
        assert judge(served(frames, 192)) == asked_of(scene)


def test_the_judge_sees_no_object_where_there_is_none() -> None:
    """An empty background is a background without colour, shape or motion."""
    verdict = judge(np.full((13, 128, 128, 3), 128, np.uint8))
    assert (verdict.colour, verdict.shape, verdict.motion) == (None, None, None)
    assert (verdict.background, verdict.sky) == ("gray", None)
