"""Addresses: what they show, where closing leads, and what happens while the service is away."""

import pytest
from playwright.sync_api import Route, expect

from tests.page.conftest import HIDE_TAB, Studio

pytestmark = pytest.mark.system


def test_closing_leads_back_to_where_one_was(studio: Studio) -> None:
    """To the drafts, if one came from there; and the back button does not open it again."""
    page = studio.open()
    studio.fill()
    page.get_by_role("button", name="Draft four").click()
    board = page.locator("draft-board")
    expect(board.locator("li .well")).to_have_count(4)
    drafts = page.url
    board.locator("li .well").first.click()
    expect(studio.sheet).to_be_visible()
    expect(board).to_be_visible()
    page.keyboard.press("Escape")
    expect(page).to_have_url(drafts)
    expect(board).to_be_visible()
    expect(board.locator("li .well").first).to_be_focused()
    page.go_back()
    expect(page).to_have_url(drafts)
    expect(studio.sheet).to_be_hidden()


def test_who_came_by_an_address_finds_the_wall_behind_it(studio: Studio) -> None:
    """Also after turning to others."""
    for number in range(3):
        studio.add(f"ball {number}")
    page = studio.open(f"/#/videos/{studio.jobs.last.id}")
    expect(page.locator("#sheet-title")).to_have_text("ball 2")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#sheet-title")).to_have_text("ball 1")
    page.get_by_role("button", name="Close").click()
    expect(page).to_have_url(studio.url + "/#/")
    expect(studio.tiles).to_have_count(3)


def test_an_address_is_kept_until_its_video_can_be_fetched(studio: Studio) -> None:
    """A service that is away for a moment sends nobody home."""
    job_id = studio.add("a red ball")
    page = studio.page
    page.route("**/v1/videos/*", lambda route: route.abort())
    page.route("**/v1/videos?*", lambda route: route.abort())
    page.route("**/v1/events*", lambda route: route.abort())
    page.goto(f"{studio.url}/#/videos/{job_id}")
    expect(page.locator(".toast")).to_contain_text("does not answer")
    assert page.url.endswith(job_id)
    page.unroute_all()
    expect(page.locator("#sheet-title")).to_have_text("a red ball")
    studio.forgive("ERR_FAILED")


def test_what_was_not_opened_yet_opens_while_the_service_is_away(studio: Studio) -> None:
    """Its modules were fetched when there was nothing else to do."""
    job_id = studio.add("a red ball", done=False)
    page = studio.open()
    fetched = "performance.getEntriesByType('resource').map(({ name }) => name).join()"
    for later in ("video-detail", "compare-view", "draft-board", "system-view"):
        page.wait_for_function(f"() => {fetched}.includes('{later}')")
    page.route("**/*", lambda route: route.abort())
    studio.making.locator("a").click()
    expect(page.locator("#sheet-title")).to_have_text("a red ball")
    page.goto(f"{studio.url}/#/drafts")
    expect(page.locator("draft-board")).to_contain_text("Draft four makes a prompt")
    assert job_id
    studio.forgive("ERR_FAILED")


def test_a_selection_that_ends_beside_the_sheet_does_not_close_it(studio: Studio) -> None:
    """A press beside it does."""
    job_id = studio.add("a red ball")
    page = studio.open(f"/#/videos/{job_id}")
    box = page.get_by_label("Change the words, keep the rest").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(5, 5)
    page.mouse.up()
    expect(studio.sheet).to_be_visible()
    page.mouse.click(5, 5)
    expect(studio.sheet).to_be_hidden()


def test_a_message_outlives_the_dialog_that_it_was_shown_over(studio: Studio) -> None:
    """With its way back, and for those who hear the page."""
    for number in range(2):
        studio.add(f"ball {number}")
    page = studio.open(f"/#/videos/{studio.jobs.last.id}")
    expect(studio.tiles).to_have_count(2)
    expect(page.locator("#sheet-title")).to_have_text("ball 1")
    assert page.locator("#announcer").evaluate("node => node.closest('dialog')?.id") == "sheet"
    page.route("**/pin", lambda route: route.abort())
    page.get_by_role("button", name="Pin").last.click()
    expect(studio.sheet.locator(".toast")).to_contain_text("does not answer")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#sheet-title")).to_have_text("ball 0")
    expect(studio.sheet.locator(".toast")).to_be_visible()
    page.get_by_role("button", name="Delete").last.click()
    expect(studio.sheet).to_be_hidden()
    expect(page.locator(".tile > a")).to_be_focused()
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Undo").click()
    expect(studio.tiles).to_have_count(2)
    studio.forgive("ERR_FAILED")


def test_hidden_tabs_share_one_stream(studio: Studio) -> None:
    """The second gives its own back though it waits for something; seen again, it catches up, and
    when the first is closed it is the one that listens."""
    studio.open()
    first, second = studio.make("a ball"), studio.make("a square")
    tabs = [studio.context.new_page() for _ in range(2)]
    for tab in (studio.page, *tabs):
        tab.goto(studio.url)
        expect(tab.locator(".making li")).to_have_count(2)
        tab.evaluate(HIDE_TAB, True)
    studio.page.wait_for_timeout(300)
    studio.jobs.finish(first)
    expect(studio.tiles).to_have_count(1)
    for tab in tabs:
        expect(tab.locator(".tile")).to_have_count(0)
    tabs[0].evaluate(HIDE_TAB, False)
    expect(tabs[0].locator(".tile")).to_have_count(1)
    studio.page.close()
    studio.jobs.finish(second)
    expect(tabs[1].locator(".tile")).to_have_count(2)


def test_a_tab_that_is_hidden_while_it_sends_hears_of_the_end(studio: Studio) -> None:
    """It waited for nothing when it was hidden, and waits for something now."""
    page, held = studio.open(), studio.hold("**/v1/videos")
    studio.fill()
    page.get_by_role("button", name="Make video").click()
    expect(page.get_by_role("button", name="Sending")).to_be_visible()
    sent = held()
    page.evaluate(HIDE_TAB, True)
    sent.continue_()
    expect(studio.making).to_have_count(1)
    studio.jobs.finish(studio.jobs.last.id)
    expect(page).to_have_title("Done (1) – Video studio")


def test_a_video_that_others_delete_is_closed(studio: Studio) -> None:
    """It is not there any more, and pinning it does not bring it back."""
    job_id = studio.add("a red ball")
    page = studio.open(f"/#/videos/{job_id}")
    expect(page.locator("#sheet-title")).to_have_text("a red ball")
    page.evaluate(f"fetch('/v1/videos/{job_id}', {{ method: 'DELETE' }})")
    expect(studio.sheet).to_be_hidden()
    expect(studio.tiles).to_have_count(0)


def test_an_answer_of_something_else_is_told_as_such(studio: Studio) -> None:
    """A proxy's page is not taken for a list."""
    page = studio.page
    page.route("**/v1/videos?*", lambda route: route.fulfill(body="<html>Log in</html>"))
    page.goto(studio.url)
    page.get_by_label("Search the prompts").fill("ball")
    page.wait_for_timeout(400)
    page.unroute_all()
    studio.add("a red ball")
    studio.add("a square")
    expect(studio.tiles.locator(".text")).to_have_text(["a red ball"])


def test_a_late_answer_undoes_no_newer_news(studio: Studio) -> None:
    """The stream told of the end before the answer to the beginning came."""
    page = studio.open()
    studio.fill()

    def end_before_it_is_told(route: Route) -> None:
        answer = route.fetch()
        studio.jobs.finish(studio.jobs.last.id)
        expect(studio.tiles).to_have_count(1)
        route.fulfill(response=answer)

    page.route("**/v1/videos", end_before_it_is_told, times=1)
    page.get_by_role("button", name="Make video").click()
    expect(page.locator("#announcer")).to_have_text("Started.")
    expect(studio.making).to_have_count(0)
    expect(studio.tiles).to_have_count(1)
