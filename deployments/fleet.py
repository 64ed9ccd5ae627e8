"""What the jobs deployment knows of the model replicas: only what they pushed, and how long ago."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.core.events import ABLE, ReplicaState

LOST_AFTER_S = 30.0
FORGOTTEN_AFTER_S = 120.0
# Longer than any job: of whose job the last sign of life is that old, nobody asks any more.
HEARTBEAT_FOR_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class _Heard:
    state: ReplicaState
    at: float


class Fleet:
    """The last state of every replica; `expected` is the number of replicas of each model."""

    def __init__(self, expected: Mapping[str, int]) -> None:
        self._expected = dict(expected)
        self._heard: dict[str, _Heard] = {}
        self._heartbeats: dict[str, float] = {}

    def report(self, state: ReplicaState) -> None:
        """Take a replica's newest state."""
        self._heard[state.replica_id] = _Heard(state, time.monotonic())
        has = {*state.holding, *([state.job_id] if state.job_id else [])}
        self._heartbeats |= dict.fromkeys(has, time.time())

    def forget(self, replica_id: str) -> None:
        """Drop a replica that died; it reports again under a new id, or not at all."""
        self._heard.pop(replica_id, None)

    def replicas(self) -> tuple[ReplicaState, ...]:
        """Return every replica's state, `lost` for those that have gone silent."""
        self._drop_forgotten()
        return tuple(
            heard.state
            if self._is_fresh(heard)
            else heard.state.model_copy(update={"state": "lost", "reason": "no sign of life"})
            for heard in self._heard.values()
        )

    def complete(self, model: str) -> tuple[ReplicaState, ...]:
        """Return the states of the replicas of `model` once all have reported, before that none."""
        states = tuple(h.state for h in self._heard.values() if h.state.model == model)
        return states if len(states) >= self._expected.get(model, 1) else ()

    def ready(self, model: str) -> int:
        """Return how many replicas of `model` can take a job."""
        return sum(
            heard.state.model == model and heard.state.state in ABLE and self._is_fresh(heard)
            for heard in self._heard.values()
        )

    def heartbeat(self, job_id: str) -> float | None:
        """Return when a replica that works on the job, or keeps its frames, was last heard of, in
        Unix seconds; None when none ever was."""
        return self._heartbeats.get(job_id)

    def device(self, model: str) -> str:
        """Return what the replicas of `model` run on: a GPU's name, or `cpu`; "" before one was
        heard of."""
        for heard in self._heard.values():
            if heard.state.model == model:
                on_gpu = heard.state.device != "cpu" and heard.state.gpus
                return heard.state.gpus[0].name if on_gpu else heard.state.device
        return ""

    def hopeless(self, models: Sequence[str]) -> str:
        """Return why none of `models` can ever serve, or "" while one may."""
        reasons = []
        for model in models:
            states = [h.state for h in self._heard.values() if h.state.model == model]
            failed = [state for state in states if state.state == "failed"]
            if len(failed) < self._expected.get(model, 1) or len(failed) < len(states):
                return ""
            reasons.append(f"{model} cannot be loaded: {failed[0].reason}")
        return "; ".join(reasons)

    def _is_fresh(self, heard: _Heard) -> bool:
        return time.monotonic() - heard.at < LOST_AFTER_S

    def _drop_forgotten(self) -> None:
        horizon = time.monotonic() - FORGOTTEN_AFTER_S
        self._heard = {key: h for key, h in self._heard.items() if h.at > horizon}
        oldest = time.time() - HEARTBEAT_FOR_S
        self._heartbeats = {job: at for job, at in self._heartbeats.items() if at > oldest}
