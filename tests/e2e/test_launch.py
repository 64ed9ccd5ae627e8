"""`make serve` as a person meets it: its own process, Ctrl-C, a second start, a config that cannot
work."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from deployments.core.job_store import Job, JobStore
from tests.e2e.graph import SMALL, Graph, free_port, launched, write_config


def running_job(folder: Path) -> Job:
    """Return the job that runs, as the table has it."""

    def running() -> list[Job]:
        return [job for job in store.in_progress() if job.phase == "denoise"]

    store = JobStore(f"sqlite:///{folder}/state/jobs.sqlite3")
    try:
        return Graph.wait(running, bool, 60)[0]
    finally:
        store.close()


def ask_and_lose_the_connection(graph: Graph, form: dict[str, str]) -> None:
    with contextlib.suppress(httpx.HTTPError):
        graph.http.post("/generate", data=form)


@pytest.mark.system
def test_ctrl_c_is_quick_and_the_job_completes_after_the_next_start(tmp_path: Path) -> None:
    """The prompt is back within 20 s while a client waits for its running job; the job is not
    cancelled with the connection, not lost, and the broken run does not count."""
    graph = Graph(port := free_port())
    config, log = write_config(tmp_path, port), tmp_path / "log"
    form = SMALL | {"prompt": "a slow hand", "num_inference_steps": "14"}
    with launched(config, log) as service:
        graph.until_ready(1)
        client = threading.Thread(target=ask_and_lose_the_connection, args=(graph, form))
        client.start()
        job_id = running_job(tmp_path).id
        began = time.monotonic()
        os.kill(service.process.pid, signal.SIGINT)
        service.process.wait(60)
        assert time.monotonic() - began < 20, log.read_text()[-3000:]
        client.join()
    assert list((tmp_path / "outputs").iterdir()) == []
    with launched(config, log):
        graph.until_ready(1)
        job = graph.until_done(job_id)
    assert (job["status"], job["attempts"]) == ("completed", 1)
    assert "Page        http://127.0.0.1" in log.read_text()


@pytest.mark.system
def test_a_deploy_that_fails_ends_with_its_cause(tmp_path: Path) -> None:
    """A wrong key in the config: status 1 and the key's name, not a server of 404s."""
    config, log = write_config(tmp_path, free_port(), colour="red"), tmp_path / "log"
    with launched(config, log) as service:
        assert service.process.wait(90) == 1
    assert "colour" in log.read_text()
    assert "The deploy of 'video' failed" in log.read_text()


def test_a_port_that_is_taken_is_said_at_once(tmp_path: Path) -> None:
    """Nothing is started; another port is proposed."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config, log = write_config(tmp_path, taken.getsockname()[1]), tmp_path / "log"
        with launched(config, log) as service:
            assert service.process.wait(20) == 1
    assert "Cannot listen on 127.0.0.1" in log.read_text()
