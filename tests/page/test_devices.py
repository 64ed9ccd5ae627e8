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
