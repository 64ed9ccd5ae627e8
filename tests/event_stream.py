"""A client of server-sent events, as a browser is one: it reads in the background."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

WITHIN_S = 10.0


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done()


@dataclass
class Stream:
    """One connection, and what came over it.

    Attributes:
        last_id: the id to come back with.
        ended: the server has ended it, in good order.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    comments: int = 0
    last_id: str = ""
    retry_ms: int = 0
    status: int = 0
    ended: bool = False

    @contextmanager
    def reading(self) -> Iterator["Stream"]:
        with (
            httpx.Client(timeout=30) as client,
            client.stream("GET", self.url, headers=self.headers) as answer,
        ):
            self.status = answer.status_code
            reader = threading.Thread(target=self._read, args=(answer,), daemon=True)
            reader.start()
            yield self
            # Closing alone would not wake the reader, and so not reach the server.
            connection = answer.extensions["network_stream"].get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            reader.join(WITHIN_S)

    def until(self, count: int) -> list[dict[str, Any]]:
        """Return the events when there are so many."""
        until(lambda: len(self.events) >= count)
        return self.events

    def until_end(self) -> list[dict[str, Any]]:
        until(lambda: self.ended)
        return self.events

    def until_id(self, last_id: int) -> None:
        until(lambda: self.last_id == str(last_id))

    def _read(self, answer: httpx.Response) -> None:
        try:
            block: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    block[name] = value
                else:
                    self._dispatch(block)
                    block = {}
            self.ended = True
        except (httpx.HTTPError, httpx.StreamError):
            pass  # the test has closed it

    def _dispatch(self, block: dict[str, str]) -> None:
        self.retry_ms = int(block.get("retry", self.retry_ms))
        self.last_id = block.get("id", self.last_id)
        if "data" in block:
            event = {"event": block["event"], "id": block.get("id")}
            self.events.append(event | {"data": json.loads(block["data"])})
