from dataclasses import replace

import pytest

from deployments.core.estimates import Expected
from deployments.core.events import Phase
from deployments.core.pace import STALLED_S, STALLED_UNKNOWN_S, Pace
from deployments.core.spec import VideoRequest, VideoSpec, resolve
from tests.core.test_spec import card

NOTHING = Expected(None, None, None, None)
# Two steps of 4 s, then two of 1 s, then frames and file.
LEARNT = Expected(text=2.0, denoise=10.0, decode=6.0, encode=4.0, curve=(0.4, 0.8, 0.9, 1.0))
STEP_S = (4.0, 4.0, 1.0, 1.0)


def spec(num_frames: int = 25, segment_frames: int = 25) -> VideoSpec:
    request = VideoRequest(
        prompt="a red ball", seed=1, width=256, height=256, num_frames=num_frames
    ).model_copy(update={"num_inference_steps": 4})
    return resolve(request, card(segment_frames=segment_frames, frame_step=4, max_frames=240))


def run(
    pace: Pace, slower: float = 1.0, others: float = 1.0
) -> list[tuple[float, float | None, int]]:
    """Play a run whose steps, and whose other phases, take so many times as long; returns the time,
    the seconds left and the percent after each event."""
    now, seen = 0.0, []

    def tell() -> None:
        seen.append((now, pace.seconds_left(now), pace.percent))

    pace.enter("text", now)
    tell()
    now += 2.0
    for segment in range(pace.spec.segments):
        pace.enter("denoise", now)
        tell()
        for step, seconds in enumerate(STEP_S, start=1):
            now += slower * seconds
            pace.step_done(4 * segment + step, now)
            tell()
        pace.enter("decode", now)
        now += others * 6.0 / pace.spec.segments
        left = pace.spec.num_frames - pace.frames
        pace.frames_done(left // (pace.spec.segments - segment), now)
        tell()
    pace.enter("encode", now)
    tell()
    now += others * 4.0
    pace.enter("saved", now)
    return [*seen, (now, 0.0, 100)]


def test_a_run_as_expected_is_foreseen_to_the_second() -> None:
    """Also its steps that are not alike."""
    seen = run(Pace(spec(), LEARNT, 0.0))
    end = seen[-1][0]
    assert end == 22.0
    for now, left, _ in seen:
        assert left == pytest.approx(end - now)


def test_the_bar_goes_with_the_seconds() -> None:
    """One per cent for each phase, and the rest as long as it takes; 100 is not for the run."""
    seen = run(Pace(spec(), LEARNT, 0.0))
    bars = [percent for _, _, percent in seen]
    assert bars == sorted(bars)
    assert bars[0] == 1
    assert bars[-2] == int(1 + 3 + 95 * 18 / 22)
    for now, _, percent in seen:
        assert percent == pytest.approx(100 * now / 22, abs=5)


def test_a_slower_machine_is_noticed_within_some_steps() -> None:
    """The run's own steps count the more, the more there are."""
    seen = run(Pace(spec(), LEARNT, 0.0), slower=2.0)
    end = seen[-1][0]
    errors = [abs(left - (end - now)) for now, left, _ in seen[1:6] if left is not None]
    assert errors[0] == pytest.approx(10.0)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_news_that_comes_in_a_burst_throws_no_guess_off() -> None:
    """A run taught that a step takes next to nothing; now it takes a moment of its own."""
    learnt = replace(LEARNT, curve=(0.4, 0.8, 0.80001, 1.0))
    pace = Pace(spec(), learnt, 0.0)
    pace.enter("denoise", 2.0)
    for step, now in ((1, 6.0), (2, 10.0), (3, 10.5)):
        pace.step_done(step, now)
    left = pace.seconds_left(10.5)
    assert left is not None
    assert 11 < left < 14


def test_a_machine_that_is_busy_with_the_steps_is_busy_with_what_follows() -> None:
    """If the same steps were faster before; those of another shape prove nothing."""
    seen = run(Pace(spec(), replace(LEARNT, same_shape=True), 0.0), slower=2.0, others=2.0)
    end = seen[-1][0]
    errors = [
        abs(left - (end - now)) / (end - now) for now, left, _ in seen[:-1] if left is not None
    ]
    assert errors[1:6] == sorted(errors[1:6], reverse=True)
    assert max(errors[5:]) < 0.2


def test_a_first_run_shows_by_itself_how_long_it_takes() -> None:
    """Nothing is said before the first step; decoding and encoding are guessed from the steps."""
    seen = run(Pace(spec(), NOTHING, 0.0))
    assert [left for _, left, _ in seen[:2]] == [None, None]
    after_two_steps = seen[3]
    assert after_two_steps[1] == pytest.approx(8.0 + 16.0 * (10 + 6) / 82)
    assert [percent for _, _, percent in seen[1:6]] == [2, 22, 43, 63, 84]
    assert seen[-2][2] == 94


def test_a_clip_of_segments_is_foreseen_as_a_whole() -> None:
    """Frames of the first segment come before the steps of the last one."""
    three = spec(num_frames=45, segment_frames=17)
    assert three.segments == 3
    expected = Expected(text=2.0, denoise=30.0, decode=6.0, encode=4.0, curve=LEARNT.curve)
    seen = run(Pace(three, expected, 0.0))
    assert [percent for _, _, percent in seen] == sorted(percent for _, _, percent in seen)
    for now, left, _ in seen:
        assert left == pytest.approx(seen[-1][0] - now, abs=0.2)


def test_a_guess_counts_down_between_events_and_never_below_nothing() -> None:
    """A step that takes longer than expected: some of it is always still to come."""
    pace = Pace(spec(), LEARNT, 0.0)
    pace.enter("denoise", 2.0)
    lefts = [pace.seconds_left(now) or 0.0 for now in (2.0, 3.0, 5.0, 100.0, 200.0)]
    assert lefts[:3] == [20.0, 19.0, 17.0]
    assert 16.0 < lefts[3] < lefts[4]


def test_the_model_is_free_before_the_file_is_written() -> None:
    """So the next job waits less long than this one lasts."""
    pace = Pace(spec(), LEARNT, 0.0)
    assert pace.busy_s(0.0) == 18.0
    pace.enter("encode", 18.0)
    assert pace.busy_s(19.0) == 0.0
    assert pace.seconds_left(19.0) == 3.0


def test_a_phase_that_comes_twice_is_added_up() -> None:
    """A clip of two segments is denoised, decoded, denoised and decoded."""
    pace = Pace(spec(), NOTHING, 0.0)
    phases: tuple[Phase, ...] = ("text", "denoise", "decode", "denoise", "decode", "saved")
    for phase, now in zip(phases, (1.0, 3.0, 6.0, 10.0, 15.0, 21.0), strict=True):
        pace.enter(phase, now)
    assert pace.spent == {"loading": 1, "text": 2, "denoise": 3 + 5, "decode": 4 + 6}


def test_what_a_run_took_is_read_from_it() -> None:
    """For the next one of its kind."""
    pace = Pace(spec(), NOTHING, 0.0)
    run(pace)
    taken = [pace.seconds(phase) for phase in ("text", "denoise", "decode", "encode")]
    assert taken == [2.0, 10.0, 6.0, 4.0]
    assert pace.step_s == 2.5
    assert pace.curve == pytest.approx((0.4, 0.8, 0.9, 1.0))
    assert pace.generated


def test_steps_that_are_begun_anew_count_once() -> None:
    """What they took the last time is learnt, and the run ends as any other."""
    pace = Pace(spec(), LEARNT, 0.0)
    pace.enter("denoise", 0.0)
    for step, now in ((1, 4.0), (2, 8.0), (3, 9.0)):
        pace.step_done(step, now)
    for step, now in ((1, 24.0), (2, 32.0), (3, 34.0), (4, 36.0)):
        pace.step_done(step, now)
        assert pace.generated == (step == 4)
        assert (pace.seconds_left(now) or 0.0) > 0
    assert pace.step_s == pytest.approx((15 + 8 + 2 + 2) / 4)
    assert pace.curve == pytest.approx((15 / 27, 23 / 27, 25 / 27, 1.0))


@pytest.mark.parametrize(
    ("expected", "step_s", "patience_s"),
    [
        (NOTHING, None, STALLED_UNKNOWN_S),
        (NOTHING, 1.0, STALLED_S),
        (NOTHING, 50.0, 200.0),
        (LEARNT, None, STALLED_S),
        (Expected(2.0, 400.0, 6.0, 4.0), None, 400.0),
    ],
)
def test_a_run_is_stalled_when_nothing_happens_for_much_longer_than_usual(
    expected: Expected, step_s: float | None, patience_s: float
) -> None:
    """Four times a step, but not before a minute; five while nothing is known."""
    pace = Pace(spec(), expected, 0.0)
    pace.enter("denoise", 0.0)
    if step_s is not None:
        pace.step_done(1, step_s)
    assert pace.stalled_after_s() == patience_s
