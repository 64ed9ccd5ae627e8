import pytest

from deployments.core.estimates import ATTENTION_FROM, Estimates, Setting, amounts
from deployments.core.spec import VideoRequest, VideoSpec, resolve
from tests.core.test_spec import card

MOCHI = Setting("mochi", "mochi-tiny", "cpu")
ENCODER = Setting("mochi", "mochi-tiny, medium crf 18", "cpu")


def spec(**changes: object) -> VideoSpec:
    values = {"width": 256, "height": 256, "num_frames": 25, "num_inference_steps": 4}
    request = VideoRequest.model_validate({"prompt": "a red ball", "seed": 1, **values, **changes})
    return resolve(request, card(native_area=1024 * 1024, fast_threshold=0.1))


def learnt(of: VideoSpec, step_s: float = 2.0) -> Estimates:
    estimates, amount = Estimates(), amounts(of)
    estimates.learn(MOCHI, amount["text"], 1.0)
    estimates.learn(MOCHI, amount["denoise"], step_s, (0.4, 0.6, 0.9, 1.0))
    estimates.learn(MOCHI, amount["decode"], 5.0)
    estimates.learn(ENCODER, amount["encode"], 3.0)
    return estimates


def test_the_same_video_takes_the_same_time() -> None:
    """All steps of all segments together; the curve is that of one segment."""
    expected = learnt(spec()).expect(MOCHI, ENCODER, spec())
    assert expected.text == 1.0
    assert expected.denoise == 8.0
    assert (expected.decode, expected.encode) == (5.0, 3.0)
    assert expected.curve == (0.4, 0.6, 0.9, 1.0)
    assert expected.same_shape


def test_nothing_is_known_of_another_model_checkpoint_or_device() -> None:
    """But the encoder is the same for all models."""
    for other in (
        Setting("opensora", "mochi-tiny", "cpu"),
        Setting("mochi", "genmo/mochi-1-preview", "cpu"),
        Setting("mochi", "mochi-tiny", "NVIDIA H200"),
    ):
        expected = learnt(spec()).expect(other, ENCODER, spec())
        assert (expected.text, expected.denoise, expected.decode) == (None, None, None)
        assert expected.encode == 3.0
        assert expected.curve == ()


def test_a_new_shape_takes_its_share_of_the_nearest_one() -> None:
    """Frames are decoded and written in proportion; steps take more, as attention grows faster."""
    twice = spec(height=512)
    expected = learnt(spec()).expect(MOCHI, ENCODER, twice)
    assert (expected.decode, expected.encode) == (10.0, 6.0)
    assert expected.denoise is not None
    assert 16.0 < expected.denoise < 16.0 * 2
    tokens = 256 * 16 * 25 / 64
    more = (1 + 2 * tokens / ATTENTION_FROM) / (1 + tokens / ATTENTION_FROM)
    assert expected.denoise == pytest.approx(16.0 * more, rel=0.3)
    assert not expected.same_shape
    assert expected.curve == (0.4, 0.6, 0.9, 1.0)


def test_between_two_known_shapes_the_truth_lies_between() -> None:
    """Whatever the formula says: a GPU is idle in small videos."""
    small, middle, large = spec(), spec(height=512), spec(height=1024)
    estimates = learnt(small)
    for phase, seconds in (("denoise", 2.5), ("decode", 6.0)):
        curve = (0.25, 0.5, 0.75, 1.0) if phase == "denoise" else ()
        estimates.learn(MOCHI, amounts(large)[phase], seconds, curve)
    expected = estimates.expect(MOCHI, ENCODER, middle)
    assert expected.denoise is not None
    assert expected.decode is not None
    assert 4 * 2.0 < expected.denoise < 4 * 2.5
    assert expected.decode == pytest.approx((5.0 * 6.0) ** 0.5)


@pytest.mark.parametrize(
    "changes",
    [{"num_inference_steps": 8}, {"guidance_scale": 1.0}, {"low_vram": True}, {"height": 264}],
)
def test_what_changes_the_time_of_a_step_is_another_shape(changes: dict[str, object]) -> None:
    """A prompt and a seed change nothing."""
    assert amounts(spec(**changes))["denoise"].shape != amounts(spec())["denoise"].shape
    same = spec(prompt="something else", seed=2)
    assert amounts(same) == amounts(spec())


def test_half_the_passes_take_half_the_time() -> None:
    """Without guidance the network is asked once a step."""
    expected = learnt(spec()).expect(MOCHI, ENCODER, spec(guidance_scale=1.0))
    assert expected.denoise == 4.0


def test_newer_runs_count_more_and_none_counts_alone() -> None:
    """The mean of the first three, then what the last one took at three tenths."""
    estimates, amount = Estimates(), amounts(spec())["decode"]
    for seconds, mean in ((10.0, 10.0), (20.0, 15.0), (30.0, 20.0), (30.0, 23.0)):
        assert estimates.learn(MOCHI, amount, seconds).seconds == pytest.approx(mean)


def test_curves_are_mixed_step_by_step() -> None:
    """Each point on its own."""
    estimates, amount = Estimates(), amounts(spec())["denoise"]
    estimates.learn(MOCHI, amount, 1.0, (0.2, 0.4, 0.6, 1.0))
    timing = estimates.learn(MOCHI, amount, 1.0, (0.4, 0.6, 0.8, 1.0))
    assert timing.curve == pytest.approx((0.3, 0.5, 0.7, 1.0))


def test_what_was_saved_is_known_again() -> None:
    """Estimates are made of timings."""
    first = Estimates().learn(MOCHI, amounts(spec())["decode"], 4.0)
    assert Estimates([first]).expect(MOCHI, ENCODER, spec()).decode == 4.0


def test_fast_videos_are_a_kind_of_their_own() -> None:
    """They spoil no exact one's figures; until one was made, exact ones are the upper bound."""
    fast = spec(quality="fast")
    estimates = learnt(spec())
    assert estimates.expect(MOCHI, ENCODER, fast).denoise == 8.0
    assert not estimates.expect(MOCHI, ENCODER, fast).same_shape
    estimates.learn(MOCHI, amounts(fast)["denoise"], 0.5, (0.5, 0.6, 0.7, 1.0))
    assert estimates.expect(MOCHI, ENCODER, fast).denoise == 2.0
    assert estimates.expect(MOCHI, ENCODER, spec()).denoise == 8.0
    more_steps = {"num_inference_steps": 8}
    assert estimates.expect(MOCHI, ENCODER, spec(**more_steps)).denoise == 16.0
    assert estimates.expect(MOCHI, ENCODER, spec(quality="fast", **more_steps)).denoise == 4.0


def test_of_exact_videos_nothing_is_known_from_fast_ones() -> None:
    """They would be told too little."""
    estimates = learnt(spec(quality="fast"))
    assert estimates.expect(MOCHI, ENCODER, spec()).denoise is None
    assert estimates.expect(MOCHI, ENCODER, spec()).curve == ()
