"""How a request says that it is another one again: by its `Idempotency-Key`, or, from OpenAI's
clients, which send none when they repeat a call, by the count of their attempts.

What came of it is decided in `core.job_intake`.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request

from deployments.core.service import IDEMPOTENCY_KEY
from deployments.routes.body import Part

# openai-python 3.54.0, src/openai/_base_client.py: 0 with the first attempt, then 1, 2.
RETRY_COUNT = "x-stainless-retry-count"


@dataclass(frozen=True)
class Repeat:
    """What a request says of its repetitions.

    Attributes:
        key: two requests with the same one are the same request.
        is_retry: an attempt of OpenAI's clients after the first one.
        received_at: when it came in, in Unix seconds.
    """

    path: str
    key: str | None
    is_retry: bool
    received_at: float

    def fields(self, parts: list[Part], *, fold: bool = True) -> dict[str, Any]:
        """Return what a `Submission` says of it.

        Args: fold: take a later attempt for the one before it.
        """
        return {
            "idempotency_key": self.key,
            "fingerprint": fingerprint(self.path, parts),
            "is_retry": self.is_retry and fold,
            "received_at": self.received_at,
        }


def fingerprint(path: str, parts: list[Part]) -> str:
    """Return the digest of what the client asked for: the address and every field with its content,
    in any order. Neither the names of files nor what the service fills in, as a seed, are in it."""
    fields = sorted((part.name, hashlib.sha256(part.data).hexdigest()) for part in parts)
    whole = "\n".join([path, *(f"{name!r}={content}" for name, content in fields)])
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()


def _repeat(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias=IDEMPOTENCY_KEY,
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description=(
                "Any text of your own, new for every request: the same request with the same key "
                "again is answered with the video that the first one made."
            ),
            examples=["2f1c9a70-order-17"],
        ),
    ] = None,
) -> Repeat:
    count = request.headers.get(RETRY_COUNT, "")
    is_retry = count.isascii() and count.isdecimal() and int(count[:9]) > 0
    return Repeat(request.url.path, key, is_retry, time.time())


RepeatDep = Annotated[Repeat, Depends(_repeat)]
