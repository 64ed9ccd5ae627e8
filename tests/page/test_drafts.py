"""Draft, pick, finish: four seeds with few steps, and one of them in full with the same seed."""

import io
import json
import re

import pytest
from PIL import Image
from playwright.sync_api import Locator, Route, expect

from tests.page.conftest import HIDE_TAB, Studio
from tests.page.test_picture import choose, picture

pytestmark = pytest.mark.system

CLIPS = "[...document.querySelectorAll('.board video')]"
# Where they are as soon as all are on their way, in one look.
TIMES = f"""() => {{
  const times = {CLIPS}.map((clip) => clip.currentTime);
  return times.every((time) => time > 0.3) && times;
}}"""
PLAYING = f"() => {CLIPS}.filter((clip) => !clip.paused).length"
FULL = "The queue is full."
NO_STORAGE = "Storage.prototype.setItem = () => { throw new DOMException('It is full.'); }"


def drafted(studio: Studio, prompt: str = "a red ball", *, done: bool = True) -> Locator:
    """The board of four drafts that were just begun, by default finished ones."""
    before = set(studio.jobs.jobs)
    studio.fill(prompt)
    studio.page.get_by_role("button", name="Draft four").click()
    board = studio.page.locator(".board li")
    expect(board).to_have_count(4)
    for job_id in set(studio.jobs.jobs) - before if done else ():
        studio.jobs.finish(job_id)
    expect(board.locator("video")).to_have_count(4 if done else 0)
    return board


def test_one_of_four_drafts_is_made_in_full(studio: Studio) -> None:
    """The drafts differ in their seeds, the finished one in its steps."""
    page = studio.open()
    studio.fill("a red ball on the lake")
    page.get_by_role("button", name="Draft four").click()
    board = page.locator(".board li")
    expect(board).to_have_count(4)
    expect(page.locator("draft-board")).to_contain_text("with 5 steps each")
    expect(board.first.locator(".state")).to_have_text("40 %")
    second = list(studio.jobs.jobs)[1]
    studio.jobs.foresee(second, 4)
    expect(board.nth(1).get_by_alt_text("Preview after step 4")).to_be_visible()
    expect(page.locator(".board img")).to_have_count(1)
    drafts = list(studio.jobs.requests)
    assert [request.num_inference_steps for request in drafts] == [5] * 4
    assert len({request.seed for request in drafts}) == 4
    for job_id in list(studio.jobs.jobs):
        studio.jobs.finish(job_id)
    expect(board.locator("video")).to_have_count(4)
    expect(page.locator(".board img")).to_have_count(0)
    board.nth(2).get_by_role("button", name="Make in full").click()
    expect(board.nth(2)).to_contain_text("In full: 40 %")
    full = studio.jobs.requests[-1]
    assert (full.seed, full.num_inference_steps) == (drafts[2].seed, None)
    assert (full.prompt, full.prefer_backend) == (drafts[2].prompt, drafts[2].prefer_backend)
    page.reload()
    expect(board.nth(2)).to_contain_text("In full: 40 %")
    studio.jobs.finish(studio.jobs.last.id)
    board.nth(2).get_by_role("link", name="Watch it in full").click()
    expect(studio.sheet.locator("video")).to_be_visible()


def test_a_locked_seed_is_the_first_draft(studio: Studio) -> None:
    """So that one can look for something near to it."""
    page = studio.open()
    studio.fill()
    page.get_by_label("Seed", exact=True).fill("77")
    page.get_by_role("button", name="Draft four").click()
    expect(page.locator(".board li")).to_have_count(4)
    assert studio.jobs.requests[0].seed == 77


def test_the_picture_of_the_drafts_is_that_of_the_finished_one(studio: Studio) -> None:
    """Also after a reload, when the server has it, pixel by pixel."""
    page = studio.open()
    studio.fill()
    choose(page, picture(512, 512))
    page.get_by_role("button", name="Draft four").click()
    expect(page.locator(".board li")).to_have_count(4)
    for job_id in list(studio.jobs.jobs):
        studio.jobs.finish(job_id)
    page.reload()
    page.get_by_role("button", name="Make in full").first.click()
    expect(page.locator(".board li").first.get_by_role("link", name="In full:")).to_be_visible()
    first, last = studio.jobs.images[0], studio.jobs.images[-1]
    assert first is not None
    assert last is not None
    with Image.open(io.BytesIO(first)) as sent, Image.open(io.BytesIO(last)) as kept:
        assert (kept.size, kept.tobytes()) == (sent.size, sent.tobytes())


def test_without_drafts_the_view_explains_itself(studio: Studio) -> None:
    """And a failed draft says why."""
    page = studio.open("/#/drafts")
    expect(page.locator("draft-board")).to_contain_text("Draft four makes a prompt with four seeds")
    studio.fill()
    page.get_by_role("button", name="Draft four").click()
    expect(page.locator(".board li")).to_have_count(4)
    studio.jobs.fail(next(iter(studio.jobs.jobs)), "generation_failed", "It broke.")
    expect(page.locator(".board li").first.locator(".state")).to_have_text("It broke.")


def test_a_draft_whose_full_video_is_lost_can_be_chosen_again(studio: Studio) -> None:
    """The board says why there is none, whether it failed, was cancelled or was deleted."""
    page = studio.open()
    cell = drafted(studio).first
    pick, link = cell.get_by_role("button", name="Make in full"), cell.locator(".full")
    for code, told in (("generation_failed", "It broke."), ("cancelled", "Cancelled.")):
        pick.click()
        expect(link).to_have_text("In full: 40 %")
        studio.jobs.fail(studio.jobs.last.id, code, "It broke.")
        expect(cell.locator(".why")).to_have_text(f"Not made in full: {told}")
        expect(link).to_be_hidden()
    pick.click()
    expect(link).to_be_visible()
    expect(cell.locator(".why")).to_be_hidden()
    gone = studio.jobs.last.id
    page.evaluate(f"fetch('/v1/videos/{gone}', {{ method: 'DELETE' }})")
    expect(cell.locator(".why")).to_have_text("The full video is no longer there.")
    page.reload()
    expect(cell.locator(".why")).to_have_text("The full video is no longer there.")
    pick.click()
    expect(link).to_have_text("In full: 40 %")
    assert len({request.seed for request in studio.jobs.requests[4:]}) == 1
    studio.forgive("404")


def test_the_focus_follows_from_the_button_to_the_link_and_back(studio: Studio) -> None:
    """One takes the place of the other while somebody is there with the keyboard."""
    page = studio.open()
    cell = drafted(studio).first
    cell.get_by_role("button", name="Make in full").focus()
    page.keyboard.press("Enter")
    expect(cell.get_by_role("link", name="In full: 40 %")).to_be_focused()
    studio.jobs.fail(studio.jobs.last.id, "generation_failed", "It broke.")
    expect(cell.get_by_role("button", name="Make in full")).to_be_focused()


def test_the_drafts_play_together_and_can_be_paused(studio: Studio) -> None:
    """Nothing plays while nobody sees it, and what was paused stays so."""
    page = studio.open()
    drafted(studio)
    times = page.wait_for_function(TIMES).json_value()
    assert max(times) - min(times) < 0.3
    page.evaluate(HIDE_TAB, True)
    page.wait_for_function(f"{PLAYING} === 0")
    page.evaluate(HIDE_TAB, False)
    page.wait_for_function(f"{PLAYING} === 4")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function(f"{PLAYING} === 0")
    page.evaluate(HIDE_TAB, False)
    assert page.evaluate(PLAYING) == 0
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(f"{PLAYING} === 4")
    page.get_by_role("link", name="Videos").click()
    page.wait_for_function(f"{PLAYING} === 0")


def test_the_drafts_stand_still_for_those_who_asked_for_that(studio: Studio) -> None:
    """`prefers-reduced-motion`; the button still plays them."""
    studio.page.emulate_media(reduced_motion="reduce")
    page = studio.open()
    drafted(studio)
    page.wait_for_timeout(300)
    assert page.evaluate(PLAYING) == 0
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(f"{PLAYING} === 4")


def test_news_of_other_videos_does_not_read_what_is_stored(studio: Studio) -> None:
    """It was read once, and is kept in mind."""
    page = studio.page
    page.add_init_script(
        "const { getItem } = Storage.prototype; window.reads = 0;"
        "Storage.prototype.getItem = function (key) {"
        "  window.reads += key === 'studio.drafts'; return getItem.call(this, key); }"
    )
    studio.open("/#/drafts")
    expect(page.locator("draft-board .lead")).to_be_visible()
    reads = page.evaluate("window.reads")
    studio.add("a blue square")
    expect(page.locator(".tile")).to_have_count(1)
    assert page.evaluate("window.reads") == reads == 1


def test_the_drafts_need_no_storage(studio: Studio) -> None:
    """A browser that stores nothing shows them until the page is left."""
    studio.page.add_init_script(NO_STORAGE)
    page = studio.open()
    board = drafted(studio)
    board.first.get_by_role("button", name="Make in full").click()
    expect(board.first).to_contain_text("In full: 40 %")
    page.goto(studio.url + "/#/")
    page.get_by_role("link", name="Drafts").click()
    expect(board.first).to_contain_text("In full: 40 %")


def test_stored_sets_of_another_shape_are_dropped(studio: Studio) -> None:
    """Another version of the page may have written them; those that can be read stay."""
    good = {
        "id": "good",
        "at": 1_700_000_000_000,
        "recipe": {"prompt": "a red ball", "model": "mochi", "width": "256", "height": "256"},
        "fast": {"num_inference_steps": "5"},
        "withPicture": False,
        "drafts": [],
    }
    wrong = [
        None,
        7,
        "set",
        {},
        {"id": "bare"},
        *({**good, name: [3]} for name in good if name != "withPicture"),
    ]
    page = studio.open()
    board = page.locator("draft-board")
    for value, shown in (
        ("{", "Draft four"),
        ("7", "Draft four"),
        (json.dumps([*wrong, good]), "a red ball"),
    ):
        page.evaluate("value => localStorage.setItem('studio.drafts', value)", value)
        page.goto(studio.url + "/#/drafts")
        page.reload()
        expect(board).to_contain_text(shown)
        expect(board.get_by_role("heading", name="Earlier")).to_be_hidden()


def test_another_tab_shows_the_drafts_too(studio: Studio) -> None:
    """As soon as they are begun, and which of them was chosen."""
    studio.open()
    other = studio.context.new_page()
    other.goto(studio.url + "/#/drafts")
    expect(other.locator("draft-board .lead")).to_be_visible()
    board = drafted(studio)
    expect(other.locator(".board li")).to_have_count(4)
    board.first.get_by_role("button", name="Make in full").click()
    expect(other.locator(".board li").first).to_contain_text("In full: 40 %")


def refuse_after(studio: Studio, taken: int, why: str) -> None:
    """Have requests for videos after so many refused, or lost where there is no reason."""
    asked = list[Route]()

    def answer(route: Route) -> None:
        asked.append(route)
        if len(asked) <= taken:
            route.continue_()
        elif why:
            route.fulfill(status=429, json={"error": {"message": why}})
        else:
            route.abort()

    studio.page.unroute_all()
    studio.page.route(re.compile("/v1/videos$"), answer)


@pytest.mark.parametrize(
    ("why", "told"), [(FULL, FULL), ("", "The service does not answer.")], ids=["refused", "lost"]
)
def test_drafts_that_are_refused_can_be_asked_for_later(
    studio: Studio, why: str, told: str
) -> None:
    """Those that were taken are shown, with the reason; the button asks for the missing seeds."""
    page = studio.open()
    studio.fill()
    refuse_after(studio, 2, why)
    page.get_by_role("button", name="Draft four").click()
    board, rest = page.locator(".board li"), page.locator("draft-board .rest")
    expect(rest).to_contain_text(f"Only 2 of the 4 drafts were taken. {told}")
    expect(board).to_have_count(2)
    page.reload()
    expect(rest).to_contain_text(f"Only 2 of the 4 drafts were taken. {told}")
    refuse_after(studio, 1, why)
    again = page.get_by_role("button", name="Try the rest")
    again.click()
    expect(rest).to_contain_text("Only 3 of the 4 drafts were taken.")
    page.unroute_all()
    again.click()
    expect(board).to_have_count(4)
    expect(rest).to_be_hidden()
    expect(board.last.get_by_role("link")).to_be_focused()
    assert len({request.seed for request in studio.jobs.requests}) == 4
    assert len(studio.jobs.requests) == 4
    studio.forgive("429|ERR_FAILED")


def test_when_no_draft_is_taken_the_composer_says_why(studio: Studio) -> None:
    """There is nothing to show on the board."""
    page = studio.open()
    studio.fill()
    refuse_after(studio, 0, FULL)
    page.get_by_role("button", name="Draft four").click()
    expect(page.locator("#form-error")).to_have_text(FULL)
    page.get_by_role("link", name="Drafts").click()
    expect(page.locator("draft-board .lead")).to_be_visible()
    studio.forgive("429")


TWO_LINES = """(places) => {
  const heights = [...document.querySelectorAll(places)].map((one) => one.offsetHeight);
  return heights.length > 1 && heights.every((height) => height > 0 && height < 50);
}"""


def test_a_hostile_prompt_is_text_among_the_drafts(studio: Studio) -> None:
    """Markup, right-to-left, emoji, a thousand characters: two lines of letters, wherever a prompt
    stands, and nothing wider than the screen."""
    start = "<img src=x onerror=alert(1)><b>cat</b> ‮אבג 🦊 "
    prompt = start + "w" * (1000 - len(start))
    page = studio.open()
    drafted(studio, prompt, done=False)
    studio.jobs.fail(studio.jobs.last.id, "generation_failed", prompt)
    drafted(studio, prompt, done=False)
    studio.jobs.fail(studio.jobs.last.id, "generation_failed", prompt)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        for view, places in (
            ("drafts", "draft-board > .text, .earlier .text"),
            ("system", ".queue .text"),
        ):
            page.goto(f"{studio.url}/#/{view}")
            texts = page.locator(places)
            expect(texts.first).to_be_visible()
            expect(texts.first).to_contain_text("onerror=alert(1)")
            page.wait_for_function(TWO_LINES, arg=places)
            assert page.locator("img[src='x'], b:text('cat')").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth") <= width
