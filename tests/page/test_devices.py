"""What phones and touch screens do otherwise than a desk: each is pretended by what it lacks."""

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Studio
from tests.page.test_detail import opened

pytestmark = pytest.mark.system

# On an iPhone a video can fill the screen, and nothing else.
IPHONE = """delete Element.prototype.requestFullscreen;
HTMLVideoElement.prototype.webkitEnterFullscreen = function () { window.filled = this.src; };"""
NO_FULL_SCREEN = """delete Element.prototype.requestFullscreen;
delete HTMLVideoElement.prototype.webkitEnterFullscreen;"""

# An iPhone fetches nothing of a video that is not on the page until it plays.
FETCHED_LATE = """Object.defineProperty(HTMLMediaElement.prototype, 'preload', {
  set() { this.setAttribute('preload', 'none'); window.apart = this; } });"""
NEVER_PLAYED = "HTMLMediaElement.prototype.play = () => new Promise(() => {});"
LET_GO = "[window.apart.networkState, window.apart.paused]"


def test_a_phone_fills_the_screen_with_the_video_itself(studio: Studio) -> None:
    """Where no other element can."""
    studio.page.add_init_script(IPHONE)
    job_id = studio.add()
    page = opened(studio, job_id)
    page.get_by_role("button", name="Full screen").click()
    assert job_id in page.evaluate("window.filled")


def test_no_button_promises_a_full_screen_that_there_is_not(studio: Studio) -> None:
    """It is hidden in a browser without any."""
    studio.page.add_init_script(NO_FULL_SCREEN)
    page = opened(studio, studio.add())
    expect(page.get_by_role("button", name="Loop")).to_be_visible()
    expect(page.get_by_role("button", name="Full screen")).to_be_hidden()


def test_the_last_frame_comes_from_a_phone_too(studio: Studio) -> None:
    """It plays the video for a moment, muted and in its place; nothing of it is left."""
    studio.page.add_init_script(FETCHED_LATE)
    page = opened(studio, studio.add())
    page.get_by_role("button", name="Continue it").click()
    expect(page.locator(".crop img")).to_have_attribute("alt", "The picture last-frame.png")
    assert page.evaluate("[window.apart.muted, window.apart.playsInline]") == [True, True]
    assert page.evaluate(LET_GO) == [0, True]


def test_a_last_frame_that_does_not_come_is_told(studio: Studio) -> None:
    """After 15 seconds, with what to do; the video is let go then too."""
    studio.page.add_init_script(FETCHED_LATE + NEVER_PLAYED)
    page = opened(studio, studio.add())
    page.clock.install()
    page.get_by_role("button", name="Continue it").click()
    page.clock.fast_forward(14_000)
    expect(page.locator(".toast")).to_have_count(0)
    page.clock.fast_forward(1500)
    expect(page.locator(".toast")).to_contain_text("Try again, or in another browser.")
    assert page.evaluate("window.apart.networkState") == 0


@pytest.mark.parametrize("pinned", [False, True])
def test_a_finger_hits_no_button_that_is_unseen(studio: Studio, pinned: bool) -> None:
    """On a laptop with a mouse and a touch screen a tap opens the video, wherever it lands."""
    job_id = studio.add(width=512, height=256)
    studio.jobs.set(job_id, pinned=pinned)
    page = studio.open()
    assert page.evaluate("matchMedia('(hover: hover)').matches")
    box = studio.tiles.locator(".well").bounding_box()
    assert box is not None
    # Where Delete stands; of a pinned one its pin stands there until somebody points at it.
    inset = 64 if pinned else 20
    point = {"x": box["x"] + box["width"] - inset, "y": box["y"] + 20}
    finger = studio.context.new_cdp_session(page)
    for kind, points in (("touchStart", [point]), ("touchEnd", [])):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(studio.sheet).to_be_visible()
    page.keyboard.press("Escape")
    expect(studio.tiles).to_have_count(1)


def test_the_buttons_of_a_tile_are_reached_by_keyboard(studio: Studio) -> None:
    """They show themselves to whoever comes by Tab, from either side."""
    studio.add()
    page = studio.open()
    delete = studio.tiles.get_by_role("button", name="Delete")
    opacity = "button => getComputedStyle(button.parentElement).opacity"
    assert delete.evaluate(opacity) == "0"
    studio.tiles.locator("a").focus()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(delete).to_be_focused()
    assert delete.evaluate(opacity) == "1"
    page.keyboard.press("Tab")
    assert delete.evaluate(opacity) == "0"
    page.keyboard.press("Shift+Tab")
    expect(delete).to_be_focused()
    page.keyboard.press("Enter")
    expect(studio.tiles).to_have_count(0)
