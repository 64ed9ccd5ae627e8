"""The two documentation viewers: they work, and ask nobody else for anything."""

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Studio

pytestmark = pytest.mark.system


def test_the_swagger_page_shows_every_operation(studio: Studio) -> None:
    """Without a request to anywhere else."""
    page = studio.page
    page.goto(studio.url + "/docs")
    operations = page.evaluate(
        "fetch('/openapi.json').then((answer) => answer.json())"
        ".then(({paths}) => Object.values(paths).flatMap(Object.keys).length)"
    )
    assert operations > 10
    expect(page.locator(".opblock")).to_have_count(operations)
    page.locator("#operations-generate-generate_generate_post").click()
    expect(page.get_by_text("Frames per second.").first).to_be_visible()
    page.wait_for_timeout(300)


def test_the_swagger_page_makes_a_video(studio: Studio) -> None:
    """Its form sends what the service takes, with every example filled in."""
    studio.jobs.hold = False
    page = studio.page
    page.goto(studio.url + "/docs")
    page.locator("#operations-generate-generate_generate_post").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table")).to_contain_text('"success": true')


def test_the_redoc_page_shows_the_api(studio: Studio) -> None:
    """Without a request to anywhere else."""
    studio.page.goto(studio.url + "/redoc")
    expect(studio.page.get_by_role("heading", name="Generate a video")).to_be_visible()
    studio.page.wait_for_timeout(300)
