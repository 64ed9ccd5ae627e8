import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from deployments.core import database
from deployments.core.deliveries import DeliveryStore, Outbox
from deployments.core.job_store import JobStore
from deployments.core.service import Submission
from deployments.core.spec import VideoRequest
from deployments.core.webhooks import Endpoint

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  it guards nothing
BOTH = Endpoint.at(
    "https://a.example", SECRET, ("video.completed", "video.failed"), allow_private=False
)
GOOD = Endpoint.at("https://b.example", SECRET, ("video.completed",), allow_private=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite3"


def waiting(url: str, outbox: Outbox) -> JobStore:
    """A table with one waiting job."""
    jobs = JobStore(url, outbox)
    jobs.submit(
        Submission(job_id="video_1", request=VideoRequest(prompt="a ball", seed=1)), ["mochi"]
    )
    return jobs


def test_the_end_of_a_job_and_its_webhooks_are_one_change(url: str) -> None:
    """Where the webhook cannot be written down the job has not ended either, and ends later."""
    jobs = waiting(url, Outbox([BOTH]))
    with database.connect(url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE webhook_deliveries RENAME TO away"))
    with pytest.raises(sa.exc.OperationalError):
        jobs.request_cancel("video_1")
    job = jobs.get("video_1")
    assert job is not None
    assert job.status == "queued"
    with database.connect(url).begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO webhook_deliveries"))
    assert jobs.request_cancel("video_1")
    assert DeliveryStore(url).count() == 1


def test_each_receiver_gets_the_events_it_wants_once(url: str) -> None:
    """A second cancel ends nothing, so it tells nothing."""
    jobs = waiting(url, Outbox([BOTH, GOOD]))
    jobs.request_cancel("video_1")
    jobs.request_cancel("video_1")
    store = DeliveryStore(url)
    assert [d.event for d in store.due(BOTH.key, time.time(), 9)] == ["video.failed"]
    assert store.due(GOOD.key, time.time(), 9) == []


def test_an_attempt_belongs_to_one_replica_until_its_lease_ends(url: str) -> None:
    """Both saw it due; the second finds that it is taken."""
    waiting(url, Outbox([BOTH])).request_cancel("video_1")
    store, other, now = DeliveryStore(url), DeliveryStore(url), time.time()
    (delivery,) = store.due(BOTH.key, now, 9)
    assert other.due(BOTH.key, now, 9) == [delivery]
    assert store.claim(delivery, now + 60)
    assert not other.claim(delivery, now + 60)
    assert other.due(BOTH.key, now + 59, 9) == []
    (again,) = other.due(BOTH.key, now + 61, 9)
    assert (again.id, again.attempts) == (delivery.id, 1)


def test_the_end_of_a_job_is_told_once(url: str) -> None:
    """With the model that it waited for, and its outcome."""
    ends: list[tuple[str, str]] = []
    jobs = JobStore(url, on_end=lambda model, outcome: ends.append((model, outcome)))
    request = VideoRequest(prompt="a ball", seed=1)
    jobs.submit(Submission(job_id="video_1", request=request), ["mochi", "opensora"])
    assert not jobs.finish("video_1", "nobody", 1)
    jobs.request_cancel("video_1")
    jobs.request_cancel("video_1")
    assert ends == [("mochi", "cancelled")]
