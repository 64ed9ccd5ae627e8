"""A browser, and a server whose jobs do as the test says."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from deployments.ingress import create_app
from tests import scripted_jobs
from tests.page.films import Film, FilmJobs
from tests.scripted_jobs import service_config

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
# Two cores may be busy with other things.
PATIENCE_S = 20
expect.set_options(timeout=PATIENCE_S * 1000)
# Debian's chromium asks Google's servers when it starts; without names it cannot.
FLAGS = ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"]
# Pretends that nobody, or somebody, looks at the tab.
HIDE_TAB = """(hidden) => {
  Object.defineProperty(document, 'hidden', { configurable: true, value: hidden });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Not for longer than these tests: while it is there, its event loop runs in this thread."""
    if CHROMIUM is None:
        pytest.fail("needs a browser: apt-get install chromium-headless-shell")
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def film() -> Film:
    """Two seconds by the lake."""
    return Film("lake", 256, 256)


@pytest.fixture
def jobs(tmp_path: Path, film: Film) -> FilmJobs:
    """Mochi, which is preferred, and opensora."""
    return FilmJobs(service_config(tmp_path), film)


@pytest.fixture
def url(jobs: FilmJobs) -> Iterator[str]:
    with served(jobs) as address:
        yield address


@dataclass
class Studio:
    """A page, the jobs behind it, and what it did that it should not."""

    context: BrowserContext
    page: Page
    url: str
    jobs: FilmJobs
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Page:
        """Go there, and wait until the models are known."""
        self.page.goto(self.url + path)
        expect(self.page.locator("#prompt-count")).not_to_be_empty()
        return self.page

    def agree(self) -> None:
        """Have this browser know from before that its user consents."""
        self.context.add_init_script("localStorage.setItem('studio.consent', 'true')")

    def fill(self, prompt: str = "a red ball moving right") -> None:
        # Playwright types into what has the focus: under a dialog that would be the dialog.
        expect(self.page.locator("dialog[open]")).to_have_count(0)
        self.page.get_by_label("What should the video show?").fill(prompt)
        consent = self.page.get_by_label("I will use this video lawfully")
        if not consent.is_visible():
            self.unfold()
        consent.check()

    def unfold(self) -> None:
        """Show the settings, which are folded away on a phone."""
        button = self.page.locator("#unfold")
        if button.is_visible() and button.get_attribute("aria-expanded") == "false":
            button.click()

    def make(self, prompt: str = "a red ball moving right") -> str:
        """Send the form; returns the job's id."""
        before = len(self.jobs.jobs)
        self.fill(prompt)
        self.page.get_by_role("button", name="Make video").click()
        expect(self.making).to_have_count(before + 1 - self._ended())
        return self.jobs.last.id

    def hold(self, pattern: str) -> Callable[[], Route]:
        """Hold the next request to there back; what is returned waits for it."""
        held: list[Route] = []
        self.page.route(pattern, lambda route: held.append(route), times=1)

        def first() -> Route:
            self.until(lambda: held)
            return held[0]

        return first

    def until(self, done: Callable[[], object]) -> None:
        """Wait for something of the service; the browser goes on meanwhile."""
        given_up_at = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < given_up_at
            self.page.wait_for_timeout(20)

    def add(self, prompt: str = "a red ball", *, done: bool = True, **fields: object) -> str:
        """A job of somebody else, by default a finished one."""
        job_id = self.jobs.add(prompt, **fields)
        if done:
            self.jobs.finish(job_id)
        return job_id

    def _ended(self) -> int:
        return sum(job.done for job in self.jobs.jobs.values())

    @property
    def making(self) -> Any:
        return self.page.locator(".making li")

    @property
    def tiles(self) -> Any:
        return self.page.locator(".tile")

    @property
    def sheet(self) -> Any:
        return self.page.locator("#sheet")

    def forgive(self, pattern: str) -> None:
        """The browser itself writes refused requests to the console: those were meant."""
        self.complaints[:] = [text for text in self.complaints if not re.search(pattern, text)]


@pytest.fixture
def studio(browser: Browser, url: str, jobs: FilmJobs) -> Iterator[Studio]:
    """A fresh page; what it writes to the console and requests to elsewhere fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    it = Studio(context, page, url, jobs)
    watch(it)
    yield it
    context.close()
    assert it.complaints == []


@contextmanager
def served(jobs: FilmJobs, port: int | None = None) -> Iterator[str]:
    """Run the application in a thread; gives its address. Its end does not wait for streams."""
    app = create_app(jobs, jobs.config, jobs.cards, loras=jobs.loras)
    quick = {"log_level": "critical", "timeout_graceful_shutdown": 1}
    with scripted_jobs.served(app, port, **quick) as url:
        yield url


def watch(studio: Studio) -> None:
    """Write down what the page complains of, and whom it calls."""
    page, complaints = studio.page, studio.complaints
    page.on(
        "console",
        lambda message: (
            complaints.append(f"{message.text} {message.location.get('url')}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((studio.url, "data:", "blob:"))
            else complaints.append(request.url)
        ),
    )
