import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.core import database
from deployments.core.job_store import JobStore
from deployments.core.service import JobQuery, Order, Submission
from deployments.core.spec import VideoRequest, VideoSpec, resolve
from tests.core.test_spec import card

REQUEST = VideoRequest(prompt="a red ball", seed=1)
SPEC: VideoSpec = resolve(REQUEST, card())


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state/jobs.sqlite3"


@pytest.fixture
def store(url: str) -> JobStore:
    return JobStore(url)


def submission(job_id: str, **changes: Any) -> Submission:
    return Submission(job_id=job_id, request=REQUEST, **changes)


def submit(store: JobStore, job_id: str, image: bytes | None = None) -> None:
    assert store.submit(submission(job_id, image=image), ["mochi"])


def claim(store: JobStore, job_id: str, owner: str = "a") -> bool:
    return store.claim(job_id, owner, time.time() + 10, SPEC)


def test_a_job_goes_through_its_life(store: JobStore) -> None:
    """queued, in progress, completed; each step is visible in the row."""
    submit(store, "j", b"image")
    assert claim(store, "j")
    assert store.started("j", "a")
    assert store.progress("j", "a", "denoise", 40, 8, 20)
    assert store.image("j") == b"image"
    assert store.name_file("j", "a", "x.mp4")
    assert store.finish("j", "a", 123)
    job = store.get("j")
    assert job is not None
    assert (job.status, job.progress, job.attempts, job.file_bytes) == ("completed", 100, 1, 123)
    assert job.spec == SPEC
    assert job.request == REQUEST
    assert store.image("j") == b"image"
    assert store.file_sizes() == [("j", 123 + len(b"image"))]
    assert store.delete("j")
    assert store.image("j") is None


def test_the_same_id_again_adds_nothing(store: JobStore) -> None:
    """A repeated submit is not a second job."""
    submit(store, "j")
    assert store.submit(submission("j"), ["mochi"]) == "j"
    assert len(store.queued()) == 1


def test_only_one_of_many_claims_wins(store: JobStore, url: str) -> None:
    """Two replicas overlap on redeploy: a job runs once."""
    submit(store, "j")
    stores = [JobStore(url) for _ in range(4)]
    won: list[bool] = []
    threads = [
        threading.Thread(target=lambda s=other, n=str(i): won.append(claim(s, "j", n)))
        for i, other in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False, False, False, True]


def test_a_lost_owner_changes_nothing(store: JobStore) -> None:
    """After a takeover every write of the old owner fails."""
    submit(store, "j")
    claim(store, "j", "old")
    assert store.requeue("j", "old", count_attempt=True)
    claim(store, "j", "new")
    assert not store.progress("j", "old", "denoise", 50, 1, 2)
    assert not store.finish("j", "old", 1)
    assert not store.fail("j", "old", "server_error", "no")
    assert not store.requeue("j", "old", count_attempt=True)
    job = store.get("j")
    assert job is not None
    assert (job.owner, job.status) == ("new", "in_progress")


def test_a_job_is_completed_once(store: JobStore) -> None:
    """The second transition finds no running row."""
    submit(store, "j")
    claim(store, "j")
    assert store.finish("j", "a", 1)
    assert not store.finish("j", "a", 1)
    assert not store.fail("j", "a", "server_error", "no")


def test_cancel_ends_a_waiting_job_and_asks_a_running_one(store: JobStore) -> None:
    """The row stays, `failed` with code `cancelled`; a running one is marked for its owner."""
    submit(store, "waiting")
    assert store.request_cancel("waiting")
    waiting = store.get("waiting")
    assert waiting is not None
    assert (waiting.status, waiting.error_code) == ("failed", "cancelled")
    submit(store, "running")
    claim(store, "running")
    assert store.request_cancel("running")
    assert store.renew("a", time.time() + 10) == ["running"]
    assert not store.request_cancel("waiting")


def test_an_uncounted_requeue_gives_the_attempt_back(store: JobStore) -> None:
    """A clean shutdown costs no attempt, a crash does."""
    submit(store, "j")
    claim(store, "j")
    store.started("j", "a")
    store.requeue("j", "a", count_attempt=False)
    job = store.get("j")
    assert job is not None
    assert (job.status, job.attempts) == ("queued", 0)
    claim(store, "j")
    store.started("j", "a")
    store.requeue("j", "a", count_attempt=True)
    job = store.get("j")
    assert job is not None
    assert job.attempts == 1


def test_jobs_survive_a_new_process(store: JobStore, url: str) -> None:
    """The table is on disk before submit returns; opening it again migrates nothing away."""
    submit(store, "j")
    store.close()
    again = JobStore(url)
    assert [job.id for job in again.queued()] == ["j"]


def test_a_file_name_belongs_to_one_job(store: JobStore) -> None:
    """Two rows never point to one file."""
    import sqlalchemy as sa

    for name in "ab":
        submit(store, name)
        claim(store, name)
    assert store.name_file("a", "a", "x.mp4")
    with pytest.raises(sa.exc.IntegrityError):
        store.name_file("b", "a", "x.mp4")
    found = store.by_file_name("x.mp4")
    assert found is not None
    assert found.id == "a"


def test_a_job_keeps_the_reason_for_its_model(store: JobStore) -> None:
    """From the door, and from the moment a model was free."""
    assert store.submit(submission("j"), ["mochi", "opensora"], "only these two")
    assert store.claim("j", "a", time.time() + 10, SPEC, "only these two; mochi was free")
    job = store.get("j")
    assert job is not None
    assert job.routing == "only these two; mochi was free"


def test_a_refused_job_waits_for_its_other_models_without_an_attempt(store: JobStore) -> None:
    """Its image is still there, and it stands where it stood."""
    assert store.submit(submission("j", image=b"image"), ["mochi", "opensora"])
    submit(store, "later")
    claim(store, "j")
    store.started("j", "a")
    assert store.reroute("j", "a", ["opensora"], "mochi: not enough GPU memory")
    job = store.queued()[0]
    assert (job.id, job.status, job.attempts) == ("j", "queued", 0)
    assert (job.candidates, job.model) == (("opensora",), "opensora")
    assert job.routing == "mochi: not enough GPU memory"
    assert store.image("j") == b"image"
    assert not store.reroute("j", "a", ["opensora"], "again"), "it is nobody's any more"


def test_the_steps_of_all_segments_are_counted(store: JobStore) -> None:
    """The bar of a long clip reaches its end once."""
    submit(store, "j")
    store.claim("j", "a", time.time() + 10, SPEC.model_copy(update={"segments": 3}))
    job = store.get("j")
    assert job is not None
    assert job.num_steps == 3 * SPEC.num_inference_steps


def ids(store: JobStore, after: str | None, limit: int, *, descending: bool) -> list[str] | None:
    order: Order = "desc" if descending else "asc"
    found = store.page(JobQuery(after=after, limit=limit, order=order))
    return None if found is None else [job.id for job in found]


def test_the_jobs_are_read_page_by_page_both_ways(store: JobStore) -> None:
    """In the order in which they came, or the opposite one; an unknown cursor is told apart."""
    for name in "abcde":
        submit(store, name)
    assert ids(store, None, 2, descending=True) == ["e", "d"]
    assert ids(store, "d", 2, descending=True) == ["c", "b"]
    assert ids(store, "b", 2, descending=True) == ["a"]
    assert ids(store, None, 3, descending=False) == ["a", "b", "c"]
    assert ids(store, "c", 3, descending=False) == ["d", "e"]
    assert ids(store, "e", 3, descending=False) == []
    assert ids(store, "never", 3, descending=False) is None


def test_only_a_job_that_has_ended_is_deleted(store: JobStore) -> None:
    """And once."""
    submit(store, "j")
    assert not store.delete("j")
    claim(store, "j")
    assert not store.delete("j")
    store.finish("j", "a", 1)
    assert store.delete("j")
    assert store.get("j") is None
    assert not store.delete("j")


@pytest.mark.parametrize("descending", [True, False])
def test_a_list_is_read_on_from_a_deleted_job(store: JobStore, descending: bool) -> None:
    """Clients delete while they read, and jobs come meanwhile."""
    for name in "abc":
        submit(store, name)
    for name in "bc":
        store.request_cancel(name)
        assert store.delete(name)
    submit(store, "d")
    assert ids(store, "b", 9, descending=descending) == (["a"] if descending else ["d"])
    assert ids(store, "c", 9, descending=descending) == (["a"] if descending else ["d"])


def test_the_list_is_searched_and_filtered(store: JobStore) -> None:
    """By a part of the prompt as it stands there, by model, state, pin and caller."""
    for name, prompt in (("a", "A red ball, 100%"), ("b", "a blue cube"), ("c", "a red_cube")):
        request = REQUEST.model_copy(update={"prompt": prompt})
        caller = "alice" if name == "a" else "bob"
        store.submit(Submission(job_id=name, request=request, caller=caller), ["mochi"])
    store.request_cancel("b")

    def found(**query: Any) -> list[str]:
        return [job.id for job in store.page(JobQuery(**query)) or ()]

    assert found(search="RED") == ["c", "a"]
    assert found(search="100%") == ["a"]
    assert found(search="d_c") == ["c"]
    assert found(status="failed") == ["b"]
    assert found(status="queued", caller="bob") == ["c"]
    assert found(model="opensora") == []
    store.pin("c", pinned=True)
    assert found(pinned=True) == ["c"]
    assert found(pinned=False) == ["b", "a"]


def test_every_change_has_the_next_number(store: JobStore) -> None:
    """One count for all jobs, so that a reader can ask what came since; a lease is no change."""
    submit(store, "a")
    submit(store, "b")
    claim(store, "a")
    assert [job.sequence for job in store.changed_after(0, 9)] == [2, 3]
    assert [job.id for job in store.changed_after(2, 9)] == ["a"]
    store.renew("a", time.time() + 10)
    assert store.last_change() == 3
    store.request_cancel("b")
    store.delete("b")
    assert [(gone.id, gone.sequence) for gone in store.deleted_after(3, 9)] == [("b", 5)]
    assert store.changed_after(3, 9) == []


def test_a_remix_knows_where_it_came_from(store: JobStore) -> None:
    """Also when that job is gone."""
    submit(store, "j")
    store.submit(submission("k", remixed_from="j"), ["mochi"])
    assert [job.remixed_from for job in store.queued()] == [None, "j"]


def test_a_table_of_the_first_version_is_taken_over(url: str) -> None:
    """With its jobs, which waited while the service was updated; and old replicas may go on."""
    import sqlalchemy as sa

    engine = database.connect(url)
    database.migrate(engine, "0001")
    row = {
        "id": "old",
        "status": "queued",
        "phase": "queued",
        "progress": 0,
        "step": 0,
        "num_steps": 0,
        "request": REQUEST.model_dump_json(),
        "candidates": '["mochi"]',
        "model": "mochi",
        "spec": SPEC.model_dump_json(exclude={"conditioned", "segments"}),
        "notices": "[]",
        "owner": "",
        "lease_until": 0.0,
        "attempts": 0,
        "cancel_requested": False,
        "created_at": 1.0,
    }
    insert = sa.table("jobs", *map(sa.column, row)).insert()
    with engine.begin() as connection:
        connection.execute(insert, row)
    store = JobStore(url)
    with engine.begin() as connection:  # the replica of the version before, still at work
        connection.execute(insert, row | {"id": "older"})
    for job in store.queued():
        assert (job.request, job.spec, job.routing) == (REQUEST, SPEC, "")
    assert claim(store, "old")
