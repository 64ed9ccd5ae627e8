"""Delivers webhooks: takes them from the table and sends them until they arrive, for about a day.

At least once: a receiver that gets the same `webhook-id` again has had it before. Jobs never wait
for this. What a webhook says and where it may go is in `core/webhooks.py`.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Sequence
from http import HTTPStatus
from random import SystemRandom

import httpx2

from deployments import metrics
from deployments.core.deliveries import Delivery, DeliveryStore, Outbox
from deployments.core.log import logger
from deployments.core.webhooks import Endpoint
from deployments.job_run import Db

POLL_EVERY_S = 1.0
TIMEOUT_S = 20.0
# A delivery whose process has died is due again after this.
LEASE_S = 3 * TIMEOUT_S
# Between the attempts: nine of them, over 27.6 hours; each pause is up to a tenth longer.
PAUSES_S = (5, 60, 300, 1800, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)
LONGEST_PAUSE_S = 24 * 3600
AT_ONCE = 8


class Undelivered(Exception):
    """An attempt failed.

    Args: pause_s: for how long the receiver wants to be left alone.
    """

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason, pause_s)
        self.reason, self.pause_s = reason, pause_s


class Gone(Exception):
    """The receiver wants no more webhooks, ever."""


class Webhooks:
    """Serves all receivers, each on its own: one that hangs holds up no other."""

    def __init__(
        self,
        outbox: Outbox,
        store: DeliveryStore,
        db: Db,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        poll_every_s: float = POLL_EVERY_S,
    ) -> None:
        self._outbox, self._store, self._db = outbox, store, db
        self._pauses_s, self._poll_every_s = pauses_s, poll_every_s
        self._running = asyncio.create_task(self._run(), name="webhooks")

    async def close(self) -> None:
        """Stop; a delivery that is under way is repeated by whoever comes next."""
        self._running.cancel()
        await asyncio.wait([self._running])
        await self._db(self._store.close)

    async def _run(self) -> None:
        keys = [endpoint.key for endpoint in self._outbox.endpoints]
        try:
            if dropped := await self._db(self._store.clear_others, keys):
                logger.warning("%d webhooks dropped: their receivers are not configured", dropped)
        except Exception:  # they stay until the next start
            logger.exception("old webhooks could not be dropped")
        async with asyncio.TaskGroup() as group:
            for endpoint in self._outbox.endpoints:
                group.create_task(self._serve(endpoint), name=endpoint.host)

    async def _serve(self, endpoint: Endpoint) -> None:
        # A client of its own: a kept connection is told by its address, not by the host's name.
        # No proxy from the environment: it would look the name up once more.
        async with httpx2.AsyncClient(
            verify=await asyncio.to_thread(httpx2.create_ssl_context),
            timeout=TIMEOUT_S,
            trust_env=False,
            follow_redirects=False,
        ) as http:
            while True:
                try:
                    await self._deliver_due(endpoint, http)
                except Gone:
                    self._outbox.stop(endpoint)
                    dropped = await self._db(self._store.clear, endpoint.key)
                    logger.warning(
                        "%s wants no more webhooks (410): none until the next start, %d dropped",
                        *(endpoint.host, dropped),
                    )
                    return
                except Exception:
                    logger.exception("webhooks for %s: failed; trying again", endpoint.host)
                await asyncio.sleep(self._poll_every_s)

    async def _deliver_due(self, endpoint: Endpoint, http: httpx2.AsyncClient) -> None:
        due = await self._db(self._store.due, endpoint.key, time.time(), AT_ONCE)
        attempts = [self._attempt(endpoint, delivery, http) for delivery in due]
        ends = await asyncio.gather(*attempts, return_exceptions=True)
        metrics.WEBHOOKS_PENDING.set(await self._db(self._store.count))
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _attempt(
        self, endpoint: Endpoint, delivery: Delivery, http: httpx2.AsyncClient
    ) -> None:
        if not await self._db(self._store.claim, delivery, time.time() + LEASE_S):
            return  # another replica does it
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await _post(endpoint, delivery, http)
        except Undelivered as failure:
            await self._put_off(endpoint, delivery, failure)
        except (httpx2.HTTPError, OSError, TimeoutError) as error:
            await self._put_off(endpoint, delivery, Undelivered(repr(error)))
        else:
            await self._db(self._store.remove, delivery)
            metrics.WEBHOOKS.add(endpoint=endpoint.host, outcome="delivered")
            logger.info(
                "video_id=%s: webhook %s delivered to %s",
                *(delivery.job_id, delivery.event, endpoint.host),
            )

    async def _put_off(self, endpoint: Endpoint, delivery: Delivery, failure: Undelivered) -> None:
        attempt, about = delivery.attempts + 1, (delivery.job_id, delivery.event, endpoint.host)
        if attempt > len(self._pauses_s):
            await self._db(self._store.remove, delivery)
            metrics.WEBHOOKS.add(endpoint=endpoint.host, outcome="given up")
            logger.error("video_id=%s: webhook %s to %s given up: %s", *about, failure.reason)
            return
        jitter = SystemRandom().uniform(1.0, 1.1)
        pause_s = max(self._pauses_s[attempt - 1] * jitter, failure.pause_s)
        await self._db(self._store.postpone, delivery, time.time() + pause_s)
        metrics.WEBHOOKS.add(endpoint=endpoint.host, outcome="failed")
        logger.warning(
            "video_id=%s: webhook %s to %s failed, again in %.0f s: %s",
            *(*about, pause_s, failure.reason),
        )


async def _post(endpoint: Endpoint, delivery: Delivery, http: httpx2.AsyncClient) -> None:
    """Send one webhook. Raises: Undelivered, Gone, httpx2.HTTPError, OSError."""
    response = await _answer(endpoint, delivery, http)
    if response.status_code == HTTPStatus.GONE:
        raise Gone
    if not response.is_success:
        retry_after = response.headers.get("retry-after", "")
        pause_s = float(retry_after) if retry_after.isdecimal() else 0.0
        raise Undelivered(f"answered {response.status_code}", min(pause_s, LONGEST_PAUSE_S))


async def _answer(
    endpoint: Endpoint, delivery: Delivery, http: httpx2.AsyncClient
) -> httpx2.Response:
    """Return the answer of the first of the host's addresses that can be reached, without its body.

    The address that was checked is the one that is connected to: a name that is looked up again may
    have another one by then. The certificate is held against the name.
    """
    url = httpx2.URL(endpoint.url)
    headers = endpoint.headers(delivery.id, delivery.body, time.time())
    headers["host"] = url.netloc.decode()
    unreachable: httpx2.ConnectError | None = None
    for address in await _addresses(endpoint, url):
        request = http.build_request(
            "POST",
            url.copy_with(host=address),
            content=delivery.body,
            headers=headers,
            extensions={"sni_hostname": url.raw_host.decode()},
        )
        try:
            response = await http.send(request, stream=True)
        except httpx2.ConnectError as error:
            unreachable = error
            continue
        with contextlib.suppress(httpx2.HTTPError):
            await response.aclose()
        return response
    raise unreachable or Undelivered("the name has no address")


async def _addresses(endpoint: Endpoint, url: httpx2.URL) -> list[str]:
    """Look the host up. Raises Undelivered when one of its addresses is not to be sent to."""
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(url.raw_host.decode(), port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    for address in addresses:
        if reason := endpoint.refusal(address):
            raise Undelivered(reason)
    return addresses
