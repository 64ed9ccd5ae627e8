"""The first picture of the web page: chosen or dropped, shown as it will be cropped, removable."""

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.page.conftest import Opened
from tests.page.test_page import fill
from tests.scripted_jobs import MOCHI, OPENSORA, ScriptedJobs, replica, service_config

pytestmark = pytest.mark.system

DROP = """(bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(bytes)], "dropped.png", { type: "image/png" }));
  for (const type of ["dragover", "drop"]) {
    const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
    document.getElementById(TARGET).dispatchEvent(new DragEvent(type, options));
  }
}"""


@pytest.fixture
def jobs(tmp_path: Path, clip: bytes) -> ScriptedJobs:
    """Mochi, which is preferred, and opensora."""
    scripted = ScriptedJobs(service_config(tmp_path), [MOCHI, OPENSORA])
    scripted.replicas = (replica(), replica(model="opensora"))
    scripted.video = clip
    scripted.hold = True
    return scripted


def picture(width: int = 60, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def choose(page: Page, data: bytes | None = None, name: str = "photo.png") -> None:
    file = {"name": name, "mimeType": "image/png", "buffer": data or picture()}
    page.get_by_label("First picture").set_input_files(file)  # type: ignore[arg-type]


def drop(page: Page, target: str) -> None:
    page.evaluate(DROP.replace("TARGET", f'"{target}"'), list(picture()))


def send(page: Page) -> None:
    page.get_by_role("button", name="Make the video").click()


def test_a_chosen_picture_is_shown_cropped_and_sent(opened: Opened, jobs: ScriptedJobs) -> None:
    """The preview has the shape of the video; the model is one that takes pictures."""
    opened.goto("/")
    page = opened.page
    fill(page)
    choose(page)
    expect(page.locator("#image-facts")).to_have_text(
        "60 × 30, 0.0 MiB. The video begins like this."
    )
    page.get_by_label("Width").fill("512")
    page.get_by_label("Height").fill("256")
    box = page.locator("#image-preview").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(2, abs=0.05)
    send(page)
    expect(page.locator("#phase")).to_have_text("Drawing")
    assert (jobs.last.model, len(jobs.images)) == ("opensora", 1)
    assert jobs.images[0] is not None
    jobs.finish(jobs.last.id)
    expect(page.locator("#facts")).to_contain_text("image given: opensora makes videos from images")


def test_a_dropped_picture_is_sent(opened: Opened, jobs: ScriptedJobs) -> None:
    """On its field; elsewhere it changes nothing, and the page stays."""
    opened.goto("/")
    page = opened.page
    fill(page)
    expect(page.locator("#image-field")).to_be_visible()
    drop(page, "prompt")
    expect(page.locator("#image-chosen")).to_be_hidden()
    drop(page, "image-drop")
    expect(page.locator("#image-preview")).to_be_visible()
    send(page)
    expect(page.locator("#phase")).to_have_text("Drawing")
    assert jobs.images[0] is not None


def test_a_picture_can_be_removed(opened: Opened, jobs: ScriptedJobs) -> None:
    """Then the video is made from the text alone."""
    opened.goto("/")
    page = opened.page
    fill(page)
    choose(page)
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.locator("#image-chosen")).to_be_hidden()
    expect(page.get_by_label("First picture")).to_be_focused()
    send(page)
    expect(page.locator("#phase")).to_have_text("Drawing")
    assert (jobs.last.model, jobs.images) == ("mochi", [None])


def test_the_limits_follow_the_models_that_may_get_it(opened: Opened, jobs: ScriptedJobs) -> None:
    """With a picture only opensora is left; with mochi chosen the picture is in the way."""
    opened.goto("/")
    page = opened.page
    fill(page)
    choose(page)
    page.get_by_label("Model").select_option("mochi")
    send(page)
    expect(page.locator("#image-error")).to_have_text(
        "mochi makes videos from text only. Remove it or choose another model."
    )
    assert not jobs.jobs
    page.get_by_label("Model").select_option("opensora")
    expect(page.locator("#image-error")).to_be_empty()
    expect(page.locator("#num_frames-hint")).to_have_text("8 to 240")


def test_a_file_that_is_no_picture_is_told_twice(opened: Opened, jobs: ScriptedJobs) -> None:
    """At once by the browser, and by the service beside the field."""
    opened.goto("/")
    page = opened.page
    fill(page)
    choose(page, b"a picture of a fox")
    expect(page.locator("#image-facts")).to_contain_text("cannot show it")
    send(page)
    expect(page.locator("#image-error")).to_have_text(
        "is neither JPEG, PNG nor WebP; send a JPEG, PNG or WebP file"
    )
    opened.complaints.clear()  # the 400
    assert not jobs.jobs


def test_without_a_model_for_it_there_is_no_picture_field(
    opened: Opened, jobs: ScriptedJobs
) -> None:
    """As /v1/models says."""
    jobs.cards.pop()
    opened.goto("/")
    expect(opened.page.get_by_label("Width")).to_have_value("720")
    expect(opened.page.locator("#image-field")).to_be_hidden()
