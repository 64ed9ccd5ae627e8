"""The Ray dashboard of a running graph: who may look, and what is to be seen there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from deployments.core.config import ServiceConfig
from tests.e2e.graph import cluster, configure, free_port, painter, serving

pytestmark = pytest.mark.system
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
# Nothing but this machine is asked, as in tests/page; root has no sandbox.
FLAGS = [
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
]
DEPLOYMENTS = {"ingress", "jobs", "encoder", "mochi", "opensora"}


@contextmanager
def dashboard_of(config: ServiceConfig) -> Iterator[str]:
    """Deploy the graph in a cluster with a dashboard; give its address."""
    port = free_port()
    options = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port}
    with cluster(num_cpus=4, **options), serving(config) as graph:
        graph.until_ready(len(config.models))
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """That of a graph with stand-ins for both models."""
    folder = tmp_path_factory.mktemp("dashboard")
    with dashboard_of(configure(folder, painter("mochi"), painter("opensora"))) as url:
        yield url


def token() -> str:
    """Return the token as the docs say that a person finds it."""
    command = [str(Path(sys.executable).with_name("ray")), "get-auth-token"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout.split()[-1]


def photograph(url: str, path: Path) -> None:
    """Log in as a person does, open Serve, and take its picture when every deployment is there."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 880})
        page.goto(f"{url}/#/serve")
        page.get_by_placeholder("Enter your authentication token").fill(token())
        page.get_by_role("button", name="Submit").click()
        for name in DEPLOYMENTS:
            expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=30_000)
        page.screenshot(path=path)
        browser.close()


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer 0000"}])
def test_without_the_token_nothing_is_told(dashboard: str, headers: dict[str, str]) -> None:
    """Neither without one nor with a wrong one."""
    answer = httpx.get(f"{dashboard}/api/serve/applications/", headers=headers)
    assert answer.status_code in (401, 403)
    assert "mochi" not in answer.text


def test_with_the_token_every_deployment_is_found(dashboard: str) -> None:
    """The Serve API tells that each is healthy, and on how many replicas."""
    headers = {"Authorization": f"Bearer {token()}"}
    answer = httpx.get(f"{dashboard}/api/serve/applications/", headers=headers, timeout=30)
    assert answer.status_code == 200
    found = answer.json()["applications"]["video"]["deployments"]
    assert {name: deployment["status"] for name, deployment in found.items()} == dict.fromkeys(
        DEPLOYMENTS, "HEALTHY"
    )
    assert all(len(deployment["replicas"]) == 1 for deployment in found.values())


def test_a_person_logs_in_and_sees_the_graph(dashboard: str, tmp_path: Path) -> None:
    """With the token, in the page's own dialog."""
    photograph(dashboard, tmp_path / "serve.png")
    assert (tmp_path / "serve.png").stat().st_size > 10_000
