"""The web page in a browser: a video from the form to the player, errors in words, reloads."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import Opened
from tests.scripted_jobs import FILE_NAME, ScriptedJobs

pytestmark = pytest.mark.system


def fill(page: Page, prompt: str = "a red ball moving right") -> None:
    page.get_by_label("What should the video show?").fill(prompt)
    page.get_by_label("I will use this video lawfully").check()


def begin(opened: Opened, jobs: ScriptedJobs) -> str:
    """Send the form; returns the job's id."""
    opened.goto("/")
    fill(opened.page)
    opened.page.get_by_role("button", name="Make the video").click()
    expect(opened.page.locator("#phase")).to_have_text("Drawing")
    return jobs.last.id


def test_a_video_is_made_from_the_form_and_plays(opened: Opened, jobs: ScriptedJobs) -> None:
    """Progress in words, then the player, the seed and a download."""
    opened.goto("/")
    page = opened.page
    fill(page)
    page.get_by_label("Width").fill("256")
    page.get_by_label("Height").fill("256")
    page.get_by_label("Seed").fill("7")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Steps").fill("12")
    page.get_by_label("What should it not show?").fill("text")
    page.get_by_role("button", name="Make the video").click()

    expect(page.locator("#steps")).to_have_text("step 8 of 12")
    expect(page.locator("#elapsed")).to_have_text(re.compile(r"^\d+ s so far$"))
    jobs.set(jobs.last.id, step=11, progress=70)
    expect(page.locator("#steps")).to_have_text("step 11 of 12")
    expect(page.locator("#bar")).to_have_js_property("value", 70)
    jobs.set(jobs.last.id, phase="encode")
    expect(page.locator("#phase")).to_have_text("Writing the video file")
    jobs.finish(jobs.last.id)

    player = page.locator("#video")
    expect(player).to_be_visible()
    expect(page.locator("#facts")).to_contain_text("Seed7")
    expect(page.locator("#facts")).to_contain_text("Drawn at128 × 128, then scaled up")
    page.wait_for_function("document.getElementById('video').currentTime > 0")
    assert player.evaluate("video => [video.error, video.duration]") == [None, 2]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == FILE_NAME
    assert download.value.path().read_bytes() == jobs.video
    spec = jobs.last.spec
    assert spec is not None
    assert (spec.width, spec.seed, spec.num_inference_steps) == (256, 7, 12)
    assert spec.negative_prompt == "text"


def test_a_waiting_video_shows_its_place_in_the_queue(opened: Opened, jobs: ScriptedJobs) -> None:
    """In words, and it moves up."""
    job_id = begin(opened, jobs)
    jobs.set(job_id, status="queued", phase="queued", queue_position=2)
    phase = opened.page.locator("#phase")
    expect(phase).to_have_text("Waiting for its turn: number 2 in the queue")
    jobs.set(job_id, queue_position=1)
    expect(phase).to_have_text("Waiting for its turn: number 1 in the queue")


def test_a_video_can_be_cancelled(opened: Opened, jobs: ScriptedJobs) -> None:
    """And the form is free for the next one."""
    job_id = begin(opened, jobs)
    expect(opened.page.get_by_role("button", name="Making your video …")).to_be_disabled()
    opened.page.get_by_role("button", name="Cancel").click()
    expect(opened.page.locator("#outcome")).to_have_text("Cancelled.")
    assert jobs.cancelled == [job_id]
    expect(opened.page.get_by_role("button", name="Make the video")).to_be_enabled()


def test_a_failed_video_says_why(opened: Opened, jobs: ScriptedJobs) -> None:
    """In the service's own sentence."""
    job_id = begin(opened, jobs)
    sentence = "Insufficient VRAM: mochi needs ~6.0GB, but only 4.2GB available."
    jobs.fail(job_id, "insufficient_vram", sentence)
    expect(opened.page.locator("#outcome")).to_have_text(sentence)


def test_a_reload_keeps_the_video(opened: Opened, jobs: ScriptedJobs) -> None:
    """Its id stands in the address."""
    job_id = begin(opened, jobs)
    opened.page.reload()
    expect(opened.page.locator("#phase")).to_have_text("Drawing")
    jobs.finish(job_id)
    expect(opened.page.locator("#video")).to_be_visible()
    opened.page.reload()
    expect(opened.page.locator("#video")).to_be_visible()
    expect(opened.page.get_by_label("What should the video show?")).to_have_value(
        "a red ball moving right"
    )


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("Width", "250", "Must be 256 to 1920."),
        ("Width", "260", "Must be a multiple of 8, for example 256 or 264."),
        ("Frames", "200", "Must be 8 to 163."),
        ("Frames per second", "", "Write a number from 1 to 60."),
        ("Seed", "-1", "Must be 0 to 4294967295."),
        ("What should the video show?", "ab", "Write at least 3 characters."),
        ("What should the video show?", "   ", "Describe what the video should show."),
    ],
)
def test_a_wrong_field_is_told_beside_it(
    opened: Opened, jobs: ScriptedJobs, label: str, value: str, message: str
) -> None:
    """Before anything is sent; the field has the focus and is marked for screen readers."""
    opened.goto("/")
    page = opened.page
    expect(page.get_by_label("Width")).to_have_value("720")
    fill(page)
    field = page.get_by_label(label, exact=True)
    field.fill(value)
    page.get_by_role("button", name="Make the video").click()
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.locator(f"#{field.get_attribute('id')}-error")).to_have_text(message)
    assert not jobs.jobs


def test_consent_is_asked_for(opened: Opened, jobs: ScriptedJobs) -> None:
    """It is never ticked beforehand."""
    opened.goto("/")
    opened.page.get_by_label("What should the video show?").fill("a red ball")
    opened.page.get_by_role("button", name="Make the video").click()
    expect(opened.page.locator("#lawful_use_consent-error")).to_have_text("Agree to this first.")
    assert not jobs.jobs


def test_a_refusal_of_the_server_stands_beside_its_field(
    opened: Opened, jobs: ScriptedJobs
) -> None:
    """The page trusts its own checks no further than the server does."""
    opened.goto("/")
    fill(opened.page)
    opened.page.get_by_label("Frames per second").evaluate("input => { input.max = 99; }")
    opened.page.get_by_label("Frames per second").fill("61")
    opened.page.get_by_role("button", name="Make the video").click()
    expect(opened.page.locator("#fps-error")).to_contain_text("61 is more than 60")
    assert [text for text in opened.complaints if "400" in text]
    opened.complaints.clear()  # the browser itself writes refused requests to the console


def test_the_demo_checkpoint_is_named_and_its_examples_fill_the_prompt(opened: Opened) -> None:
    """One click, then consent, then the button."""
    opened.goto("/")
    expect(opened.page.locator("#demo")).to_contain_text("small demo one")
    expect(opened.page.locator("#demo")).to_contain_text("make weights MODEL=mochi")
    opened.page.get_by_role("button", name="a red ball moving right").click()
    prompt = opened.page.get_by_label("What should the video show?")
    expect(prompt).to_have_value("a red ball moving right")


def test_everything_can_be_done_by_keyboard(opened: Opened, jobs: ScriptedJobs) -> None:
    """Tab through the form, space to agree, Ctrl+Enter to send."""
    opened.goto("/")
    page = opened.page
    expect(page.get_by_label("Width")).to_have_value("720")
    seen: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = str(page.evaluate("document.activeElement.id"))
        seen.append(focused)
        if focused == "prompt":
            page.keyboard.type("a blue square")
        if focused == "lawful_use_consent":
            page.keyboard.press("Space")
            break
    for name in ("prompt", "width", "height", "num_frames", "fps", "seed", "prefer_backend"):
        assert name in seen
    page.keyboard.press("Control+Enter")
    expect(page.locator("#phase")).to_have_text("Drawing")
    assert jobs.last.prompt == "a blue square"


def test_a_service_that_is_away_is_told_and_waited_for(opened: Opened, jobs: ScriptedJobs) -> None:
    """The page keeps what it has and goes on by itself."""
    job_id = begin(opened, jobs)
    jobs.down = True
    expect(opened.page.locator("#phase")).to_contain_text("Trying again")
    jobs.down = False
    jobs.finish(job_id)
    expect(opened.page.locator("#video")).to_be_visible()
    opened.complaints.clear()  # the failed polls


def test_a_prompt_is_shown_as_text(opened: Opened, jobs: ScriptedJobs) -> None:
    """Markup in it stays letters."""
    opened.goto("/")
    hostile = "<img src=x onerror=alert(1)><b>cat</b>"
    fill(opened.page, hostile)
    jobs.hold = False
    opened.page.get_by_role("button", name="Make the video").click()
    expect(opened.page.locator("#facts")).to_contain_text(hostile)
    assert opened.page.locator("#facts img, #facts b").count() == 0


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_phones_and_both_colour_schemes(
    opened: Opened, width: int, scheme: str
) -> None:
    """Nothing is wider than the screen, and the text is readable."""
    page = opened.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    opened.goto("/")
    expect(page.get_by_label("Width")).to_have_value("720")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 25)"
    assert dark == (scheme == "dark")


def test_the_swagger_page_shows_every_operation(opened: Opened) -> None:
    """Without a request to anywhere else."""
    opened.goto("/docs")
    operations = opened.page.evaluate(
        "fetch('/openapi.json').then((answer) => answer.json())"
        ".then(({paths}) => Object.values(paths).flatMap(Object.keys).length)"
    )
    assert operations > 10
    expect(opened.page.locator(".opblock")).to_have_count(operations)
    opened.page.locator("#operations-generate-generate_generate_post").click()
    expect(opened.page.get_by_text("Frames per second.").first).to_be_visible()
    opened.page.wait_for_timeout(300)


def test_the_swagger_page_makes_a_video(opened: Opened, jobs: ScriptedJobs) -> None:
    """Its form sends what the service takes, with every example filled in."""
    jobs.hold = False
    opened.goto("/docs")
    opened.page.locator("#operations-generate-generate_generate_post").click()
    opened.page.get_by_role("button", name="Try it out").click()
    opened.page.get_by_role("button", name="Execute").click()
    expect(opened.page.locator(".live-responses-table")).to_contain_text('"success": true')


def test_the_redoc_page_shows_the_api(opened: Opened) -> None:
    """Without a request to anywhere else."""
    opened.goto("/redoc")
    expect(opened.page.get_by_role("heading", name="Generate a video")).to_be_visible()
    opened.page.wait_for_timeout(300)
