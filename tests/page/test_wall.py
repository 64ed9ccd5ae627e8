"""The wall: pages, search and filters, moving pictures, the keyboard, pin, delete and undo."""

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Studio

pytestmark = pytest.mark.system


def test_the_wall_is_fetched_in_pages_as_one_scrolls(studio: Studio) -> None:
    """Newest first; none twice, none left out."""
    for number in range(60):
        studio.add(f"ball number {number}")
    page = studio.open()
    expect(studio.tiles.first.locator(".text")).to_have_text("ball number 59")
    assert studio.tiles.count() < 60
    page.mouse.move(900, 500)
    while studio.tiles.count() < 60:
        page.mouse.wheel(0, 2000)
        page.wait_for_timeout(50)
    texts = studio.tiles.locator(".text").all_inner_texts()
    assert texts == [f"ball number {number}" for number in reversed(range(60))]
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_search_and_filters_ask_the_service(studio: Studio) -> None:
    """By a part of the prompt, by model and by state, together."""
    studio.add("a red ball")
    studio.add("a red square", prefer_backend="opensora")
    failed = studio.add("a red triangle", done=False)
    studio.jobs.fail(failed, "generation_failed", "It broke.")
    page = studio.open()
    expect(studio.tiles).to_have_count(3)
    page.get_by_label("Search the prompts").fill("SQUA")
    expect(studio.tiles.locator(".text")).to_have_text(["a red square"])
    page.get_by_label("Search the prompts").fill("red")
    expect(studio.tiles).to_have_count(3)
    page.locator("#filter-model").select_option("mochi")
    expect(studio.tiles).to_have_count(2)
    page.locator("#filter-status").select_option("Failed")
    expect(studio.tiles.locator(".reason")).to_have_text(["It broke."])
    page.get_by_label("Search the prompts").fill("elephant")
    expect(studio.tiles).to_have_count(0)
    content = "getComputedStyle(document.querySelector('.tiles'), '::after').content"
    assert page.evaluate(content) == '"No videos match."'


def test_a_new_video_comes_only_where_it_belongs(studio: Studio) -> None:
    """The filter holds for what ends while one looks."""
    studio.add("a red ball")
    page = studio.open()
    page.get_by_label("Search the prompts").fill("ball")
    expect(studio.tiles).to_have_count(1)
    studio.add("a square")
    studio.add("another ball")
    expect(studio.tiles.locator(".text")).to_have_text(["another ball", "a red ball"])


def test_a_video_moves_under_the_pointer(studio: Studio) -> None:
    """Muted and looped, and only as long as it is pointed at."""
    studio.add()
    page = studio.open()
    studio.tiles.first.hover()
    clip = studio.tiles.locator("video")
    expect(clip).to_have_count(1)
    page.wait_for_function("() => document.querySelector('.tile video')?.currentTime > 0")
    assert clip.evaluate("clip => [clip.muted, clip.loop, clip.error]") == [True, True, None]
    page.mouse.move(5, 5)
    expect(clip).to_have_count(0)


def test_nothing_moves_by_itself_for_those_who_asked_for_that(studio: Studio) -> None:
    """`prefers-reduced-motion`; space still plays."""
    studio.add()
    studio.page.emulate_media(reduced_motion="reduce")
    page = studio.open()
    studio.tiles.first.hover()
    page.wait_for_timeout(200)
    expect(studio.tiles.locator("video")).to_have_count(0)
    studio.tiles.locator("a").focus()
    page.keyboard.press("Space")
    expect(studio.tiles.locator("video")).to_have_count(1)


def test_a_poster_keeps_its_room_before_it_is_there(studio: Studio) -> None:
    """The tile has the shape of the video, whatever the picture does."""
    studio.add(width=512, height=256)
    page = studio.open()
    page.route("**/content?variant=thumbnail", lambda route: route.abort())
    page.reload()
    box = studio.tiles.locator(".well").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(2, abs=0.02)
    studio.forgive("ERR_FAILED")


def test_the_wall_is_walked_with_the_arrows(studio: Studio) -> None:
    """One stop in the tab order; Enter opens, and the focus comes back."""
    for number in range(9):
        studio.add(f"ball {number}")
    page = studio.open()
    expect(studio.tiles).to_have_count(9)
    links = page.locator(".tile > a")
    links.first.focus()
    page.keyboard.press("ArrowRight")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.getBoundingClientRect().top")
    assert focused > (links.first.bounding_box() or {"y": 0})["y"]
    page.keyboard.press("ArrowUp")
    expect(links.nth(1)).to_be_focused()
    assert page.locator(".tile > a[tabindex='0']").count() == 1
    page.keyboard.press("Enter")
    expect(studio.sheet).to_be_visible()
    page.keyboard.press("Escape")
    expect(links.nth(1)).to_be_focused()
    expect(page).to_have_url(studio.url + "/#/")


def test_a_deleted_video_can_be_brought_back(studio: Studio) -> None:
    """For ten seconds; only then the service hears of it."""
    first, second = studio.add("a ball"), studio.add("a square")
    page = studio.open()
    studio.tiles.first.hover()
    studio.tiles.first.get_by_role("button", name="Delete").click()
    expect(studio.tiles).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(studio.tiles.locator(".text")).to_have_text(["a square", "a ball"])
    page.clock.install()
    page.mouse.move(5, 5)
    page.locator(".tile > a").first.focus()
    page.keyboard.press("Delete")
    expect(studio.tiles).to_have_count(1)
    expect(page.locator(".tile > a")).to_be_focused()
    page.clock.fast_forward(9000)
    assert set(studio.jobs.jobs) == {first, second}
    page.clock.fast_forward(1500)
    studio.until(lambda: list(studio.jobs.jobs) == [first])
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


def test_a_deletion_is_not_lost_with_the_page(studio: Studio) -> None:
    """Leaving it means that nobody takes it back."""
    studio.add()
    page = studio.open()
    studio.tiles.first.hover()
    studio.tiles.first.get_by_role("button", name="Delete").click()
    page.goto("about:blank")
    studio.until(lambda: not studio.jobs.jobs)


def test_what_others_delete_goes_here_too(studio: Studio) -> None:
    """By the stream of events."""
    job_id = studio.add("a ball")
    studio.add("a square")
    page = studio.open()
    expect(studio.tiles).to_have_count(2)
    page.evaluate(f"fetch('/v1/videos/{job_id}', {{ method: 'DELETE' }})")
    expect(studio.tiles.locator(".text")).to_have_text(["a square"])


def test_a_pinned_video_shows_its_pin(studio: Studio) -> None:
    """To everyone, since the service keeps it."""
    job_id = studio.add()
    page = studio.open()
    studio.tiles.first.hover()
    pin = studio.tiles.get_by_role("button", name="Pin")
    pin.click()
    expect(pin).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(pin).to_have_attribute("aria-pressed", "true")
    assert studio.jobs.jobs[job_id].pinned
    studio.add("another one")
    page.locator("#filter-status").select_option("Pinned")
    expect(studio.tiles).to_have_count(1)
    page.locator("#filter-status").select_option("Every state")
    expect(studio.tiles).to_have_count(2)
    page.locator("#filter-status").select_option("Pinned")
    studio.tiles.first.hover()
    pin.click()
    expect(studio.tiles).to_have_count(0)


def test_a_hostile_prompt_is_text_everywhere(studio: Studio) -> None:
    """Markup, right-to-left, emoji, a thousand characters: letters in every view."""
    start = "<img src=x onerror=alert(1)><b>cat</b> ‮אבג 🦊 "
    prompt = start + "w" * (1000 - len(start))
    done = studio.add(prompt)
    failed = studio.add(prompt, done=False)
    studio.jobs.fail(failed, "generation_failed", prompt)
    studio.add(prompt, done=False)
    page = studio.open()
    for view in ("/", f"/#/videos/{done}", f"/#/videos/{failed}", f"/#/compare/{done}/{done}"):
        page.goto(studio.url + view)
        expect(page.get_by_text("onerror=alert(1)").first).to_be_attached()
        assert page.locator("img[src='x'], b:text('cat')").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.goto(studio.url + "/#/system")
    expect(page.locator(".queue a")).to_contain_text("onerror=alert(1)")
    assert page.locator("img[src='x'], b:text('cat')").count() == 0


def test_a_search_brings_back_nothing_that_was_deleted(studio: Studio) -> None:
    """While the deletion can still be taken back."""
    studio.add("a red ball")
    studio.add("a red square")
    page = studio.open()
    expect(studio.tiles).to_have_count(2)
    page.locator(".tile > a").first.focus()
    page.keyboard.press("Delete")
    expect(studio.tiles).to_have_count(1)
    with page.expect_response("**/v1/videos?*"):
        page.get_by_label("Search the prompts").fill("red")
    page.wait_for_timeout(100)
    expect(studio.tiles.locator(".text")).to_have_text(["a red ball"])
    page.get_by_role("button", name="Undo").click()
    expect(studio.tiles).to_have_count(2)


def test_a_press_chooses_the_second_of_a_pair(studio: Studio) -> None:
    """Anywhere on the video, while the page asks for it."""
    first, second = studio.add("a ball"), studio.add("a square")
    page = studio.open()
    studio.tiles.nth(1).hover()
    studio.tiles.nth(1).get_by_role("button", name="Compare").click()
    expect(page.locator("#announcer")).to_have_text("Choose a second video to compare with.")
    studio.tiles.nth(0).locator("a").click()
    expect(page).to_have_url(f"{studio.url}/#/compare/{first}/{second}")


def test_what_has_the_focus_is_seen_on_a_phone(studio: Studio) -> None:
    """Not under the composer, however one got there; enlarged four times nothing is in the way."""
    for number in range(8):
        studio.add(f"ball {number}")
    page = studio.page
    page.set_viewport_size({"width": 390, "height": 844})
    studio.open()
    seen = """() => {
      const { left, top, height } = document.activeElement.getBoundingClientRect();
      const at = document.elementFromPoint(left + 8, top + height / 2);
      return document.activeElement.contains(at) || at?.contains(document.activeElement);
    }"""
    page.locator(".tile > a").first.focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
        assert page.evaluate(seen)
    page.set_viewport_size({"width": 320, "height": 256})
    assert page.evaluate("getComputedStyle(document.querySelector('video-composer')).position") == (
        "static"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
