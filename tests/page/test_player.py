"""The player: frames, the loop, and two videos in one."""

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import Studio
from tests.page.films import Film
from tests.page.test_detail import opened

pytestmark = pytest.mark.system


def clip(page: Page) -> dict[str, float]:
    return page.locator("#sheet video").first.evaluate(
        "clip => ({ time: clip.currentTime, length: clip.duration, paused: Number(clip.paused) })"
    )


@pytest.mark.parametrize(
    ("width", "height", "num_frames", "fps"),
    [(256, 264, 8, 1), (360, 256, 24, 24), (256, 256, 60, 60)],
)
def test_a_video_plays_at_odd_sizes_and_rates(
    studio: Studio, width: int, height: int, num_frames: int, fps: int
) -> None:
    """The time moves on, there is no error, and every frame can be reached."""
    studio.jobs.film = Film("sea", width, height, num_frames, fps)
    page = opened(studio, studio.add(fps=fps))
    page.wait_for_function("() => document.querySelector('#sheet video')?.currentTime > 0.1")
    seen = page.locator("#sheet video").evaluate(
        "clip => [clip.error, clip.videoWidth, clip.videoHeight]"
    )
    assert seen == [None, width, height]
    page.keyboard.press("Space")
    frame = page.get_by_label("Frame", exact=True)
    frame.fill("3")
    expect(page.locator(".time")).to_contain_text(f"4 / {num_frames}")
    page.keyboard.press("Escape")


def test_frames_are_stepped_one_by_one(studio: Studio) -> None:
    """By key and by button, with a stop at both ends."""
    page = opened(studio, studio.add())
    page.wait_for_function("() => document.querySelector('#sheet video')?.currentTime > 0")
    page.keyboard.press(",")
    assert clip(page)["paused"]
    page.get_by_label("Frame", exact=True).fill("10")
    page.locator("#sheet-title").focus()
    for key, shown in ((".", "12 / 48"), (".", "13 / 48"), (",", "12 / 48")):
        page.keyboard.press(key)
        expect(page.locator(".time")).to_contain_text(shown)
    page.get_by_role("button", name="One frame back").click()
    expect(page.locator(".time")).to_contain_text("11 / 48")
    page.get_by_label("Frame", exact=True).fill("47")
    page.get_by_role("button", name="One frame on").click()
    expect(page.locator(".time")).to_contain_text("48 / 48")
    page.locator("#sheet-title").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_the_loop_can_be_left(studio: Studio) -> None:
    """Then the video stops at its end."""
    page = opened(studio, studio.add())
    loop = page.get_by_role("button", name="Loop")
    expect(loop).to_have_attribute("aria-pressed", "true")
    loop.click()
    page.wait_for_function("() => document.querySelector('#sheet video')?.ended", timeout=10_000)


def test_two_videos_are_compared_in_one_player(studio: Studio) -> None:
    """They stand at the same time, and what differs is told."""
    first = studio.add("a ball", seed=1)
    second = studio.add("a ball", seed=2)
    page = studio.open()
    studio.tiles.nth(1).hover()
    studio.tiles.nth(1).get_by_role("button", name="Compare").click()
    expect(page.locator("#comparing")).to_be_visible()
    studio.tiles.nth(0).hover()
    studio.tiles.nth(0).get_by_role("button", name="Compare").click()
    expect(page.locator("#sheet video")).to_have_count(2)
    assert page.url.endswith(f"/#/compare/{first}/{second}")
    expect(page.locator("#sheet table")).to_contain_text("Seed12")
    times = "[...document.querySelectorAll('#sheet video')].map((clip) => clip.currentTime)"
    page.wait_for_function(f"() => {times}.every((time) => time > 0.2)")
    page.locator("#sheet h2").focus()
    page.keyboard.press("Space")
    page.keyboard.press(".")
    page.wait_for_function(f"() => (([a, b]) => Math.abs(a - b) < 0.03)({times})")


def test_a_clip_that_is_taken_away_is_let_go(studio: Studio) -> None:
    """The browser then fetches no more of it, on the wall as in the player."""
    job_id = studio.add()
    page = studio.open()
    studio.tiles.first.hover()
    moving = studio.tiles.locator("video").element_handle()
    page.mouse.move(5, 5)
    expect(studio.tiles.locator("video")).to_have_count(0)
    page.goto(f"{studio.url}/#/videos/{job_id}")
    played = studio.sheet.locator("video").element_handle()
    page.keyboard.press("Escape")
    expect(studio.sheet).to_be_hidden()
    for gone in (moving, played):
        assert gone.evaluate("clip => [clip.networkState, clip.error]") == [0, None]


def test_the_slider_follows_again_after_a_touch_that_scrolled(studio: Studio) -> None:
    """The browser cancels such a touch, and never lifts it."""
    page = opened(studio, studio.add())
    frame = page.get_by_label("Frame", exact=True)
    page.wait_for_function("() => document.querySelector('#sheet video')?.currentTime > 0")
    page.keyboard.press(",")
    frame.dispatch_event("pointerdown")
    frame.dispatch_event("pointercancel")
    page.locator("#sheet video").evaluate("clip => (clip.currentTime = 1.5)")
    expect(frame).to_have_value("36")
