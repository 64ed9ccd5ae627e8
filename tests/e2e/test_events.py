"""Streams of events over a stop and a start of everything."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.graph import Graph, free_port, launched, write_config
from tests.event_stream import Stream


def told_of(stream: Stream, job_id: str) -> list[dict[str, Any]]:
    return [event["data"] for event in stream.events if event["data"]["id"] == job_id]


def until_told(stream: Stream, job_id: str, **wanted: Any) -> None:
    def matches() -> list[dict[str, Any]]:
        return [video for video in told_of(stream, job_id) if wanted.items() <= video.items()]

    Graph.wait(matches, bool, 90)


@pytest.mark.system
def test_a_restart_loses_no_event_and_an_open_stream_does_not_hold_it_up(tmp_path: Path) -> None:
    """Ctrl-C takes less than 20 s while a page listens; when that comes back it is told how its job
    went on, and the bar has not gone back."""
    graph = Graph(port := free_port())
    config, log = write_config(tmp_path, port), tmp_path / "log"
    with launched(config, log) as service:
        graph.until_ready(1)
        with Stream(f"{graph.url}/v1/events").reading() as before:
            job_id = graph.submit(prompt="a slow hand", num_inference_steps="14")
            until_told(before, job_id, step=3)
            began = time.monotonic()
            os.kill(service.process.pid, signal.SIGINT)
            service.process.wait(60)
            assert time.monotonic() - began < 20, log.read_text()[-3000:]
    with launched(config, log):
        graph.until_ready(1)
        again = Stream(f"{graph.url}/v1/events", {"Last-Event-ID": before.last_id})
        with again.reading():
            until_told(again, job_id, status="completed")
    videos = [*told_of(before, job_id), *told_of(again, job_id)]
    bars = [video["progress"] for video in videos]
    assert bars == sorted(bars)
    assert (bars[-1], videos[-1]["attempts"]) == (100, 1)
    assert any(video["heartbeat_at"] for video in videos)
