"""The composer's qualities: those that the models have, and what each changes."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Studio
from tests.page.films import Film, FilmJobs
from tests.scripted_jobs import MOCHI, OPENSORA, service_config

pytestmark = pytest.mark.system


@pytest.fixture
def jobs(tmp_path: Path, film: Film) -> FilmJobs:
    """Both have a fast mode, and Mochi makes drafts."""
    fast = {"fast_threshold": 0.1}
    cards = (
        MOCHI.model_copy(update=fast | {"draft_steps": 8}),
        OPENSORA.model_copy(update=fast),
    )
    return FilmJobs(service_config(tmp_path), film, cards)


def test_a_quality_says_what_it_changes_and_who_has_it(studio: Studio) -> None:
    """Where the models differ, each with its name; the request goes to one that has it."""
    page = studio.open()
    studio.fill()
    page.get_by_text("More", exact=True).click()
    quality, hint = page.get_by_label("Quality"), page.locator("#quality-hint")
    expect(hint).to_contain_text("20 steps in full.")
    quality.select_option("Fast")
    expect(hint).to_contain_text("reuses most of it (threshold 0.1).")
    quality.select_option("Draft")
    expect(hint).to_have_text("8 steps instead of 20: quick and rough.")
    opensora = page.locator('[data-model="opensora"]')
    expect(opensora).to_contain_text("Not this one: it has no draft mode.")
    page.get_by_role("button", name="Make video").click()
    expect(studio.making).to_have_count(1)
    assert studio.jobs.requests[-1].quality == "draft"


def test_a_draft_is_made_in_full_whatever_the_composer_said(studio: Studio) -> None:
    """Four drafts take the model's draft mode with its steps; the finished one is exact."""
    page = studio.open()
    studio.fill()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Quality").select_option("Draft")
    page.get_by_label("Steps", exact=True).fill("40")
    page.get_by_role("button", name="Draft four").click()
    expect(page.locator(".board li")).to_have_count(4)
    expect(page.locator("draft-board")).to_contain_text("in draft quality")
    asked = {(one.quality, one.num_inference_steps) for one in studio.jobs.requests}
    assert asked == {("draft", None)}
    studio.jobs.finish(next(iter(studio.jobs.jobs)))
    page.locator(".board li").first.get_by_role("button", name="Make in full").click()
    expect(page.locator(".board li").first.get_by_role("link", name="In full:")).to_be_visible()
    last = studio.jobs.requests[-1]
    assert (last.quality, last.num_inference_steps) == ("exact", 40)
