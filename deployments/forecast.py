"""How long it will take: the jobs that run, those that wait, and until a model is free.

Glue between what was learnt (`core.estimates`), how each run goes (`core.pace`) and who is there to
do the work (`fleet`).
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.core.config import ServiceConfig
from deployments.core.errors import VideoServiceError
from deployments.core.estimates import Amount, Estimates, Expected, Setting, Timing, amounts
from deployments.core.job_table import Job
from deployments.core.outlook import Times
from deployments.core.pace import STALLED_UNKNOWN_S, Pace
from deployments.core.spec import ModelCard, VideoSpec, resolve
from deployments.core.timings import TimingStore
from deployments.fleet import Fleet

# What a client is told that comes while nothing is known yet.
TYPICAL_JOB_S = 60.0
# A hundred waiting jobs are read and thought through in some milliseconds.
PLAN_FOR_S = 1.0


@dataclass(frozen=True)
class Wait:
    """About how long until a waiting job starts and until it is done, in seconds; None while nobody
    can say."""

    start_s: float | None
    end_s: float | None


class Forecast:
    """What this machine has learnt, and the runs of this process."""

    def __init__(self, config: ServiceConfig, cards: Mapping[str, ModelCard], fleet: Fleet) -> None:
        self._cards, self._fleet = cards, fleet
        self._encoder = config.encoder
        self._store = TimingStore(config.resolved_database_url)
        self._estimates = Estimates(self._store.load())
        self._paces: dict[str, Pace] = {}
        self._lanes: dict[str, list[float]] = {}
        self._waits: dict[str, Wait] = {}
        self._planned_at = -math.inf

    def close(self) -> None:
        """Give the connections to the database back."""
        self._store.close()

    # --- the runs ----------------------------------------------------------------------------

    def began(self, job_id: str, spec: VideoSpec) -> Pace:
        """Return the pace of a run that begins now; until `ended` it counts as running."""
        pace = Pace(spec, self._expected(spec), time.monotonic())
        self._paces[job_id] = pace
        return pace

    def ended(self, job_id: str) -> None:
        """The run is over, in whatever way."""
        self._paces.pop(job_id, None)

    def generated(self, pace: Pace) -> list[Timing]:
        """Learn from a run that has made all of its frames; returns what `save` should keep."""
        spec, amount = pace.spec, amounts(pace.spec)
        setting = self._setting(spec)
        return [
            self._estimates.learn(setting, amount["text"], pace.seconds("text")),
            self._estimates.learn(setting, amount["denoise"], pace.step_s, pace.curve),
            self._estimates.learn(setting, amount["decode"], pace.seconds("decode")),
        ]

    def encoded(self, pace: Pace) -> list[Timing]:
        """Learn from a run whose file has been written."""
        amount: Amount = amounts(pace.spec)["encode"]
        setting = self._encoder_setting(pace.spec)
        return [self._estimates.learn(setting, amount, pace.seconds("encode"))]

    def save(self, timings: Iterable[Timing]) -> None:
        """Keep what was learnt, for the next start. Blocks."""
        self._store.save(timings)

    # --- what the outside wants to know --------------------------------------------------------

    def seconds_left(self, job_id: str) -> float | None:
        """Return about how long a running job still takes; None while nobody can say."""
        pace = self._paces.get(job_id)
        return None if pace is None else pace.seconds_left(time.monotonic())

    def is_stalled(self, job: Job) -> bool:
        """Whether nothing has happened to a running job for much longer than usual."""
        pace = self._paces.get(job.id)
        patience_s = STALLED_UNKNOWN_S if pace is None else pace.stalled_after_s()
        return time.time() - job.changed_at > patience_s

    @property
    def plan_is_old(self) -> bool:
        """Whether `plan` should be asked before `wait` is."""
        return time.monotonic() - self._planned_at > PLAN_FOR_S

    def plan(self, waiting: Sequence[Job]) -> None:
        """Think the queue through: who starts when.

        Args: waiting: the waiting jobs in the order in which they will start.
        """
        self._lanes = self._free_lanes()
        self._waits = {job.id: self._take_lane(job) for job in waiting}
        self._planned_at = time.monotonic()

    def wait(self, job: Job) -> Wait:
        """Return how long a waiting job still waits; one that came after the plan is the last."""
        if job.id not in self._waits:
            self._waits[job.id] = self._take_lane(job)
        return self._waits[job.id]

    def times(self, spec: VideoSpec) -> Times:
        """Return how long one that is handed in now would wait for its model, and take there; asks
        for a `plan` that is not old."""
        expected = self._expected(spec)
        make_s = _sum(expected.text, expected.denoise, expected.decode, expected.encode)
        start_s = min(self._lanes.get(spec.model, []), default=math.inf)
        return Times(start_s=_known(start_s), make_s=_known(make_s))

    def seconds_until_free(self) -> int:
        """Return about how long it takes until a model is free, for a client to come back then."""
        lanes = [free_s for of_model in self._free_lanes().values() for free_s in of_model]
        known = [free_s for free_s in lanes if free_s < math.inf]
        return max(1, math.ceil(min(known, default=TYPICAL_JOB_S / max(1, len(lanes)))))

    # --- inside ----------------------------------------------------------------------------------

    def _free_lanes(self) -> dict[str, list[float]]:
        """Return the seconds until each replica of each model is free; infinite while nobody can
        say."""
        now = time.monotonic()
        lanes: dict[str, list[float]] = {}
        for model in self._cards:
            busy = [
                math.inf if (left := pace.busy_s(now)) is None else left
                for pace in self._paces.values()
                if pace.spec.model == model and pace.phase != "encode"
            ]
            idle = max(0, self._fleet.ready(model) - len(busy))
            lanes[model] = busy + [0.0] * idle
        return lanes

    def _take_lane(self, job: Job) -> Wait:
        """Give the job the lane that is free first, as the dispatcher will, for as long as it takes
        there."""
        able = [name for name in job.candidates if self._lanes.get(name)]
        if not able:
            return Wait(None, None)
        model = min(able, key=lambda name: min(self._lanes[name]))
        lanes = self._lanes[model]
        start = min(lanes)
        try:
            expected = self._expected(resolve(job.request, self._cards[model]))
        except VideoServiceError:  # it will be refused in its turn, and takes no time
            return Wait(_known(start), None)
        busy = _sum(expected.text, expected.denoise, expected.decode)
        lanes[lanes.index(start)] = start + busy
        return Wait(_known(start), _known(start + busy + _sum(expected.encode)))

    def _expected(self, spec: VideoSpec) -> Expected:
        return self._estimates.expect(self._setting(spec), self._encoder_setting(spec), spec)

    def _setting(self, spec: VideoSpec) -> Setting:
        return Setting(spec.model, spec.checkpoint, self._fleet.device(spec.model))

    def _encoder_setting(self, spec: VideoSpec) -> Setting:
        """Return what the seconds of an encode after the last frame depend on: also on how fast the
        frames came, so the model and its device count too."""
        model, encoder = self._setting(spec), self._encoder
        return replace(model, checkpoint=f"{model.checkpoint}, {encoder.preset} crf {encoder.crf}")


def _sum(*parts: float | None) -> float:
    return sum(math.inf if part is None else part for part in parts)


def _known(seconds: float) -> float | None:
    return seconds if seconds < math.inf else None
