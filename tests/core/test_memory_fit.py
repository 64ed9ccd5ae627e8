"""Which settings fit where a request does not."""

import pytest

from deployments.core.memory import MODES, PLACEMENTS, need_gb, peak_gb
from deployments.core.memory_fit import Size, nearest_that_fit
from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
from deployments.core.networks.model import Clip
from deployments.core.spec import VideoRequest, resolve
from tests.published_cards import MOCHI, OPENSORA

IN_TURNS, STREAMED = PLACEMENTS[-1], MODES[-1]


def request(width: int = 720, height: int = 720, num_frames: int = 160) -> VideoRequest:
    return VideoRequest(prompt="a fox", seed=0, width=width, height=height, num_frames=num_frames)


def test_a_shorter_or_a_smaller_clip_is_named() -> None:
    """Mochi's transformer and the longest square clip are too much for a card of 24 GB."""
    asked, figures = request(), MochiFigures()
    assert need_gb(figures, resolve(asked, MOCHI), IN_TURNS) > 23.5
    nearest = nearest_that_fit(asked, MOCHI, figures, IN_TURNS, 23.5)
    assert nearest.num_frames is not None
    assert nearest.size is not None
    assert nearest.size.width == nearest.size.height
    assert nearest.size.width % 8 == 0
    frames, side = nearest.num_frames, nearest.size.width
    for fits, change in (
        (True, {"num_frames": frames}),
        (False, {"num_frames": frames + 1}),
        (True, {"width": side, "height": side}),
        (False, {"width": side + 8, "height": side + 8}),
    ):
        changed = asked.model_copy(update=change)
        assert (need_gb(figures, resolve(changed, MOCHI), IN_TURNS) <= 23.5) is fits


def test_the_aspect_is_kept_about() -> None:
    """Both sides stay multiples of 8, the longer decides; portrait as landscape."""
    wide = nearest_that_fit(request(848, 480), MOCHI, MochiFigures(), IN_TURNS, 23.5).size
    tall = nearest_that_fit(request(480, 848), MOCHI, MochiFigures(), IN_TURNS, 23.5).size
    assert wide is not None
    assert tall == Size(width=wide.height, height=wide.width)
    assert wide.width / wide.height == pytest.approx(848 / 480, rel=0.02)


def test_fewer_frames_do_not_help_where_the_decode_is_too_large() -> None:
    """Mochi's takes the same for every length: only a smaller picture does."""
    need = peak_gb(MochiFigures(), Clip(720, 720, 13), STREAMED)
    nearest = nearest_that_fit(request(num_frames=16), MOCHI, MochiFigures(), STREAMED, need - 0.5)
    assert nearest.num_frames is None
    assert nearest.size is not None


def test_low_vram_is_named_where_it_is_enough() -> None:
    """Open-Sora then decodes some frames at a time."""
    asked, figures = request(768, 768, 129), OpenSoraFigures()
    spec = resolve(asked, OPENSORA)
    enough = need_gb(figures, spec.model_copy(update={"low_vram": True}), MODES[1])
    assert need_gb(figures, spec, MODES[1]) > enough
    nearest = nearest_that_fit(asked, OPENSORA, figures, MODES[1], enough)
    assert nearest.low_vram
    assert not nearest_that_fit(asked, OPENSORA, figures, MODES[1], 1.0).low_vram


def test_nothing_is_named_where_nothing_fits() -> None:
    """Not even the weights."""
    nearest = nearest_that_fit(request(), MOCHI, MochiFigures(), IN_TURNS, 8.0)
    assert (nearest.num_frames, nearest.size, nearest.low_vram) == (None, None, False)


def test_a_setting_that_the_model_refuses_is_never_named() -> None:
    """Mochi makes at most 163 frames, whatever the memory."""
    nearest = nearest_that_fit(request(num_frames=240), MOCHI, MochiFigures(), IN_TURNS, 1000.0)
    assert nearest.num_frames == 163
    assert nearest.size is None
    assert not nearest.low_vram
