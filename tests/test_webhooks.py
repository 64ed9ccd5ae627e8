"""Webhooks from the row of a job to a receiver that listens."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployments import webhooks
from deployments.core.config import ServiceConfig, WebhookConfig
from deployments.core.deliveries import DeliveryStore, Outbox
from deployments.core.job_store import JobStore
from deployments.core.service import Submission
from deployments.core.spec import VideoRequest
from deployments.webhooks import Webhooks
from tests.in_process import make, painter_config, running, until_done
from tests.receiver import SECRET, Receiver, receiving

QUICK = (0.01, 0.01)
REQUEST = VideoRequest(prompt="a ball", seed=1)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite3"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def to(receiver: Receiver, **changes: Any) -> WebhookConfig:
    values = {"url": f"{receiver.url}/hook", "secret": SECRET, "allow_private": True}
    return WebhookConfig.model_validate(values | changes)


def outbox_for(*configs: WebhookConfig) -> Outbox:
    return Outbox([config.endpoint({}) for config in configs])


def cancelled_job(url: str, outbox: Outbox, job_id: str = "video_1") -> DeliveryStore:
    """End a job, so that a webhook waits; returns the table that it waits in."""
    jobs = JobStore(url, outbox)
    jobs.submit(Submission(job_id=job_id, request=REQUEST), ["mochi"])
    assert jobs.request_cancel(job_id)
    jobs.close()
    return DeliveryStore(url)


@asynccontextmanager
async def delivering(
    outbox: Outbox, store: DeliveryStore, pauses_s: Sequence[float] = QUICK
) -> AsyncIterator[Webhooks]:
    sender = Webhooks(outbox, store, asyncio.to_thread, pauses_s=pauses_s, poll_every_s=0.01)
    try:
        yield sender
    finally:
        await sender.close()


async def settle(outbox: Outbox, store: DeliveryStore, pauses_s: Sequence[float] = QUICK) -> None:
    """Deliver until nothing is left to deliver."""
    async with delivering(outbox, store, pauses_s):
        await until(lambda: store.count() == 0)


def test_whoever_is_configured_hears_how_a_job_ended(tmp_path: Path, receiver: Receiver) -> None:
    """Signed; each receiver of the events that it wants. The job itself runs in the graph."""
    config = painter_config(tmp_path, "mochi")
    hooks = [to(receiver), to(receiver, url=f"{receiver.url}/bad", events=["video.failed"])]
    config = ServiceConfig.model_validate(config.model_dump() | {"webhooks": hooks})

    async def test() -> None:
        async with running(config) as jobs:
            good, bad = await make(jobs), await make(jobs, "fail at once")
            for job_id in (good, bad):
                await until_done(jobs, job_id)
            await until(lambda: len(receiver.received) == 3)
        assert sorted(receiver.events) == sorted(
            [("video.completed", good), ("video.failed", bad), ("video.failed", bad)]
        )
        paths = {got.path: got.event["data"]["id"] for got in receiver.received}
        assert paths["/bad"] == bad
        assert len({got.headers["webhook-id"] for got in receiver.received}) == 3

    run(test())


def test_a_receiver_that_fails_is_tried_again_with_the_same_id(
    url: str, receiver: Receiver
) -> None:
    """The event is the same, the time and so the signature are those of the attempt."""
    receiver.answers = [500]
    outbox = outbox_for(to(receiver))
    run(settle(outbox, cancelled_job(url, outbox)))
    assert receiver.events == [("video.failed", "video_1")] * 2
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == first.event["id"]
    assert first.body == second.body


def test_after_the_last_attempt_a_webhook_is_given_up(url: str, receiver: Receiver) -> None:
    """Nine attempts, over more than a day, by default; here three."""
    receiver.answers = [500] * 9
    outbox = outbox_for(to(receiver))
    run(settle(outbox, cancelled_job(url, outbox)))
    assert len(receiver.received) == len(QUICK) + 1
    assert 24 * 3600 < sum(webhooks.PAUSES_S) < 36 * 3600


def test_a_receiver_may_ask_for_time(url: str, receiver: Receiver) -> None:
    """`Retry-After` in seconds, when that is longer than our own pause."""
    receiver.answers, receiver.headers = [503], {"retry-after": "600"}
    outbox = outbox_for(to(receiver))
    store = cancelled_job(url, outbox)
    key = outbox.endpoints[0].key

    async def test() -> None:
        async with delivering(outbox, store):
            await until(lambda: len(receiver.received) == 1)
            await asyncio.sleep(0.2)
        assert DeliveryStore(url).due(key, time.time() + 590, 9) == []
        assert len(DeliveryStore(url).due(key, time.time() + 610, 9)) == 1

    run(test())


def test_a_redirect_is_not_followed(url: str, receiver: Receiver) -> None:
    """It could lead to an address that nobody checked."""
    receiver.answers, receiver.headers = [302] * 3, {"location": f"{receiver.url}/elsewhere"}
    outbox = outbox_for(to(receiver))
    run(settle(outbox, cancelled_job(url, outbox)))
    assert {got.path for got in receiver.received} == {"/hook"}


def test_a_receiver_that_is_gone_gets_no_more(url: str, receiver: Receiver) -> None:
    """410: what waits for it is dropped, and nothing new is written down for it."""
    receiver.answers = [410]
    outbox = outbox_for(to(receiver))
    cancelled_job(url, outbox)
    store = cancelled_job(url, outbox, "video_2")

    async def test() -> None:
        async with delivering(outbox, store):
            await until(lambda: store.count() == 0)
            cancelled_job(url, outbox, "video_3").close()
            await asyncio.sleep(0.1)
        assert len(receiver.received) <= 2  # both may have been on their way
        assert DeliveryStore(url).count() == 0

    run(test())


def test_a_webhook_survives_the_process_that_should_have_sent_it(
    url: str, receiver: Receiver
) -> None:
    """Written with the job's last state; the next process sends it."""
    outbox = outbox_for(to(receiver))
    cancelled_job(url, outbox).close()
    run(settle(outbox_for(to(receiver)), DeliveryStore(url)))
    assert receiver.events == [("video.failed", "video_1")]


def test_a_process_that_dies_while_it_sends_has_its_work_repeated(
    url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: the receiver sees one id twice."""
    monkeypatch.setattr(webhooks, "LEASE_S", 0.3)
    receiver.hold.clear()
    outbox = outbox_for(to(receiver))

    async def dies() -> None:
        async with delivering(outbox, cancelled_job(url, outbox)):
            await until(lambda: len(receiver.received) == 1)

    run(dies())
    receiver.hold.set()
    run(settle(outbox, DeliveryStore(url)))
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len(receiver.received) == 2


def test_two_replicas_deliver_a_webhook_once(url: str, receiver: Receiver) -> None:
    """While one replaces the other both look; one gets it."""
    outbox = outbox_for(to(receiver))
    for number in range(20):
        cancelled_job(url, outbox, f"video_{number}").close()

    async def test() -> None:
        async with delivering(outbox, DeliveryStore(url)):
            await settle(outbox, DeliveryStore(url))

    run(test())
    assert len(receiver.received) == 20


def test_a_receiver_that_hangs_holds_up_no_other(url: str, receiver: Receiver) -> None:
    """Each has its own line."""
    with receiving() as stuck:
        stuck.hold.clear()
        outbox = outbox_for(to(stuck), to(receiver))

        async def test() -> None:
            async with delivering(outbox, cancelled_job(url, outbox)):
                await until(lambda: len(receiver.received) == 1)

        run(test())
        assert len(stuck.received) <= 1


def test_what_waits_for_a_receiver_that_is_no_more_configured_is_dropped(
    url: str, receiver: Receiver
) -> None:
    """Nobody would ever take it out."""
    store = cancelled_job(url, outbox_for(to(receiver)))
    run(settle(Outbox(), store))
    assert receiver.received == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.7", "169.254.169.254"])
def test_a_public_name_with_a_private_address_gets_nothing(
    url: str, receiver: Receiver, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address counts, as it is when the webhook is sent; one bad address spoils a name."""
    port = int(receiver.url.rpartition(":")[2])
    asked = []

    async def look_up(_: object, host: str, port: int, **__: object) -> list[Any]:
        asked.append(host)
        addresses = ("93.184.216.34", address)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    hook = WebhookConfig(url=f"https://hooks.example.org:{port}/", secret=SECRET)
    outbox = outbox_for(hook)
    run(settle(outbox, cancelled_job(url, outbox)))
    assert asked == ["hooks.example.org"] * 3
    assert receiver.received == []


def test_the_address_that_was_checked_is_the_one_that_is_used(
    url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up once for an attempt; its own name goes into the request."""
    port = int(receiver.url.rpartition(":")[2])
    real, asked = asyncio.BaseEventLoop.getaddrinfo, []

    async def look_up(loop: Any, host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        return await real(loop, "127.0.0.1", port, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    outbox = outbox_for(to(receiver, url=f"http://hooks.internal:{port}/hook"))
    run(settle(outbox, cancelled_job(url, outbox)))
    assert receiver.received[0].headers["host"] == f"hooks.internal:{port}"
    assert asked.count("hooks.internal") == 1


def certificate_of(name: str, folder: Path) -> ssl.SSLContext:
    """Make a certificate that signs itself; `folder/certificate.pem` has both parts."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(pem) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize(("name", "arrives"), [("hooks.internal", True), ("other.test", False)])
def test_the_certificate_must_be_that_of_the_name(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arrives: bool
) -> None:
    """Though the connection goes to an address."""

    async def look_up(loop: Any, host: str, port: int, **options: Any) -> list[Any]:
        return await real(loop, "127.0.0.1", port, **options)

    real = asyncio.BaseEventLoop.getaddrinfo
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    with receiving(certificate_of("hooks.internal", tmp_path)) as receiver:
        port = receiver.url.rpartition(":")[2]
        outbox = outbox_for(to(receiver, url=f"https://{name}:{port}/"))
        run(settle(outbox, cancelled_job(url, outbox)))
        assert bool(receiver.received) is arrives
