"""The official `openai` client, two versions of it, against scripted jobs and the running graph.

`make test-system` gives each version a virtual environment of its own.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.core.errors import QueueFull
from deployments.core.keys import digest
from deployments.core.service import JobQuery
from deployments.ingress import create_app
from tests.e2e.graph import Graph, cluster, configure, free_port, painter, serving
from tests.in_process import painter_config, running
from tests.scripted_jobs import (
    MOCHI,
    OPENSORA,
    ScriptedJobs,
    served,
    service_config,
)

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("official_client.py")
KEY = "unused"  # that of the client's program, and of the example in the docs
VERSIONS = ("2.54.0", "3.54.0")
EXAMPLES = re.findall(r"```python\n(from openai.*?)```", (ROOT / "docs/api.md").read_text(), re.S)


def run(version: str, *arguments: str, cwd: Path | None = None) -> str:
    python = ROOT / ".ci-venvs" / f"openai-{version}" / "bin" / "python"
    assert python.exists(), f"{python} is missing: make test-system makes it"
    answer = subprocess.run(
        [python, *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=400,
        check=False,
        cwd=cwd,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture
def jobs(tmp_path: Path) -> ScriptedJobs:
    return ScriptedJobs(service_config(tmp_path), [MOCHI, OPENSORA])


@pytest.fixture
def url(jobs: ScriptedJobs) -> Iterator[str]:
    with served(create_app(jobs, jobs.config, jobs.cards)) as address:
        yield address


@pytest.mark.parametrize("version", VERSIONS)
def test_a_full_queue_is_a_rate_limit_error(version: str, jobs: ScriptedJobs, url: str) -> None:
    """With the time to come back."""
    jobs.refuse = QueueFull(100, 9)
    saw = json.loads(run(version, str(PROGRAM), url, "refused"))
    assert saw == {"version": version, "retry_after": "9"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_key_is_an_authentication_error(version: str, tmp_path: Path) -> None:
    """With its code and sentence; the client's `api_key` is our key."""
    keys = [{"name": "ada", "sha256": digest("the key of ada")}]
    jobs = ScriptedJobs(service_config(tmp_path, api_keys=keys), [MOCHI, OPENSORA])
    with served(create_app(jobs, jobs.config, jobs.cards)) as address:
        saw = json.loads(run(version, str(PROGRAM), address, "keys", "the key of ada"))
    assert saw == {"version": version, "challenge": "Bearer", "id": jobs.last.id}
    assert [job.caller for job in jobs.jobs.values()] == ["ada"]


class Losing:
    """The application behind a bad line: the answer to every third POST turns into a 502."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.attempts: list[str] = []
        self.statuses: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        self.attempts.append(Headers(scope=scope)["x-stainless-retry-count"])
        lost = len(self.attempts) % 3 == 0

        async def deliver(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses.append(message["status"])
            if not lost:
                await send(message)

        await self._app(scope, receive, deliver)
        if lost:  # after it was taken in
            await Response(status_code=502)(scope, receive, send)


async def serve_while(app: ASGIApp, work: Callable[[str], str]) -> str:
    """Serve `app` on this event loop while `work` runs with its address in a thread."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        return await asyncio.to_thread(work, f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        await serving


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_gets_as_many_videos_as_it_makes_calls(version: str, tmp_path: Path) -> None:
    """Though answers are lost after the request was taken in, though the queue is full for a while,
    and though all calls ask for the same: nothing is made twice, and nothing is dropped."""
    config = painter_config(tmp_path, max_queued=1)

    async def test() -> tuple[list[str], list[str], Losing]:
        async with running(config) as jobs:
            losing = Losing(create_app(jobs, config, [MOCHI]))
            said = await serve_while(
                losing, lambda url: run(version, str(PROGRAM), url, "series", "5")
            )
            page = await jobs.list_jobs(JobQuery(limit=100))
        return json.loads(said)["ids"], [job.id for job in page.jobs], losing

    ids, made, losing = asyncio.run(test())
    assert sorted(ids) == sorted(made)
    assert len(set(ids)) == 5
    assert losing.attempts.count("0") == 5
    assert len(losing.attempts) > 5
    assert set(losing.statuses) == {200, 429}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_example_in_our_docs_runs(
    version: str, jobs: ScriptedJobs, url: str, tmp_path: Path
) -> None:
    """docs/api.md, as it stands there."""
    [example] = EXAMPLES
    run(version, "-c", example.replace("http://localhost:8000", url), cwd=tmp_path)
    assert (tmp_path / "ball.mp4").read_bytes() == jobs.video


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    keys = [{"name": "tester", "sha256": digest(KEY)}]
    folder = tmp_path_factory.mktemp("official")
    config = configure(folder, painter("mochi"), painter("opensora"), api_keys=keys)
    few = config.limits.model_copy(update={"max_queued_per_key": 4})
    config = config.model_copy(update={"limits": few})
    with cluster(num_cpus=4), serving(config) as up:
        up.http.headers["Authorization"] = f"Bearer {KEY}"
        up.until_ready(2)
        yield up


@pytest.mark.timeout(480)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_does_all_it_can_do_with_the_running_graph(graph: Graph, version: str) -> None:
    """Create with and without a file, poll, list, download, remix, extend, delete; and errors."""
    saw = json.loads(run(version, str(PROGRAM), graph.url, "pass"))
    assert saw["version"] == version
    assert all(size > 50 for size in saw["sizes"].values())
