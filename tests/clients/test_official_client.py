"""The official `openai` client, two versions of it, against scripted jobs and the running graph.

`make test-system` gives each version a virtual environment of its own.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.core.errors import QueueFull
from deployments.ingress import create_app
from tests.e2e.graph import Graph, cluster, configure, painter, serving
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
def test_the_example_in_our_docs_runs(
    version: str, jobs: ScriptedJobs, url: str, tmp_path: Path
) -> None:
    """docs/api.md, as it stands there."""
    [example] = EXAMPLES
    run(version, "-c", example.replace("http://localhost:8000", url), cwd=tmp_path)
    assert (tmp_path / "ball.mp4").read_bytes() == jobs.video


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    folder = tmp_path_factory.mktemp("official")
    with (
        cluster(num_cpus=4),
        serving(configure(folder, painter("mochi"), painter("opensora"))) as up,
    ):
        up.until_ready(2)
        yield up


@pytest.mark.timeout(480)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_does_all_it_can_do_with_the_running_graph(graph: Graph, version: str) -> None:
    """Create with and without a file, poll, list, download, remix, extend, delete; and errors."""
    saw = json.loads(run(version, str(PROGRAM), graph.url, "pass"))
    assert saw["version"] == version
    assert all(size > 50 for size in saw["sizes"].values())
