"""The detail view: the recipe, commands to copy, and what can be made of a video."""

import ast
import io
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.page.conftest import Studio
from tests.page.test_picture import PASTE, choose, picture

pytestmark = pytest.mark.system

QUOTES = "a 'red' \"ball\" \\ and $HOME,\n@once < more"


def opened(studio: Studio, job_id: str) -> Page:
    studio.agree()
    page = studio.open(f"/#/videos/{job_id}")
    expect(page.locator("#sheet-title")).to_be_visible()
    return page


def test_the_recipe_and_the_download(studio: Studio) -> None:
    """Everything that made it, and the file under its own name."""
    more = {"guidance_scale": 3.5, "negative_prompt": "text", "low_vram": True}
    job_id = studio.add("a blue square", seed=42, **more)
    page = opened(studio, job_id)
    recipe = page.locator("#sheet dl")
    told = ("Seed42", "Size256 × 256", "Drawn at128 × 128, then scaled up", "Steps20")
    told += ("Not to showtext", "Guidance3.5", "Qualityexact", "GPU memoryas little as possible")
    for fact in told:
        expect(recipe).to_contain_text(fact)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == studio.jobs.last.file_name
    assert download.value.path().read_bytes() == studio.jobs.video


def test_the_curl_command_makes_the_same_video(studio: Studio) -> None:
    """Run in a shell, whatever the prompt holds."""
    job_id = studio.add(QUOTES, seed=5)
    page = opened(studio, job_id)
    page.get_by_text("As a command").click()
    command = page.locator("#sheet pre").inner_text()
    assert shlex.split(command)[0] == "curl"
    done = subprocess.run(["sh", "-c", f"{command} -s"], capture_output=True, check=True)
    assert b'"object":"video"' in done.stdout
    first, second = studio.jobs.jobs.values()
    assert second.spec == first.spec


def test_the_python_program_uses_the_official_client(studio: Studio, tmp_path: Path) -> None:
    """Copied to the clipboard; it runs as it is, and makes the same video."""
    client = Path(__file__).parents[2] / ".ci-venvs/openai-3.54.0/bin/python"
    if not client.exists():
        pytest.fail("needs the official client: make test-system")
    studio.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = opened(studio, studio.add(QUOTES, seed=5))
    page.get_by_text("As a command").click()
    page.get_by_role("button", name="Python").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    program = page.evaluate("navigator.clipboard.readText()")
    ast.parse(program)
    studio.jobs.hold = False
    subprocess.run([client, "-c", program], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "video.mp4").read_bytes() == studio.jobs.video
    assert studio.jobs.requests[-1].prompt == QUOTES
    assert studio.jobs.requests[-1].seed == 5


def test_the_same_again_and_another_seed(studio: Studio) -> None:
    """The same is the very same recipe; the other differs in its seed only."""
    more = {"guidance_scale": 3.5, "negative_prompt": "text", "low_vram": True}
    job_id = studio.add("a blue square", seed=42, **more)
    page = opened(studio, job_id)
    page.get_by_role("button", name="Same again").click()
    expect(studio.sheet).to_be_hidden()
    expect(studio.making).to_have_count(1)
    first, same = studio.jobs.requests
    assert (same.seed, same.guidance_scale, same.prompt) == (42, 3.5, first.prompt)
    page.goto(f"{studio.url}/#/videos/{job_id}")
    page.get_by_role("button", name="Another seed").click()
    expect(studio.making).to_have_count(2)
    varied = studio.jobs.requests[-1]
    assert varied.seed != 42
    same_but_seed = {"seed", "prefer_backend", "num_inference_steps"}
    assert varied.model_dump(exclude=same_but_seed) == first.model_dump(exclude=same_but_seed)


def test_who_has_gone_elsewhere_is_left_there(studio: Studio) -> None:
    """When the answer to a button comes late."""
    first, second = studio.add("a blue square"), studio.add("a green ball")
    page = opened(studio, first)
    held = studio.hold("**/remix")
    page.get_by_role("button", name="Same again").click()
    page.goto(f"{studio.url}/#/videos/{second}")
    expect(studio.sheet).to_contain_text("a green ball")
    held().continue_()
    expect(page.locator("#announcer")).to_have_text("Started.")
    expect(studio.sheet).to_be_visible()


PICTURED = {"has_image": True, "prefer_backend": "opensora"}


def test_another_seed_keeps_the_picture(studio: Studio) -> None:
    """The server keeps it, and shows it; commands name a file of the user's."""
    page = opened(studio, studio.add("the waves roll in", **PICTURED))
    begun_with = page.get_by_alt_text("The picture it began with")
    assert begun_with.evaluate("img => img.decode().then(() => img.naturalWidth)") > 0
    page.get_by_text("As a command").click()
    expect(page.locator("#sheet pre")).to_contain_text("-F input_reference=@picture.png")
    page.get_by_role("button", name="Another seed").click()
    expect(studio.making).to_have_count(1)
    assert studio.jobs.requests[-1].has_image
    assert studio.jobs.images[-1] is not None


def test_a_failed_video_says_that_its_picture_is_gone(studio: Studio) -> None:
    """It is not made without one in silence."""
    job_id = studio.add("the waves roll in", done=False, **PICTURED)
    studio.jobs.fail(job_id, "interrupted", "The job was interrupted.")
    page = opened(studio, job_id)
    studio.sheet.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("is not kept")).to_be_visible()
    assert len(studio.jobs.requests) == 1


def test_a_remix_changes_the_words_only(studio: Studio) -> None:
    """And knows where it comes from."""
    job_id = studio.add("a blue square", seed=42)
    page = opened(studio, job_id)
    page.get_by_label("Change the words, keep the rest").fill("a green square")
    page.get_by_role("button", name="Remix").click()
    expect(studio.making).to_have_count(1)
    assert (studio.jobs.last.request.prompt, studio.jobs.last.request.seed) == (
        "a green square",
        42,
    )
    assert studio.jobs.last.remixed_from == job_id


def test_the_last_frame_becomes_the_next_picture(studio: Studio) -> None:
    """At the size of the video, ready to be sent."""
    film = studio.jobs.film
    page = opened(studio, studio.add("a red ball by the lake"))
    page.get_by_role("button", name="Continue it").click()
    expect(studio.sheet).to_be_hidden()
    expect(page.locator(".crop img")).to_have_attribute("alt", "The picture last-frame.png")
    expect(page.get_by_label("Width")).to_have_value(str(film.width))
    page.get_by_label("I will use this video lawfully").check()
    page.get_by_role("button", name="Make video").click()
    expect(studio.making).to_have_count(1)
    data = studio.jobs.images[-1]
    assert data is not None
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    first = np.asarray(Image.open(io.BytesIO(film.poster)).convert("RGB"), float)
    assert picture.shape == first.shape
    assert np.abs(picture - film.last).mean() < np.abs(picture - first).mean()


def test_the_settings_of_a_video_fill_the_composer(studio: Studio) -> None:
    """The seed too, locked."""
    page = opened(studio, studio.add("a blue square", seed=42, prefer_backend="opensora"))
    page.get_by_role("button", name="Use settings").click()
    expect(page.get_by_label("What should the video show?")).to_have_value("a blue square")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("42")
    expect(page.get_by_role("radio", name=re.compile("^opensora"))).to_be_checked()


def test_one_turns_to_the_next_video_with_the_arrows(studio: Studio) -> None:
    """In the order of the wall; the back button knows the way."""
    ids = [studio.add(f"ball {number}") for number in range(3)]
    page = opened(studio, ids[1])
    expect(studio.tiles).to_have_count(3)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#sheet-title")).to_have_text("ball 0")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#sheet-title")).to_have_text("ball 1")
    page.go_back()
    expect(page.locator("#sheet-title")).to_have_text("ball 0")
    page.get_by_role("button", name="Close").click()
    expect(studio.sheet).to_be_hidden()


def test_a_video_that_is_gone_is_told(studio: Studio) -> None:
    """An old address leads back to the wall."""
    page = studio.open("/#/videos/video_0000")
    expect(page.locator(".toast")).to_contain_text("no such")
    expect(studio.sheet).to_be_hidden()
    studio.forgive("404")


def test_nothing_is_made_of_a_video_without_consent(studio: Studio) -> None:
    """It is asked for in the same words, where one is; then the video begins."""
    job_id = studio.add("a blue square")
    page = studio.open(f"/#/videos/{job_id}")
    page.get_by_role("button", name="Another seed").click()
    toast = page.locator(".toast")
    expect(toast).to_contain_text("I will use this video lawfully.")
    assert len(studio.jobs.requests) == 1
    toast.get_by_role("button", name="I agree").click()
    expect(page.locator("#announcer")).to_have_text("Started.")
    page.reload()
    expect(studio.making).to_have_count(1)
    expect(page.locator("#lawful_use_consent")).to_be_checked()


def test_a_second_press_makes_no_second_video(studio: Studio) -> None:
    """While the first is not answered."""
    page = opened(studio, studio.add("a blue square"))
    held: list[Route] = []
    page.route("**/v1/videos", lambda route: held.append(route))
    button = page.get_by_role("button", name="Another seed")
    button.click()
    button.click()
    studio.until(lambda: held)
    page.wait_for_timeout(200)
    assert len(held) == 1
    held[0].continue_()
    expect(studio.making).to_have_count(1)


def test_the_settings_of_a_video_replace_what_was_there(studio: Studio) -> None:
    """All of it, the picture too; and the prompt can be written at once."""
    page = opened(studio, studio.add("a blue square", seed=42))
    page.keyboard.press("Escape")
    choose(page, picture())
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Steps").fill("12")
    page.get_by_label("What should it not show?").fill("text")
    studio.tiles.locator("a").click()
    page.get_by_role("button", name="Use settings").click()
    prompt = page.get_by_label("What should the video show?")
    expect(prompt).to_be_focused()
    expect(prompt).to_have_value("a blue square")
    expect(page.locator(".chosen")).to_be_hidden()
    expect(page.get_by_label("What should it not show?")).to_have_value("")
    expect(page.get_by_label("Steps")).to_have_value("20")


def test_a_model_of_text_is_not_continued_with_its_own_numbers(studio: Studio) -> None:
    """The one that takes the last frame has others."""
    page = opened(studio, studio.add("a ball", num_inference_steps=12, prefer_backend="mochi"))
    page.get_by_role("button", name="Continue it").click()
    expect(page.locator(".chosen")).to_be_visible()
    expect(page.locator("#num_inference_steps")).to_have_value("")
    expect(page.get_by_role("radio", name=re.compile("^Any"))).to_be_checked()


def test_where_no_model_takes_a_picture_none_is_offered(studio: Studio) -> None:
    """Nor taken from the clipboard, where it could not be removed again."""
    page = opened(studio, studio.add("a blue square"))
    page.keyboard.press("Escape")
    choose(page, picture())
    expect(page.locator(".chosen")).to_be_visible()
    studio.jobs.cards.pop()
    page = opened(studio, studio.jobs.last.id)
    expect(page.get_by_role("button", name="Another seed")).to_be_visible()
    expect(page.get_by_role("button", name="Continue it")).to_be_hidden()
    page.keyboard.press("Escape")
    page.evaluate(PASTE, list(picture()))
    studio.forgive("estimate")  # the page before may have asked about the picture
    studio.fill()
    expect(page.get_by_role("button", name="Make video")).to_have_attribute(
        "aria-disabled", "false"
    )


def test_a_remix_is_told_what_is_wrong_with_its_words(studio: Studio) -> None:
    """Beside them, before it is sent; within the model's limits."""
    page = opened(studio, studio.add("a blue square"))
    words = page.get_by_label("Change the words, keep the rest")
    words.fill("x" * 1001)
    page.get_by_role("button", name="Remix").click()
    expect(page.locator("#remix-error")).to_have_text("Write at most 1000 characters.")
    words.fill("a green square")
    page.get_by_role("button", name="Remix").click()
    expect(studio.making).to_have_count(1)
