"""A service that wants an API key: asked for once, kept, missed in the middle, forgotten."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from deployments.core.keys import digest
from tests.page.conftest import Studio, served, watch
from tests.page.films import Film, FilmJobs
from tests.scripted_jobs import service_config

pytestmark = pytest.mark.system

KEY = "vs_a-long-and-secret-key-of-the-tests"


@pytest.fixture
def guarded(browser: Browser, tmp_path: Path, film: Film) -> Iterator[Studio]:
    """A service that wants a key; the browser itself writes each 401 to the console."""
    keys = [{"name": "anna", "sha256": digest(KEY)}]
    jobs = FilmJobs(service_config(tmp_path, api_keys=keys), film)
    with served(jobs) as url:
        context = browser.new_context()
        studio = Studio(context, context.new_page(), url, jobs)
        watch(studio)
        yield studio
        context.close()
        studio.forgive("401")
        assert studio.complaints == []


def enter(studio: Studio, key: str = KEY) -> None:
    studio.page.get_by_label("API key").fill(key)
    studio.page.get_by_role("button", name="Enter", exact=True).click()


def test_a_key_is_asked_for_once(guarded: Studio) -> None:
    """A wrong one is told; the right one opens everything, for the next visit too. Until then
    nothing is listened to."""
    page, streams = guarded.page, list[str]()
    page.on("request", lambda sent: streams.append(sent.url) if "/v1/events" in sent.url else None)
    page.goto(guarded.url)
    enter(guarded, "wrong")
    expect(page.locator("#key-error")).to_contain_text("not known")
    assert streams == []
    enter(guarded)
    expect(page.get_by_label("API key")).to_have_count(0)
    guarded.make()
    guarded.jobs.finish(guarded.jobs.last.id)
    expect(guarded.tiles).to_have_count(1)
    guarded.open()
    expect(guarded.tiles).to_have_count(1)
    guarded.tiles.locator("a").focus()
    page.keyboard.press("Delete")
    page.goto(guarded.url + "/#/system")
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_label("API key")).to_be_visible()
    expect(page.locator("#prompt")).to_have_value("")
    assert not guarded.jobs.jobs


def test_an_address_leads_on_once_the_key_is_there(guarded: Studio) -> None:
    """A link that somebody sent opens what it names."""
    page = guarded.page
    page.goto(guarded.url)
    enter(guarded)
    guarded.make("a red ball")
    job_id = guarded.jobs.last.id
    guarded.jobs.finish(job_id)
    guarded.context.clear_cookies()
    page.goto("about:blank")
    page.goto(f"{guarded.url}/#/videos/{job_id}")
    enter(guarded)
    expect(page.locator("#sheet-title")).to_have_text("a red ball")


def test_a_session_that_ends_in_the_middle_is_begun_again(guarded: Studio) -> None:
    """The stream that is refused asks for the key; who does not give it is told, and may later."""
    page = guarded.page
    page.goto(guarded.url)
    enter(guarded)
    guarded.make("a red ball")
    guarded.context.clear_cookies()
    guarded.jobs.last_change -= 1  # another table of jobs: every stream ends
    expect(page.get_by_label("API key")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("This service needs an API key.")
    page.wait_for_timeout(5500)  # the page has looked after the service meanwhile
    expect(page.get_by_label("API key")).to_have_count(0)
    guarded.jobs.finish(guarded.jobs.last.id)
    page.get_by_role("button", name="Enter the key").click()
    enter(guarded)
    expect(page.locator("#status")).to_be_hidden()
    expect(guarded.tiles).to_have_count(1)
    expect(guarded.making).to_have_count(0)


def test_a_key_that_is_missing_is_no_fault_of_the_figures(guarded: Studio) -> None:
    """The dialog asks for it; then they come, with the way to forget it."""
    page = guarded.page
    page.goto(guarded.url + "/#/system")
    expect(page.get_by_label("API key")).to_be_visible()
    system = page.locator("system-view")
    expect(system).to_contain_text("Elsewhere")
    page.evaluate("document.querySelector('system-view').show()")
    expect(system.locator(".note")).to_be_hidden()
    enter(guarded)
    expect(system.locator("article")).to_have_count(2)
    expect(system.get_by_role("button", name="Forget the key")).to_be_visible()


def test_what_was_asked_before_the_key_was_there_does_not_ask_for_it_again(
    guarded: Studio,
) -> None:
    """Its refusal may come late."""
    page, late = guarded.page, guarded.hold("**/v1/videos?*")
    page.goto(guarded.url)
    expect(page.get_by_label("API key")).to_be_visible()
    refused = late().fetch()
    enter(guarded)
    expect(page.get_by_label("API key")).to_have_count(0)
    late().fulfill(response=refused)
    guarded.make()
    expect(page.get_by_label("API key")).to_have_count(0)
