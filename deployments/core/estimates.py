"""How long a phase of a video will take, learnt from the videos that this machine made before.

A phase's seconds are remembered per shape (size, length, steps): the same again takes the same. For
a shape that is new here they are scaled from the nearest ones of the same model by the work that a
phase is: between two known amounts of work along a straight line in both logarithms, beyond them in
proportion. What nothing is known of is None, never a guess from elsewhere. Fast videos are a kind
of their own; until one was made, they are said to take what exact ones take, which is the most.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deployments.core.spec import PATCH, VideoSpec

Learnt = Literal["text", "denoise", "decode", "encode"]

# The newest run counts this much; less than the mean of them all only while there are few.
NEWEST = 0.3
# A transformer of width d does 24 d^2 operations per token in its linear layers and 4 N d in its
# attention over N tokens: the second overtakes the first at N = 6 d. Both published models have a
# width of 3072; the tiny ones are far below that number of tokens.
ATTENTION_FROM = 6 * 3072
FAST = " fast"


@dataclass(frozen=True)
class Setting:
    """What a phase's seconds depend on besides the video: what runs it, and on what."""

    model: str
    checkpoint: str
    device: str


@dataclass(frozen=True)
class Amount:
    """One phase of one video.

    Attributes:
        shape: the same shape takes the same time.
        work: in units of its own in each phase; how different shapes compare.
    """

    phase: Learnt
    shape: str
    work: float

    @property
    def is_fast(self) -> bool:
        """Whether passes are reused, so that the work says less than otherwise."""
        return self.shape.endswith(FAST)


@dataclass(frozen=True)
class Timing:
    """How long one shape takes.

    Attributes:
        seconds: of the whole phase; of one step, on the mean, in `denoise`.
        curve: the share of a segment's denoising that is over after each of its steps; steps are
            not all alike, as guidance may rest at some. Empty in the other phases.
        runs: how many runs this is learnt from.
    """

    setting: Setting
    amount: Amount
    seconds: float
    curve: tuple[float, ...] = ()
    runs: int = 1


@dataclass(frozen=True)
class Expected:
    """The seconds of each phase of a run, all segments together; None where nothing is known.

    Attributes:
        encode: what is left of it after the last frame was decoded.
        curve: see `Timing`.
        same_shape: the steps of this very shape were measured before, not those of a similar one.
    """

    text: float | None
    denoise: float | None
    decode: float | None
    encode: float | None
    curve: tuple[float, ...] = ()
    same_shape: bool = False


def amounts(spec: VideoSpec) -> dict[Learnt, Amount]:
    """Return what each phase of `spec` has to do; `denoise` is one step."""
    size = f"{spec.generated_width}x{spec.generated_height}"
    area = spec.generated_width * spec.generated_height
    # A latent frame is 4 or 6 frames, always the same in one model.
    tokens = area // PATCH**2 * spec.generated_frames / 4
    guided = spec.guidance_scale != 1
    flags = f"{' image' * spec.conditioned}{' unguided' * (not guided)}{' low' * spec.low_vram}"
    flags += FAST * (spec.fast_threshold > 0)
    step_shape = f"{size}x{spec.generated_frames} {spec.num_inference_steps} steps{flags}"
    step_work = (1 + guided) * tokens * (1 + tokens / ATTENTION_FROM)
    frames = spec.generated_frames * spec.segments
    encode_shape = f"{size} to {spec.width}x{spec.height}x{spec.num_frames}"
    return {
        "text": Amount("text", "", 1.0),
        "denoise": Amount("denoise", step_shape, step_work),
        "decode": Amount("decode", f"{size}x{frames}{' low' * spec.low_vram}", area * frames),
        "encode": Amount("encode", encode_shape, spec.width * spec.height * spec.num_frames),
    }


class Estimates:
    """All that has been learnt, in memory."""

    def __init__(self, timings: Iterable[Timing] = ()) -> None:
        self._known: defaultdict[tuple[Setting, Learnt], dict[str, Timing]] = defaultdict(dict)
        for timing in timings:
            self._keep(timing)

    def learn(
        self, setting: Setting, amount: Amount, seconds: float, curve: tuple[float, ...] = ()
    ) -> Timing:
        """Take in how long a phase took; returns what is known of its shape now."""
        old = self._known[setting, amount.phase].get(amount.shape)
        if old is None:
            timing = Timing(setting, amount, seconds, curve)
        else:
            share = max(NEWEST, 1 / (old.runs + 1))
            mixed = tuple(
                before + share * (now - before)
                for before, now in zip(old.curve, curve, strict=True)
            )
            mean = old.seconds + share * (seconds - old.seconds)
            timing = Timing(setting, amount, mean, mixed, old.runs + 1)
        self._keep(timing)
        return timing

    def expect(self, setting: Setting, encoder: Setting, spec: VideoSpec) -> Expected:
        """Return how long the phases of `spec` will take."""
        amount = amounts(spec)
        step_s = self._seconds(setting, amount["denoise"])
        return Expected(
            text=self._seconds(setting, amount["text"]),
            denoise=None if step_s is None else step_s * spec.total_steps,
            decode=self._seconds(setting, amount["decode"]),
            encode=self._seconds(encoder, amount["encode"]),
            curve=self._curve(setting, amount["denoise"]),
            same_shape=amount["denoise"].shape in self._known[setting, "denoise"],
        )

    def _keep(self, timing: Timing) -> None:
        self._known[timing.setting, timing.amount.phase][timing.amount.shape] = timing

    def _seconds(self, setting: Setting, amount: Amount) -> float | None:
        if (exact := self._known[setting, amount.phase].get(amount.shape)) is not None:
            return exact.seconds
        known, work = self._comparable(setting, amount), amount.work
        less = [timing for timing in known if timing.amount.work <= work]
        more = [timing for timing in known if timing.amount.work > work]
        below = max(less, key=_work, default=None)
        above = min(more, key=_work, default=None)
        if below is None or above is None:
            nearest = below or above
            return None if nearest is None else nearest.seconds * work / nearest.amount.work
        along = math.log(work / _work(below)) / math.log(_work(above) / _work(below))
        seconds: float = below.seconds * (above.seconds / below.seconds) ** along
        return seconds

    def _curve(self, setting: Setting, amount: Amount) -> tuple[float, ...]:
        """Return the curve of the shape, or that of the one with the nearest work."""
        known = self._comparable(setting, amount)
        if not known:
            return ()
        exact = self._known[setting, amount.phase].get(amount.shape)
        return (exact or min(known, key=lambda t: _distance(t, amount))).curve

    def _comparable(self, setting: Setting, amount: Amount) -> list[Timing]:
        """Return the timings that an unknown shape is scaled from."""
        known = list(self._known[setting, amount.phase].values())
        alike = [timing for timing in known if timing.amount.is_fast == amount.is_fast]
        return alike or (known if amount.is_fast else [])


def _work(timing: Timing) -> float:
    return timing.amount.work


def _distance(timing: Timing, amount: Amount) -> float:
    return abs(math.log(timing.amount.work / amount.work))
