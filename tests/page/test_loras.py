"""The composer's LoRA files: those of the models that may make it, each with its strength."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from deployments.core.loras import LoraFolder, LoraFolders
from deployments.core.spec import Lora
from tests.page.conftest import Studio, served
from tests.page.films import FilmJobs
from tests.page.test_views import AXE, RUN
from tests.routes.test_loras import LINEARS, write

pytestmark = pytest.mark.system

HOSTILE = "<img src=x onerror=alert(1)> ‮אב"


@pytest.fixture
def url(jobs: FilmJobs, tmp_path: Path) -> Iterator[str]:
    """Mochi has two, one that does not fit and one of a bad name; Open-Sora has another one."""
    folders = {}
    for model, names in (("mochi", ("ink", "paper")), ("opensora", ("sand",))):
        (tmp_path / model).mkdir()
        for name in names:
            write(tmp_path / model, name)
        folders[model] = LoraFolder(str(tmp_path / model), LINEARS)
    write(tmp_path / "mochi", "flux", layer="double_blocks.0")
    write(tmp_path / "mochi", HOSTILE)
    jobs.loras = LoraFolders(folders)
    with served(jobs) as address:
        yield address


def test_a_video_has_the_chosen_files_and_strengths(studio: Studio) -> None:
    """In what is sent, in the video's facts and commands, and when it is made again."""
    page = studio.open()
    studio.fill()
    page.get_by_text("More", exact=True).click()
    field = page.locator("lora-field")
    expect(field.get_by_role("checkbox")).to_have_count(3)  # what does not fit is not offered
    page.get_by_label("ink", exact=True).check()
    page.get_by_label("Strength of ink").fill("0.8")
    page.get_by_label("paper", exact=True).check()
    expect(field.get_by_text("0.8")).to_be_visible()
    page.get_by_role("button", name="Make video").click()
    expect(studio.making).to_have_count(1)
    wanted = (Lora(name="ink", strength=0.8), Lora(name="paper", strength=1))
    assert studio.jobs.requests[-1].loras == wanted
    job_id = studio.jobs.last.id
    studio.jobs.finish(job_id)
    expect(studio.tiles).to_have_count(1)
    page.goto(f"{studio.url}/#/videos/{job_id}")
    expect(studio.sheet).to_contain_text("ink:0.8, paper:1")
    page.get_by_text("As a command").click()
    expect(page.locator("#sheet pre")).to_contain_text("--form-string 'loras=ink:0.8, paper:1'")
    page.get_by_role("button", name="Python").click()
    expect(page.locator("#sheet pre")).to_contain_text('"loras": "ink:0.8, paper:1"')
    page.get_by_role("button", name="Same again").click()
    expect(studio.sheet).to_be_hidden()
    expect(studio.making).to_have_count(1)
    page.goto(f"{studio.url}/#/videos/{job_id}")
    page.get_by_role("button", name="Another seed").click()
    expect(studio.making).to_have_count(2)
    assert [request.loras for request in studio.jobs.requests] == [wanted] * 3


def test_the_files_are_those_of_the_chosen_model(studio: Studio) -> None:
    """One that the model lacks is told beside the models, and can be let go."""
    page = studio.open()
    studio.fill()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("sand", exact=True).check()
    expect(page.locator('[data-model="mochi"]')).to_contain_text("it has no LoRA sand")
    page.locator('[data-model="mochi"] input').check()
    names = page.locator("lora-field label")
    assert names.all_inner_texts() == ["ink", "paper", "sand"]
    expect(page.locator("#outlook")).to_contain_text("it has no LoRA sand")
    page.get_by_label("sand", exact=True).uncheck()
    expect(page.locator("#outlook")).not_to_contain_text("LoRA")
    page.evaluate(AXE.read_text())
    assert page.evaluate(RUN) == []


def test_a_file_that_cannot_be_used_says_why(studio: Studio) -> None:
    """By its name, whatever that is: as text."""
    page = studio.open()
    page.get_by_text("More", exact=True).click()
    told = page.locator("lora-field .unusable li")
    expect(told).to_have_count(2)
    expect(told.filter(has_text="flux")).to_contain_text("cannot be used: ")
    expect(told.filter(has_text=HOSTILE)).to_be_visible()
    assert page.locator("img[src='x']").count() == 0


def test_a_file_that_was_added_is_offered(studio: Studio, tmp_path: Path) -> None:
    """As soon as one looks."""
    page = studio.open()
    write(tmp_path / "mochi", "rain")
    page.get_by_text("More", exact=True).click()
    expect(page.get_by_label("rain", exact=True)).to_be_visible()
