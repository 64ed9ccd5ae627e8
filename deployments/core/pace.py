"""How one run of a job goes: what it has shown so far, and from that and what was expected, how
much is left.

Its own steps count most; before the first one, and for the phases to come, what was learnt before
counts. Times are in seconds of a monotonic clock, given by the caller.
"""

from collections.abc import Mapping

from deployments.core.estimates import Expected
from deployments.core.events import Phase
from deployments.core.spec import VideoSpec

# The bar where nothing was learnt yet, in per cent: text, steps, decoding, encoding. The first per
# cent says that the model has begun; the last one comes with the file.
SHARES = (1.0, 82.0, 10.0, 6.0)
BEGUN = 1
# What was measured of the steps counts as much as what was learnt before when there are so many.
TRUSTED_STEPS = 2
# How much a step counts for less with each one after it: the load of a machine changes.
FADING = 0.85
# A phase that takes longer than expected: about this much of its time so far is still to come.
OVERDUE = 0.1
# Nothing has happened for much longer than usual: so many times as long, and never before so long.
STALLED_TIMES, STALLED_S, STALLED_UNKNOWN_S = 4.0, 60.0, 300.0


class Pace:
    """One run of `spec`, which began at `now`.

    Attributes:
        step: how many steps of all segments are done.
        frames: how many frames have been decoded.
    """

    def __init__(self, spec: VideoSpec, expected: Expected, now: float) -> None:
        self.spec, self.expected = spec, expected
        self.phase: Phase = "loading"
        self._phase_at = self._event_at = now
        self._seconds: dict[Phase, float] = {}
        self.step, self.frames = 0, 0
        self._step_seconds = [0.0] * spec.total_steps
        # Of the newest steps: their seconds, and their share of all denoising.
        self._recent_s, self._recent_share = 0.0, 0.0
        self._longest_step_s = 0.0
        self._decode_s = 0.0
        self._shares = _shares(expected)

    # --- what happens ----------------------------------------------------------------------

    def enter(self, phase: Phase, now: float) -> None:
        """The run is in `phase` from now on; entering it again changes nothing."""
        if phase != self.phase:
            spent = now - self._phase_at
            self._seconds[self.phase] = self._seconds.get(self.phase, 0.0) + spent
            self.phase, self._phase_at, self._event_at = phase, now, now

    def step_done(self, step: int, now: float) -> None:
        """Step `step` of all segments, counted from 1, has ended.

        It may come again, when all are begun anew: then what it took the last time counts.
        """
        took = now - self._event_at
        self.enter("denoise", now)
        share = self._denoised(step) - self._denoised(step - 1)
        # Summed before they are divided: news of steps comes in bursts, so that the share of a
        # single one may be next to nothing.
        self._recent_s = FADING * self._recent_s + took
        self._recent_share = FADING * self._recent_share + share
        self._step_seconds[step - 1] = took
        self._longest_step_s = max(self._longest_step_s, took)
        self.step, self._event_at = step, now

    def frames_done(self, frames: int, now: float) -> None:
        """So many more frames have been decoded."""
        self.enter("decode", now)
        self._decode_s = self._seconds.get("decode", 0.0) + now - self._phase_at
        self.frames, self._event_at = self.frames + frames, now

    # --- what it shows ---------------------------------------------------------------------

    @property
    def percent(self) -> int:
        """How much of the run is over, in per cent of the seconds that it was expected to take;
        moves with what has really been done, and never reaches 100."""
        text, steps, frames, _ = self._shares
        if self.phase == "loading":
            return 0
        if self.phase == "text":
            return BEGUN
        if self.phase == "encode":
            return int(BEGUN + text + steps + frames)
        decoded = frames * self.frames / self.spec.num_frames
        return int(BEGUN + text + steps * self._denoised(self.step) + decoded)

    @property
    def spent(self) -> Mapping[Phase, float]:
        """How long the run was in each phase that it has left, however often."""
        return self._seconds

    def seconds(self, phase: Phase) -> float:
        """Return how long the run was in a phase that it has left."""
        return self._seconds.get(phase, 0.0)

    @property
    def step_s(self) -> float:
        """How long a step took, on the mean; for a run whose steps are all done."""
        return sum(self._step_seconds) / self.spec.total_steps

    @property
    def curve(self) -> tuple[float, ...]:
        """The share of a segment's denoising that was over after each step; for a run whose steps
        are all done."""
        total, passed, shares = sum(self._step_seconds), 0.0, []
        for step in range(self.spec.num_inference_steps):
            passed += sum(self._step_seconds[step :: self.spec.num_inference_steps])
            shares.append(passed / total if total else 1.0)
        return tuple(shares)

    @property
    def generated(self) -> bool:
        """Whether this run has done all of its steps."""
        return self.step == self.spec.total_steps

    def busy_s(self, now: float) -> float | None:
        """Return about how long the model is still at work; None while nobody can say."""
        if self.phase == "encode":
            return 0.0
        denoise, decode = self._denoise_in_all(), self._decode_in_all()
        if denoise is None or decode is None:
            return None
        return (
            self._text_left(now) + self._denoise_left(denoise, now) + self._decode_left(decode, now)
        )

    def seconds_left(self, now: float) -> float | None:
        """Return about how long it is until the file is there; None while nobody can say."""
        busy, encode = self.busy_s(now), self._or_share(self.expected.encode, 3)
        if busy is None or encode is None:
            return None
        elapsed = now - self._phase_at if self.phase == "encode" else 0.0
        return busy + _rest(encode, elapsed)

    def stalled_after_s(self) -> float:
        """Return how long nothing may happen before the run counts as stalled."""
        learnt = self.expected.denoise
        step = None if learnt is None else learnt / self.spec.total_steps
        usual = {
            "text": self.expected.text,
            "denoise": max(self._longest_step_s, step or 0.0) or None,
            "decode": self.expected.decode,
            "encode": self.expected.encode,
        }.get(self.phase)
        return STALLED_UNKNOWN_S if usual is None else max(STALLED_S, STALLED_TIMES * usual)

    # --- inside ----------------------------------------------------------------------------

    def _denoised(self, step: int) -> float:
        """Return the share of all denoising that is over after `step` steps."""
        segment, within = divmod(step, self.spec.num_inference_steps)
        done = within / self.spec.num_inference_steps
        if curve := self.expected.curve:
            at = done * len(curve)
            points = (0.0, *curve, 1.0)
            low = int(at)
            done = points[low] + (at - low) * (points[low + 1] - points[low])
        return (segment + done) / self.spec.segments

    def _denoise_in_all(self) -> float | None:
        """Return how long all steps take: as learnt, and as seen the more, the more were seen."""
        learnt = self.expected.denoise
        if not self._recent_share:
            return learnt
        seen = self._recent_s / self._recent_share
        if learnt is None:
            return seen
        return learnt + (seen - learnt) * self.step / (self.step + TRUSTED_STEPS)

    def _decode_in_all(self) -> float | None:
        learnt, share = self._or_share(self.expected.decode, 2), self.frames / self.spec.num_frames
        if learnt is None or not share:
            return learnt
        return learnt + (self._decode_s / share - learnt) * share

    def _or_share(self, learnt: float | None, part: int) -> float | None:
        """Return what was learnt of a phase, else what it is of the denoising by `SHARES`.

        Where the same steps take longer than they did before, the machine has other work, and the
        phases to come take longer too.
        """
        denoise, usual = self._denoise_in_all(), self.expected.denoise
        if learnt is not None:
            slower = denoise / usual if denoise and usual and self.expected.same_shape else 1.0
            return learnt * slower
        return None if denoise is None else denoise * SHARES[part] / SHARES[1]

    def _text_left(self, now: float) -> float:
        if self.phase not in ("loading", "text"):
            return 0.0
        elapsed = now - self._phase_at if self.phase == "text" else 0.0
        return _rest(self.expected.text or 0.0, elapsed)

    def _denoise_left(self, in_all: float, now: float) -> float:
        if self.phase != "denoise" or self.generated:
            return in_all * (1 - self._denoised(self.step))
        next_step = in_all * (self._denoised(self.step + 1) - self._denoised(self.step))
        later = in_all * (1 - self._denoised(self.step + 1))
        return later + _rest(next_step, now - self._event_at)

    def _decode_left(self, in_all: float, now: float) -> float:
        left = in_all * (1 - self.frames / self.spec.num_frames)
        if self.phase != "decode":
            return left
        elapsed = now - self._event_at
        begun = self.step // self.spec.num_inference_steps
        later = in_all * (1 - begun / self.spec.segments)
        return max(left - elapsed, later + OVERDUE * elapsed)


def _rest(expected: float, elapsed: float) -> float:
    return max(expected - elapsed, OVERDUE * elapsed)


def _shares(expected: Expected) -> tuple[float, float, float, float]:
    """Return what each phase gets of the bar: one per cent, and the rest by its seconds."""
    text, denoise, decode, encode = (
        expected.text,
        expected.denoise,
        expected.decode,
        expected.encode,
    )
    if text is None or denoise is None or decode is None or encode is None:
        return SHARES
    free = 100 - BEGUN - len(SHARES)
    per_second = free / (text + denoise + decode + encode)
    return (
        1 + text * per_second,
        1 + denoise * per_second,
        1 + decode * per_second,
        1 + encode * per_second,
    )
