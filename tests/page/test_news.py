"""What the window says: a title for each view, what has ended meanwhile, and notifications."""

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import HIDE_TAB, Studio

pytestmark = pytest.mark.system

NOTIFICATION = """window.Notification = class {
  static permission = 'granted';
  static async requestPermission() { return 'granted'; }
  constructor() { throw new TypeError('Illegal constructor.'); } };"""


def look_away(page: Page, away: bool = True) -> None:
    page.evaluate(HIDE_TAB, away)


def test_every_view_has_a_title(studio: Studio) -> None:
    """Its own, so that tabs and the history tell them apart; a long prompt is cut."""
    first = studio.add("a red ball")
    second = studio.add("🦊" * 100)
    page = studio.open()
    expect(page).to_have_title("Video studio")
    for view, title in (
        (f"videos/{first}", "a red ball"),
        (f"videos/{second}", "🦊" * 60 + "…"),
        (f"compare/{first}/{second}", "Compare"),
        ("drafts", "Drafts"),
        ("system", "System"),
    ):
        page.goto(f"{studio.url}/#/{view}")
        expect(page).to_have_title(f"{title} – Video studio")
        page.reload()
        expect(page).to_have_title(f"{title} – Video studio")
    studio.add(done=False)
    expect(page).to_have_title("40 % – System – Video studio")


def test_the_title_says_done_only_when_all_succeeded(studio: Studio) -> None:
    """What failed or was cancelled has ended, and is not done."""
    first, second = (studio.add(name, done=False) for name in ("a ball", "a square"))
    page = studio.open()
    expect(studio.making).to_have_count(2)
    look_away(page)
    studio.jobs.finish(first)
    expect(page).to_have_title("Done (1) – Video studio")
    studio.jobs.fail(second, "generation_failed", "It broke.")
    expect(page).to_have_title("Ended (2) – Video studio")
    look_away(page, False)
    expect(page).to_have_title("Video studio")


def test_a_browser_without_notifications_for_pages_says_so_once(studio: Studio) -> None:
    """On Android that shows at the first one only; then nobody relies on them any longer."""
    studio.page.add_init_script(NOTIFICATION)
    page = studio.open()
    jobs = [studio.make(name) for name in ("a red ball", "a square")]
    notify = page.get_by_role("button", name="Notify me")
    notify.click()
    expect(notify).to_have_attribute("aria-pressed", "true")
    look_away(page)
    for job_id in jobs:
        studio.jobs.finish(job_id)
    expect(page).to_have_title("Done (2) – Video studio")
    look_away(page, False)
    expect(page.locator(".toast")).to_have_count(1)
    expect(page.locator(".toast")).to_contain_text("no notifications for a page")
    studio.add(done=False)
    expect(studio.making).to_have_count(1)
    expect(notify).to_be_hidden()
    page.reload()
    expect(notify).to_have_attribute("aria-pressed", "false")
