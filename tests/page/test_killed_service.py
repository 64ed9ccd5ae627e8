"""The studio while every process of the service is killed, and started again."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.graph import Graph, free_port, launched, write_config

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SLOW_MS = 120_000


def test_a_page_outlives_the_processes_of_its_service(browser: Browser, tmp_path: Path) -> None:
    """It says that nobody answers, comes back by itself, without a reload, and the video that was
    begun is finished and shown."""
    graph = Graph(port := free_port())
    with launched(write_config(tmp_path, port), tmp_path / "log") as service:
        graph.until_ready(1)
        context = browser.new_context()
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(graph.url)
        expect(page.locator("#prompt-count")).not_to_be_empty()
        page.evaluate("window.neverReloaded = true")
        job_id = graph.submit(prompt="a slow hand", num_inference_steps="14")
        outlook = page.locator(".making .outlook")
        expect(outlook).to_contain_text(re.compile("step [3-9]"), timeout=SLOW_MS)
        service.kill("everything")
        status = page.locator("#status")
        expect(status).to_contain_text("does not answer", timeout=SLOW_MS)
        expect(page.locator(".making li")).to_have_count(1)
        expect(page.locator(f".tile[data-id={job_id}]")).to_be_visible(timeout=SLOW_MS)
        expect(page.locator(".making li")).to_have_count(0)
        expect(status).to_be_hidden(timeout=SLOW_MS)
        assert page.evaluate("window.neverReloaded")
        assert graph.job(job_id)["attempts"] == 2
        context.close()
        assert errors == []
