"""The keys of the page: what they do, and where they are left to the control with the focus."""

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Studio
from tests.page.test_detail import opened

pytestmark = pytest.mark.system


def test_the_slider_leaves_the_keys_of_the_player_alone(studio: Studio) -> None:
    """After it was used they step and play on; its own arrows do not turn to the next video."""
    ids = [studio.add(f"ball {number}") for number in range(3)]
    page = opened(studio, ids[1])
    expect(studio.tiles).to_have_count(3)
    frame = page.get_by_label("Frame", exact=True)
    page.wait_for_function("() => document.querySelector('#sheet video')?.currentTime > 0")
    page.keyboard.press("Space")
    frame.click()
    expect(page.locator(".time")).to_contain_text("24 / 48")
    for key, shown in ((".", "25 / 48"), (",", "24 / 48"), ("ArrowRight", "25 / 48")):
        page.keyboard.press(key)
        expect(page.locator(".time")).to_contain_text(shown)
    expect(page.locator("#sheet-title")).to_have_text("ball 1")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


@pytest.mark.parametrize("control", ["16:9", "I will use this video lawfully"])
def test_a_choice_leaves_the_letters_alone(studio: Studio, control: str) -> None:
    """A radio button and a checkbox need the space key, and no letters."""
    page = studio.open()
    for key, label in (("/", "Search the prompts"), ("n", "What should the video show?")):
        page.get_by_label(control).check()
        page.get_by_label(control).focus()
        page.keyboard.press(key)
        expect(page.get_by_label(label)).to_be_focused()
        expect(page.get_by_label(label)).to_have_value("")
    page.get_by_label(control).focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()


def test_keys_that_mean_something_to_a_control_are_its_own(studio: Studio) -> None:
    """Space checks a box and presses a button; a command and a text take every key."""
    page = opened(studio, studio.add())
    page.wait_for_function("() => document.querySelector('#sheet video')?.currentTime > 0")
    page.keyboard.press("Space")
    loop = page.get_by_role("button", name="Loop")
    loop.focus()
    page.keyboard.press("Space")
    expect(loop).to_have_attribute("aria-pressed", "false")
    page.get_by_text("As a command").focus()
    page.keyboard.press("Space")
    page.locator("#sheet pre").focus()
    for key in (" ", "."):
        page.keyboard.press(key)
    page.get_by_label("Change the words, keep the rest").fill("a ball")
    page.keyboard.type(" . ")
    expect(page.get_by_label("Change the words, keep the rest")).to_have_value("a ball . ")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_a_key_that_is_held_does_its_deed_once(studio: Studio) -> None:
    """One video is made, and the player does not flicker; frames are stepped on and on."""
    page = studio.open()
    studio.fill("a ball")
    page.get_by_label("Seed", exact=True).focus()
    page.keyboard.down("Control")
    page.keyboard.down("Enter")
    expect(studio.making).to_have_count(1)
    expect(page.get_by_role("button", name="Make video")).to_be_enabled()
    page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    page.wait_for_timeout(300)
    assert len(studio.jobs.requests) == 1
    opened(studio, studio.add())
    page.wait_for_function("() => document.querySelector('#sheet video')?.currentTime > 0")
    page.keyboard.down("Space")
    page.keyboard.down("Space")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    page.keyboard.up("Space")
    page.get_by_label("Frame", exact=True).fill("10")
    for _ in range(3):
        page.keyboard.down(".")
    expect(page.locator(".time")).to_contain_text("14 / 48")
