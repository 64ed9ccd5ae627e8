"""A browser, and a server whose jobs do as the test says."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import imageio_ffmpeg
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from deployments.ingress import create_app
from tests.scripted_jobs import MOCHI, ScriptedJobs, served, service_config

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
# Debian's chromium asks Google's servers when it starts; without names it cannot.
FLAGS = ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail("needs a browser: apt-get install chromium-headless-shell")
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real MP4 of two seconds."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=256x256:rate=24:duration=2"]
    subprocess.run(
        [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-loglevel",
            "error",
            *source,
            "-pix_fmt",
            "yuv420p",
            path,
        ],
        check=True,
    )
    return path.read_bytes()


@pytest.fixture
def jobs(tmp_path: Path, clip: bytes) -> ScriptedJobs:
    scripted = ScriptedJobs(service_config(tmp_path), [MOCHI])
    scripted.video = clip
    scripted.hold = True
    return scripted


@pytest.fixture
def url(jobs: ScriptedJobs) -> Iterator[str]:
    with served(create_app(jobs, jobs.config, jobs.cards)) as address:
        yield address


@dataclass
class Opened:
    """A page, and what it did that it should not."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def goto(self, path: str) -> None:
        self.page.goto(self.url + path)


@pytest.fixture
def opened(browser: Browser, url: str) -> Iterator[Opened]:
    """A fresh page; console errors and requests to elsewhere fail the test."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(10_000)
    it = Opened(page, url)
    page.on(
        "console",
        lambda message: it.complaints.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: it.complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((url, "data:", "blob:"))
            else it.complaints.append(request.url)
        ),
    )
    yield it
    context.close()
    assert it.complaints == []
