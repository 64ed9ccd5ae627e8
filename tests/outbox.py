"""Webhooks in a table, and what takes them out of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from deployments.core.config import WebhookConfig
from deployments.core.deliveries import DeliveryStore, Outbox
from deployments.core.job_store import JobStore
from deployments.core.service import Submission
from deployments.core.spec import VideoRequest
from deployments.webhooks import Webhooks
from tests.receiver import SECRET, Receiver

QUICK = (0.01, 0.01)
REQUEST = VideoRequest(prompt="a ball", seed=1)


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
