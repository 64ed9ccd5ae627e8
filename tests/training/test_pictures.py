"""Natural-like pictures: seeded, in range, pale, and panning where they should."""

import numpy as np
import pytest

from training.pictures import draw_picture, moving_picture, pan


def test_a_seed_draws_the_same_picture_again() -> None:
    one, other = (draw_picture(np.random.default_rng(4), 48, 64) for _ in range(2))
    assert one.shape == (48, 64, 3)
    assert one.min() >= 0
    assert one.max() <= 1
    np.testing.assert_array_equal(one, other)


def test_brightness_varies_more_than_colour_as_in_photos() -> None:
    rng = np.random.default_rng(0)
    pixels = np.concatenate([draw_picture(rng, 32, 32).reshape(-1, 3) for _ in range(60)])
    luma = pixels @ (0.299, 0.587, 0.114)
    assert luma.std() > 2 * (pixels[:, 2] - luma).std()


@pytest.mark.parametrize("speed", [0.25, 1.0])
def test_a_pan_glides_at_its_speed(speed: float) -> None:
    """Frames differ from the next, and a still view would not."""
    frames = pan(np.random.default_rng(1), 32, 40, 9, speed)
    assert frames.shape == (9, 32, 40, 3)
    assert (np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3)) > 0).all()


def test_half_of_the_clips_stand_still() -> None:
    rng = np.random.default_rng(2)
    clips = [moving_picture(rng, 16, 16, 5) for _ in range(40)]
    still = sum(bool((clip == clip[:1]).all()) for clip in clips)
    assert 10 <= still <= 30
