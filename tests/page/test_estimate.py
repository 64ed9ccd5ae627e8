"""The live estimate: what a video would take, as the settings change, and what would fit."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from deployments.core.memory import MODES, Placement
from deployments.core.outlook import Times
from tests.page.conftest import Studio
from tests.page.films import Film, FilmJobs
from tests.scripted_jobs import MOCHI, replica, service_config

pytestmark = pytest.mark.system

# As large as the published one: its memory is then a question of cards that are for sale.
CARD = MOCHI.model_copy(update={"native_area": 848 * 480, "num_inference_steps": 64})


@pytest.fixture
def jobs(tmp_path: Path, film: Film) -> FilmJobs:
    """Mochi on a GPU that is large enough for short clips."""
    scripted = FilmJobs(service_config(tmp_path), film, [CARD])
    give(scripted, 30.0)
    scripted.times = {"mochi": Times(make_s=83.0, start_s=0.0)}
    return scripted


def give(jobs: FilmJobs, gb: float) -> None:
    placement = Placement(mode=MODES[2], available_gb=gb, total_gb=gb)
    jobs.replicas = (replica(gpu=True, placement=placement),)


def test_time_and_memory_are_told_before_anything_is_sent(studio: Studio) -> None:
    """Anew with each change; nothing while the settings are wrong."""
    page = studio.open()
    told = page.locator("live-estimate")
    words = r"^Begins at once · takes about 1 min 23 s · \d+\.\d of 30\.0 GB$"
    expect(told).to_have_text(re.compile(words))
    before = told.inner_text()
    page.get_by_label("Frames", exact=True).fill("8")
    expect(told).not_to_have_text(before)
    page.get_by_label("Width").fill("7")
    expect(told).to_be_empty()


def test_what_would_fit_is_one_press_away(studio: Studio) -> None:
    """As the service says it."""
    give(studio.jobs, 23.5)
    page = studio.open()
    page.get_by_label("Frames", exact=True).fill("160")
    told = page.locator("live-estimate")
    expect(told).to_contain_text("would fit")
    told.get_by_role("button", name=re.compile("frames$")).click()
    expect(page.get_by_label("Frames", exact=True)).not_to_have_value("160")
    expect(told.get_by_role("button")).to_have_count(0)
    expect(told).to_contain_text("of 23.5 GB")
