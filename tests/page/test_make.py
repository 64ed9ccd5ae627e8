"""The composer: what it sends, what it refuses and says beside the field, what it remembers."""

import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from deployments.core.errors import InvalidRequest, QueueFull
from deployments.core.outlook import Times
from tests.page.conftest import Studio
from tests.scripted_jobs import replica

pytestmark = pytest.mark.system

PROMPT = "What should the video show?"
WRONG = (
    ("Width", "250", "Must be 256 to 1920."),
    ("Width", "260", "Must be a multiple of 8, for example 256 or 264."),
    ("Height", "1928", "Must be 256 to 1920."),
    ("Frames", "241", "Must be 8 to 240."),
    ("FPS", "", "Write a number from 1 to 60."),
    ("FPS", "2.5", "Must be a whole number."),
    ("Seed", "-1", "Must be 0 to 4294967295."),
    (PROMPT, "ab", "Write at least 3 characters."),
    (PROMPT, "   ", "Describe what the video should show."),
)


def make_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Make video")


def press(page: Page) -> None:
    """Press the button, also where it says that it will not work."""
    make_button(page).click(force=True)


def test_who_presses_before_the_models_are_known_is_not_ignored(studio: Studio) -> None:
    """The page says what it waits for, and sends the form then."""
    page, held = studio.page, studio.hold("**/v1/models")
    page.goto(studio.url)
    studio.fill()
    make_button(page).click()
    expect(page.locator("#outlook")).to_contain_text("Waiting for the service to say")
    expect(page.get_by_role("button", name="Sending …")).to_be_visible()
    held().continue_()
    expect(studio.making).to_have_count(1)
    expect(make_button(page)).to_be_visible()


def test_everything_in_the_form_reaches_the_service(studio: Studio) -> None:
    """Each field of the recipe, as it was entered."""
    page = studio.open()
    studio.fill("a blue square")
    page.get_by_label("16:9").check()
    page.get_by_label("256", exact=True).check()
    page.get_by_label("FPS").fill("12")
    page.get_by_label("Seconds").fill("2.5")
    page.get_by_role("radio", name=re.compile("^mochi")).check()
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("What should it not show?").fill("text")
    page.get_by_label("Steps").fill("12")
    page.get_by_label("Guidance").fill("4.5")
    page.get_by_label("Use less GPU memory").check()
    press(page)
    expect(studio.making).to_have_count(1)
    request = studio.jobs.requests[0]
    assert (request.width, request.height) == (456, 256)
    assert (request.num_frames, request.fps, request.seed) == (30, 12, 7)
    assert (request.prefer_backend, request.negative_prompt) == ("mochi", "text")
    assert (request.num_inference_steps, request.guidance_scale) == (12, 4.5)
    assert request.low_vram is True


def test_only_what_was_chosen_is_sent(studio: Studio) -> None:
    """The rest is left to the model, and the seed to chance."""
    studio.open()
    studio.make()
    request = studio.jobs.requests[0]
    assert (request.width, request.height, request.num_frames) == (720, 720, 64)
    assert request.num_inference_steps is None
    assert request.prefer_backend == "auto"


def test_a_wrong_field_is_told_beside_it(studio: Studio) -> None:
    """Nothing is sent; the field has the focus, the button says why; once mended it may go."""
    page = studio.open()
    studio.fill()
    for label, value, message in WRONG:
        field = page.get_by_label(label, exact=True)
        right = field.input_value()
        field.fill(value)
        expect(make_button(page)).to_have_attribute("aria-disabled", "true")
        expect(page.locator("#outlook")).to_contain_text(message)
        press(page)
        expect(field).to_be_focused()
        expect(field).to_have_attribute("aria-invalid", "true")
        error = page.locator(f"#{field.get_attribute('id')}-error")
        expect(error).to_have_text(message)
        field.fill(right)
        expect(error).to_be_empty()
        expect(make_button(page)).to_have_attribute("aria-disabled", "false")
    assert not studio.jobs.jobs


def test_too_many_pixels_are_told(studio: Studio) -> None:
    """The sides are allowed one by one, not together."""
    page = studio.open()
    studio.fill()
    page.get_by_label("Width").fill("1920")
    page.get_by_label("Height").fill("1920")
    expect(page.locator("#outlook")).to_contain_text("1920 × 1920 is more than 2,073,600 pixels.")


def test_consent_is_asked_for_and_remembered(studio: Studio) -> None:
    """It is never ticked beforehand; once given, this browser keeps it. Until then it stands beside
    the button, and out of the way from the next visit on."""
    page = studio.open()
    expect(page.locator(".send consent-field")).to_be_visible()
    page.get_by_label(PROMPT).fill("a red ball")
    press(page)
    expect(page.locator("#lawful_use_consent-error")).to_have_text("Agree to this first.")
    assert not studio.jobs.jobs
    page.get_by_label("I will use this video lawfully").check()
    expect(page.locator("#lawful_use_consent-error")).to_be_empty()
    studio.open()
    expect(page.get_by_label("I will use this video lawfully")).to_be_checked()
    expect(page.locator(".settings consent-field")).to_be_visible()


def test_what_was_set_stays_set(studio: Studio) -> None:
    """Over a reload, and not in the address."""
    page = studio.open()
    studio.fill("a white square")
    page.get_by_label("Seed", exact=True).fill("99")
    page.get_by_role("radio", name=re.compile("^opensora")).check()
    page.reload()
    expect(page.get_by_label(PROMPT)).to_have_value("a white square")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("99")
    expect(page.get_by_role("radio", name=re.compile("^opensora"))).to_be_checked()
    assert page.url == studio.url + "/"


def test_each_model_says_what_of_this_it_cannot(studio: Studio) -> None:
    """As the settings change; a choice that cannot be made cannot be sent."""
    page = studio.open()
    studio.fill()
    mochi = page.locator('[data-model="mochi"]')
    expect(mochi).to_contain_text("Text only, up to 163 frames. Demo checkpoint.")
    page.get_by_label("Frames", exact=True).fill("200")
    expect(mochi).to_contain_text("Not this one: it makes at most 163 frames.")
    expect(make_button(page)).to_have_attribute("aria-disabled", "false")
    mochi.get_by_role("radio").check()
    expect(page.locator("#outlook")).to_have_text("Frames: Must be 8 to 163.")
    press(page)
    assert not studio.jobs.jobs


def test_seconds_and_frames_follow_each_other(studio: Studio) -> None:
    """The one that was entered last stays when the rate changes."""
    page = studio.open()
    seconds, frames = page.get_by_label("Seconds"), page.get_by_label("Frames", exact=True)
    expect(seconds).to_have_value("2.67")
    seconds.fill("3")
    expect(frames).to_have_value("72")
    page.get_by_label("FPS").fill("12")
    expect(frames).to_have_value("36")
    frames.fill("24")
    expect(seconds).to_have_value("2")
    page.get_by_label("FPS").fill("24")
    expect(frames).to_have_value("24")
    expect(seconds).to_have_value("1")


def test_shapes_and_numbers_say_the_same(studio: Studio) -> None:
    """A free size that is a preset marks it; shapes that no model takes cannot be chosen."""
    page = studio.open()
    expect(page.get_by_label("1:1")).to_be_checked()
    page.get_by_label("9:16").check()
    expect(page.get_by_label("Width")).to_have_value("720")
    expect(page.get_by_label("Height")).to_have_value("1280")
    page.get_by_label("Width").fill("680")
    expect(page.get_by_label("9:16")).not_to_be_checked()
    page.get_by_label("Height").fill("512")
    page.get_by_label("Width").fill("512")
    expect(page.get_by_label("1:1")).to_be_checked()
    expect(page.get_by_label("512", exact=True)).to_be_checked()


def test_the_dice_and_the_lock(studio: Studio) -> None:
    """The dice give a number that stays; the lock lets it go again."""
    page = studio.open()
    seed, lock = (
        page.get_by_label("Seed", exact=True),
        page.get_by_role("button", name="Keep this seed"),
    )
    expect(lock).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Roll a seed").click()
    expect(seed).to_have_value(re.compile(r"^\d+$"))
    expect(lock).to_have_attribute("aria-pressed", "true")
    lock.click()
    expect(seed).to_have_value("")
    lock.click()
    expect(seed).to_have_value(re.compile(r"^\d+$"))


def test_the_queue_is_told_before_one_joins_it(studio: Studio) -> None:
    """From the service's own count, as soon as it changes, and in time where it has learnt that."""
    page = studio.open()
    studio.fill()
    told = page.locator("live-estimate")
    expect(told).to_have_text("Begins at once")
    studio.make()
    expect(told).to_have_text("One video is before yours")
    studio.jobs.times = {name: Times(start_s=80, make_s=40) for name in ("mochi", "opensora")}
    page.get_by_label("Frames", exact=True).fill("24")
    expect(told).to_have_text("Begins in about 1 min 20 s · takes about 40 s")
    studio.jobs.times = {name: Times(start_s=20, make_s=40) for name in ("mochi", "opensora")}
    expect(told).to_have_text("Begins in about 20 s · takes about 40 s")
    studio.jobs.replicas = (replica("loading"),)
    page.get_by_label("Frames", exact=True).fill("32")
    expect(told).to_contain_text("Begins when a model is ready")


def test_a_refusal_of_the_server_stands_beside_its_field(studio: Studio) -> None:
    """The page trusts its own checks no further than the server does."""
    page = studio.open()
    studio.fill()
    studio.jobs.refuse = InvalidRequest("fps", "24 is not to its taste")
    press(page)
    expect(page.locator("#fps-error")).to_have_text("24 is not to its taste")
    expect(page.get_by_label("FPS")).to_be_focused()
    studio.jobs.refuse = QueueFull("mochi", 30)
    press(page)
    expect(page.locator("#form-error")).to_contain_text("queue")
    studio.forgive("400|429")


def test_an_example_fills_the_prompt(studio: Studio) -> None:
    """The first visit explains itself, and is honest about the demo checkpoints."""
    page = studio.open()
    expect(page.locator(".empty")).to_contain_text("Describe a scene, press Make")
    expect(page.locator(".empty")).to_contain_text("small demo ones")
    page.get_by_role("button", name="a red ball moving right over the sea at sunset").click()
    prompt = page.get_by_label(PROMPT)
    expect(prompt).to_have_value("a red ball moving right over the sea at sunset")
    expect(prompt).to_be_focused()


def test_the_arrows_of_a_size_go_in_its_steps(studio: Studio) -> None:
    """Of eight pixels, within the limits."""
    page = studio.open()
    page.get_by_label("Width").focus()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_label("Width")).to_have_value("728")


def test_a_lost_answer_makes_no_second_video(studio: Studio) -> None:
    """The service had taken the request; the same one again is the same video."""
    page = studio.open()
    studio.fill()

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        if len(studio.jobs.submissions) == 1:
            route.abort()
        else:
            route.fulfill(status=502, body="Bad gateway")

    page.route("**/v1/videos", lose_the_answer, times=2)
    press(page)
    expect(page.locator("#form-error")).to_have_text("The service does not answer.")
    press(page)
    expect(page.locator("#form-error")).to_have_text("The service answered with an error (502).")
    press(page)
    expect(page.locator("#form-error")).to_be_empty()
    expect(studio.making).to_have_count(1)
    keys = {submission.idempotency_key for submission in studio.jobs.submissions}
    assert len(studio.jobs.submissions) == 3
    assert len(keys) == 1
    press(page)
    studio.until(lambda: len(studio.jobs.submissions) == 4)
    assert studio.jobs.submissions[-1].idempotency_key not in keys
    studio.forgive("ERR_FAILED|502")


def test_a_line_break_counts_as_the_service_counts_it(studio: Studio) -> None:
    """A form sends two characters for it."""
    page = studio.open()
    studio.fill("a ball\n" + "x" * 992)
    expect(page.locator("#prompt-count")).to_have_text("1000 / 1000")
    press(page)
    expect(studio.making).to_have_count(1)
    studio.fill("a ball\n" + "x" * 993)
    expect(page.locator("#outlook")).to_have_text("Write at most 1000 characters.")


@pytest.mark.parametrize("kept", ['"text"', "[1]", '{"loras": [1], "width": 5}', "{"])
def test_what_another_version_kept_does_no_harm(studio: Studio, kept: str) -> None:
    """What is not text is not filled in."""
    studio.page.add_init_script(f"localStorage.setItem('studio.settings', {kept!r})")
    studio.page.add_init_script("localStorage.setItem('studio.theme', 'sepia')")
    page = studio.open()
    expect(page.get_by_label("Width")).to_have_value("720")
    expect(page.get_by_role("button", name="Colours: as the system has them")).to_be_visible()


def test_a_page_that_may_keep_nothing_works(studio: Studio) -> None:
    """It forgets."""
    forbid = "Storage.prototype.setItem = () => { throw new DOMException('no', 'SecurityError') }"
    studio.page.add_init_script(forbid)
    page = studio.open()
    page.get_by_role("button", name="Colours").click()
    expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
    studio.make()
