"""Comparing: what two videos do not share is told in words, and only that."""

import itertools

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Studio

pytestmark = pytest.mark.system


def pair(studio: Studio, *prompts: str) -> str:
    """The address of two videos, made in the same time, whose seeds differ if their prompts do."""
    ids = [studio.add(prompt, seed=prompts.index(prompt)) for prompt in prompts]
    for age, job_id in enumerate(ids):
        studio.jobs.set(job_id, created_at=100 - age, started_at=100 - age, finished_at=109 - age)
    return "/#/compare/" + "/".join(ids)


def test_what_differs_is_told_and_nothing_else(studio: Studio) -> None:
    """The prompt in full; not the names and the times, which always differ."""
    prompts = ["a ball " * 60 + end for end in ("rolls", "bounces")]
    page = studio.open(pair(studio, *prompts))
    expect(page.locator("caption")).to_have_text("What differs")
    expect(page.locator("#sheet th")).to_have_text(["Prompt", "Seed"])
    expect(page.locator("#sheet td")).to_have_text([*prompts, "0", "1"])


def test_two_of_the_same_recipe_are_said_to_be_so(studio: Studio) -> None:
    """Without an empty table below."""
    page = studio.open(pair(studio, "a red ball", "a red ball"))
    expect(page.locator("caption")).to_contain_text("the same recipe")


def test_long_texts_leave_the_videos_their_room(studio: Studio) -> None:
    """One scrolls to them."""
    page = studio.open(pair(studio, "one " + "w" * 990, "two " + "w" * 990))
    page.set_viewport_size({"width": 1000, "height": 600})
    expect(page.locator("#sheet video")).to_have_count(2)
    for box in (clip.bounding_box() for clip in page.locator("#sheet video").all()):
        assert box is not None
        assert box["height"] > 200


def test_on_a_phone_nothing_lies_over_anything(studio: Studio) -> None:
    """The two videos stand one below the other, then the bar, then what differs."""
    page = studio.page
    page.set_viewport_size({"width": 390, "height": 844})
    studio.open(pair(studio, "one " + "w" * 200, "two " + "w" * 200))
    expect(page.locator("#sheet video")).to_have_count(2)
    parts = page.locator("#sheet :is(.clip video, .caption, .bar-of-player, table)").all()
    boxes = [box for part in parts if (box := part.bounding_box())]
    assert len(boxes) == 6
    for above, below in itertools.pairwise(boxes):
        assert above["y"] + above["height"] <= below["y"] + 1
