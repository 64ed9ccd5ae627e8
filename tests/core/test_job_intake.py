"""A job gets into the table once, however often its request comes."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from deployments.core.errors import InvalidRequest
from deployments.core.job_intake import REPEATED_WITHIN_S
from deployments.core.job_store import JobStore
from deployments.core.service import Submission, new_job_id
from tests.core.test_job_store import REQUEST, claim

CONTENT = "the digest of what was asked for"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite3"


@pytest.fixture
def store(url: str) -> JobStore:
    return JobStore(url)


def call(**changes: Any) -> Submission:
    """A call; each has an id of its own, as the doors give it."""
    values = {"job_id": new_job_id(), "request": REQUEST, "fingerprint": CONTENT}
    return Submission(**values | {"received_at": time.time()} | changes)


def submit(store: JobStore, **changes: Any) -> str:
    return store.submit(call(**changes), ["mochi"])


def at_once(calls: Sequence[Callable[[], str]]) -> list[str]:
    """Make the calls in threads that begin together."""
    gate, found = threading.Barrier(len(calls)), []

    def one(work: Callable[[], str]) -> None:
        gate.wait()
        found.append(work())

    threads = [threading.Thread(target=one, args=[work]) for work in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# --- Idempotency-Key ---------------------------------------------------------------------


def test_a_key_makes_one_job(store: JobStore) -> None:
    """While it waits, runs, and when it is done; another key makes another one."""
    first = submit(store, idempotency_key="k")
    assert submit(store, idempotency_key="k") == first
    claim(store, first)
    assert submit(store, idempotency_key="k") == first
    store.fail(first, "a", "cancelled", "")
    assert submit(store, idempotency_key="k") == first
    assert submit(store, idempotency_key="other") != first
    assert store.known(call(idempotency_key="k")) == first


def test_a_key_is_free_again_when_its_job_is_deleted(store: JobStore) -> None:
    """The row is the memory of it."""
    first = submit(store, idempotency_key="k")
    store.request_cancel(first)
    store.delete(first)
    assert submit(store, idempotency_key="k") != first


def test_a_key_is_its_callers_own(store: JobStore) -> None:
    """Nobody reaches another's job by guessing its key."""
    ada = submit(store, caller="ada", idempotency_key="k")
    assert submit(store, caller="bob", idempotency_key="k") != ada
    assert submit(store, caller="ada", idempotency_key="k") == ada


def test_a_key_of_another_request_is_refused_by_name(store: JobStore) -> None:
    """Also before anything is stored."""
    submit(store, idempotency_key="k")
    for ask in (store.known, lambda other: store.submit(other, ["mochi"])):
        with pytest.raises(InvalidRequest, match=r"^Idempotency-Key: .* another request"):
            ask(call(idempotency_key="k", fingerprint="something else"))
    assert len(store.queued()) == 1


def test_many_calls_with_one_key_at_once_make_one_job(store: JobStore, url: str) -> None:
    """Each through a connection of its own, as from several processes."""
    stores = [JobStore(url) for _ in range(6)]
    calls = [lambda own=own: submit(own, idempotency_key="k") for own in stores for _ in range(2)]
    assert len(set(at_once(calls))) == 1
    assert len(store.queued()) == 1


# --- the attempts of OpenAI's clients -----------------------------------------------------


def test_an_attempt_after_the_first_one_is_the_same_request(store: JobStore) -> None:
    """The client says that it repeats itself."""
    first = submit(store)
    assert submit(store, is_retry=True) == first
    assert submit(store, is_retry=True) == first


def test_a_first_attempt_is_always_a_new_request(store: JobStore) -> None:
    """Who asks twice wants two videos."""
    ids = {submit(store) for _ in range(3)}
    assert len(ids) == 3
    assert submit(store, is_retry=True) in ids
    retried = submit(store, fingerprint="x", is_retry=True)
    assert submit(store, fingerprint="x") != retried


@pytest.mark.parametrize("changes", [{"fingerprint": "other"}, {"caller": "bob"}])
def test_an_attempt_with_other_content_or_of_another_caller_is_new(
    store: JobStore, changes: dict[str, str]
) -> None:
    """It is not what was asked for before."""
    first = submit(store, caller="ada")
    assert submit(store, **{"caller": "ada", "is_retry": True} | changes) != first


def test_an_attempt_that_was_never_heard_of_makes_the_job(store: JobStore) -> None:
    """The first one was lost on its way here."""
    assert submit(store, is_retry=True) == store.queued()[0].id


def test_an_attempt_long_after_is_a_new_request(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No client repeats a call for longer than twenty minutes."""
    first, now = submit(store), time.time()
    monkeypatch.setattr(time, "time", lambda: now + REPEATED_WITHIN_S - 5)
    assert submit(store, is_retry=True) == first
    monkeypatch.setattr(time, "time", lambda: now + REPEATED_WITHIN_S + 5)
    assert submit(store, is_retry=True) != first


def test_a_first_attempt_that_was_overtaken_is_the_same_request(store: JobStore) -> None:
    """It came in first and is stored last: its client has given it up already."""
    slow = call()
    time.sleep(0.002)
    retried = submit(store, is_retry=True)
    assert store.submit(slow, ["mochi"]) == retried
    assert len(store.queued()) == 1


@pytest.mark.parametrize("attempts", [2, 3])
def test_attempts_that_arrive_at_once_make_one_job(url: str, attempts: int) -> None:
    """Whichever is first: twenty races, each through connections of their own."""
    stores = [JobStore(url) for _ in range(attempts)]
    for race in range(20):
        calls = [call(fingerprint=str(race), is_retry=attempt > 0) for attempt in range(attempts)]
        found = at_once(
            [
                lambda own=own, one=one: own.submit(one, ["mochi"])
                for own, one in zip(stores, calls, strict=True)
            ]
        )
        assert len(set(found)) == 1, race
    assert len(stores[0].queued()) == 20
