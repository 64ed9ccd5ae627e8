import time

import pytest

from deployments import fleet
from deployments.core.events import ModelState, ReplicaState
from deployments.fleet import Fleet
from tests.scripted_jobs import GPU


def state(name: str, what: ModelState, model: str = "mochi", reason: str = "") -> ReplicaState:
    return ReplicaState(
        replica_id=name,
        model=model,
        checkpoint="mochi-tiny",
        state=what,
        reason=reason,
        device="cpu",
        node="here",
        pid=1,
        reported_at=time.time(),
    )


def test_only_able_replicas_take_jobs() -> None:
    """Also one that has left the GPU; not one that loads, restarts or has failed."""
    known = Fleet({"mochi": 5})
    for what in ("ready", "unloaded", "loading", "restarting", "failed"):
        known.report(state(what, what))
    assert known.ready("mochi") == 2


def test_a_replica_that_restarts_leaves_hope() -> None:
    """Its successor will serve what waits."""
    known = Fleet({"mochi": 1})
    known.report(state("a", "restarting", reason="1.2 GB did not come back"))
    assert not known.hopeless(["mochi"])


def test_a_silent_replica_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a report for 30 s it takes no job and is shown as lost."""
    known = Fleet({"mochi": 1})
    known.report(state("a", "ready"))
    now = time.monotonic()
    monkeypatch.setattr(fleet.time, "monotonic", lambda: now + fleet.LOST_AFTER_S + 1)
    assert known.ready("mochi") == 0
    assert [replica.state for replica in known.replicas()] == ["lost"]


def test_a_model_is_hopeless_when_all_its_replicas_failed() -> None:
    """One that still loads, or has not reported yet, leaves hope."""
    known = Fleet({"mochi": 2})
    assert not known.hopeless(["mochi"])
    known.report(state("a", "failed", reason="no weights"))
    assert not known.hopeless(["mochi"])
    known.report(state("b", "failed", reason="no weights"))
    assert "no weights" in known.hopeless(["mochi"])


def test_one_model_that_may_serve_leaves_hope() -> None:
    """A request that two models can serve waits for the second."""
    known = Fleet({"mochi": 1, "other": 1})
    known.report(state("a", "failed"))
    assert known.hopeless(["mochi"])
    assert not known.hopeless(["mochi", "other"])


def test_a_dead_replica_is_forgotten() -> None:
    """Its place is free for the one that replaces it."""
    known = Fleet({"mochi": 1})
    known.report(state("a", "ready"))
    known.forget("a")
    assert known.ready("mochi") == 0


def test_a_job_lives_while_a_replica_that_has_it_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it works on the job or keeps its frames; of other jobs nothing is known."""
    known = Fleet({"mochi": 1})
    moment = time.time()
    monkeypatch.setattr(fleet.time, "time", lambda: moment)
    known.report(state("a", "ready").model_copy(update={"job_id": "j", "holding": ("i",)}))
    assert (known.heartbeat("j"), known.heartbeat("i")) == (moment, moment)
    assert known.heartbeat("k") is None
    known.forget("a")
    assert known.heartbeat("j") == moment


def test_a_models_device_is_its_gpu_by_name() -> None:
    """Or the CPU; nothing before a replica was heard of."""
    known = Fleet({"mochi": 1})
    assert known.device("mochi") == ""
    known.report(state("a", "ready"))
    assert known.device("mochi") == "cpu"
    known.report(state("a", "ready").model_copy(update={"device": "cuda", "gpus": (GPU,)}))
    assert known.device("mochi") == "NVIDIA H200"
