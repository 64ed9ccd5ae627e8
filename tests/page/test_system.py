"""The system view, the API key, the colours and the shortcuts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from deployments.core.keys import digest
from tests.page.conftest import Studio, served, watch
from tests.page.films import Film, FilmJobs
from tests.scripted_jobs import replica, service_config

pytestmark = pytest.mark.system

KEY = "vs_a-long-and-secret-key-of-the-tests"


def test_the_machine_and_its_models_are_told(studio: Studio) -> None:
    """Memory of each GPU, what each model can, and plainly which checkpoint it has."""
    studio.jobs.replicas = (replica(gpu=True), replica("failed", "opensora", reason="no memory"))
    studio.add("a red ball", done=False)
    page = studio.open("/#/system")
    system = page.locator("system-view")
    expect(system).to_contain_text("GPU 0: NVIDIA H200")
    expect(system).to_contain_text("2.3 of 139.8 GB")
    expect(system).to_contain_text("GPU 0, load41 %")
    mochi = system.locator("article").first
    expect(mochi).to_contain_text("the small demo one that comes with the service")
    expect(mochi).to_contain_text("make weights MODEL=mochi")
    expect(system.locator("article").nth(1)).to_contain_text("failed: no memory")
    expect(system).to_contain_text("1 in the making, 0 waiting.")
    expect(system.locator(".queue a")).to_have_text("a red ball")
    expect(system.get_by_role("link", name="API, to try out")).to_have_attribute("href", "/docs")
    dashboard = system.get_by_role("link", name="Ray dashboard")
    expect(dashboard).to_have_attribute("href", "http://127.0.0.1:8265/")
    expect(page.locator("#status")).to_contain_text("opensora is failed (no memory)")


def test_the_colours_are_chosen_and_stay(studio: Studio) -> None:
    """The system's own, light, dark; no flash of another on the next visit."""
    studio.page.emulate_media(color_scheme="dark")
    page = studio.open()
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(back) == "rgb(17, 18, 20)"
    page.get_by_role("button", name="Colours").click()
    assert page.evaluate(back) == "rgb(245, 245, 244)"
    page.reload()
    assert page.evaluate(back) == "rgb(245, 245, 244)"
    page.get_by_role("button", name="Colours: light").click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(back) == "rgb(17, 18, 20)"


def test_the_shortcuts_are_listed_and_can_be_switched_off(studio: Studio) -> None:
    """Those of one key only, which get in the way of speech input."""
    page = studio.open()
    page.keyboard.press("/")
    expect(page.get_by_label("Search the prompts")).to_be_focused()
    page.locator("body").click(position={"x": 640, "y": 880})
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_contain_text("Make the video")
    dialog.get_by_label("Single keys, without Ctrl or ⌘, do something").uncheck()
    dialog.get_by_role("button", name="Close").click()
    page.keyboard.press("n")
    expect(page.get_by_label("What should the video show?")).not_to_be_focused()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(dialog).to_be_visible()


@pytest.fixture
def guarded(browser: Browser, tmp_path: Path, film: Film) -> Iterator[Studio]:
    """A service that wants a key."""
    keys = [{"name": "anna", "sha256": digest(KEY)}]
    jobs = FilmJobs(service_config(tmp_path, api_keys=keys), film)
    with served(jobs) as url:
        context = browser.new_context()
        studio = Studio(context, context.new_page(), url, jobs)
        watch(studio)
        yield studio
        context.close()


def test_a_key_is_asked_for_once(guarded: Studio) -> None:
    """A wrong one is told; the right one opens everything, for the next visit too. Until then
    nothing is listened to."""
    page, streams = guarded.page, list[str]()
    page.on("request", lambda sent: streams.append(sent.url) if "/v1/events" in sent.url else None)
    page.goto(guarded.url)
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Enter").click()
    expect(page.locator("#key-error")).to_contain_text("not known")
    assert streams == []
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_label("API key")).to_have_count(0)
    guarded.make()
    guarded.jobs.finish(guarded.jobs.last.id)
    expect(guarded.tiles).to_have_count(1)
    guarded.open()
    expect(guarded.tiles).to_have_count(1)
    page.goto(guarded.url + "/#/system")
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_label("API key")).to_be_visible()
    guarded.forgive("401")
    assert guarded.complaints == []
