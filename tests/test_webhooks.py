"""Webhooks from the row of a job to a receiver that listens."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import webhooks
from deployments.core.config import ServiceConfig
from deployments.core.deliveries import DeliveryStore, Outbox
from tests.in_process import make, painter_config, running, until_done
from tests.outbox import QUICK, cancelled_job, delivering, outbox_for, run, settle, to, until
from tests.receiver import SECRET, Receiver, receiving

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.sqlite3"


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


@pytest.mark.system
@pytest.mark.parametrize("version", ["2.54.0", "3.54.0"])
def test_the_official_client_unwraps_a_webhook(url: str, receiver: Receiver, version: str) -> None:
    """And refuses it when a letter was changed on the way."""
    outbox = outbox_for(to(receiver))
    run(settle(outbox, cancelled_job(url, outbox)))
    python = ROOT / f".ci-venvs/openai-{version}/bin/python"
    assert python.exists(), f"{python} is missing: make test-system makes it"
    program = (
        "import json, openai, sys\n"
        "body, headers, secret = json.load(sys.stdin)\n"
        "hooks = openai.OpenAI(api_key='unused').webhooks\n"
        "print(hooks.unwrap(body, headers, secret=secret).data.id)\n"
        "try: hooks.unwrap(body.replace('video_1', 'video_2'), headers, secret=secret)\n"
        "except openai.InvalidWebhookSignatureError: print('refused')\n"
    )
    (got,) = receiver.received
    given = json.dumps([got.body, got.headers, SECRET])
    command = [python, "-c", program]
    answer = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)
    assert answer.stdout.split() == ["video_1", "refused"], answer.stderr
