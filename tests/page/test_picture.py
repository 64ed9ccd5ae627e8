"""The first picture: chosen, dropped or pasted, framed as the model will see it, shrunk before it
is sent."""

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.page.conftest import Studio

pytestmark = pytest.mark.system

# Hands a file to an element as the system does when one is dropped or pasted.
DROP = """(bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(bytes)], "dropped.png", { type: "image/png" }));
  for (const type of ["dragover", "drop"]) {
    const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
    document.querySelector(TARGET).dispatchEvent(new DragEvent(type, options));
  }
}"""
PASTE = """(bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(bytes)], "pasted.png", { type: "image/png" }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer }));
}"""

KEPT = "import('/static/kept-picture.js').then(({ keptPicture }) => keptPicture())"


def picture(width: int = 60, height: int = 30, left: int = 200) -> bytes:
    """The left half has a red of `left`, the right half none."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = left
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def choose(page: Page, data: bytes, name: str = "photo.png") -> None:
    file = {"name": name, "mimeType": "image/png", "buffer": data}
    page.locator("#picture").set_input_files(file)  # type: ignore[arg-type]


def sent(studio: Studio) -> Image.Image:
    """What reached the service."""
    studio.page.get_by_role("button", name="Make video").click()
    expect(studio.making).to_have_count(1)
    data = studio.jobs.images[-1]
    assert data is not None
    return Image.open(io.BytesIO(data))


def test_a_chosen_picture_is_framed_and_sent_as_framed(studio: Studio) -> None:
    """The frame has the shape of the video; what is sent is what stands in it."""
    page = studio.open()
    studio.fill()
    choose(page, picture(640, 320))
    page.get_by_label("1:1").check()
    page.get_by_label("256", exact=True).check()
    box = page.locator(".crop-frame").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(1, abs=0.02)
    expect(page.locator("#picture-facts")).to_contain_text("640 × 320.")
    expect(page.locator("#picture-facts")).to_contain_text("Sent as 256 × 256.")
    page.get_by_label("Move the frame").fill("0")
    image = sent(studio)
    assert image.size == (256, 256)
    assert np.asarray(image)[:, :, 0].min() > 150
    assert studio.jobs.last.model == "opensora"


def test_the_frame_is_dragged_by_hand(studio: Studio) -> None:
    """As far as the picture goes."""
    page = studio.open()
    studio.fill()
    choose(page, picture(640, 320))
    page.get_by_label("1:1").check()
    frame = page.locator(".crop-frame")
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 30)
    page.mouse.up()
    expect(page.get_by_label("Move the frame")).to_have_value("100")
    assert np.asarray(sent(studio))[:, :, 0].max() < 30


def test_a_small_picture_is_not_scaled_up(studio: Studio) -> None:
    """That is for the service, which does it once and well."""
    page = studio.open()
    studio.fill()
    choose(page, picture(60, 30))
    page.get_by_label("16:9").check()
    assert sent(studio).size == (53, 30)


def test_a_dropped_picture_is_taken_on_its_field(studio: Studio) -> None:
    """Elsewhere it changes nothing, and the page stays."""
    page = studio.open()
    data = list(picture())
    page.evaluate(DROP.replace("TARGET", '"#prompt"'), data)
    expect(page.locator(".chosen")).to_be_hidden()
    page.evaluate(DROP.replace("TARGET", '".drop"'), data)
    expect(page.locator(".chosen")).to_be_visible()
    expect(page.locator(".crop img")).to_have_attribute("alt", "The picture dropped.png")


def test_a_pasted_picture_is_taken(studio: Studio) -> None:
    """Wherever the focus is; and it can be removed again."""
    page = studio.open()
    page.evaluate(PASTE, list(picture()))
    expect(page.locator(".chosen")).to_be_visible()
    page.get_by_role("button", name="Remove the picture").click()
    expect(page.locator(".chosen")).to_be_hidden()
    expect(page.locator("#picture")).to_be_focused()


def test_a_file_that_is_no_picture_is_refused_at_once(studio: Studio) -> None:
    """By its name, which stays text."""
    page = studio.open()
    choose(page, b"a picture of a fox", "<b>fox</b>.png")
    expect(page.locator("#picture-error")).to_have_text(
        "<b>fox</b>.png is no picture that this browser can read. Take a JPEG, PNG or WebP."
    )
    assert page.locator("#picture-error b").count() == 0


def test_a_model_that_takes_no_picture_says_so(studio: Studio) -> None:
    """Beside itself; any of the others makes it."""
    page = studio.open()
    studio.fill()
    choose(page, picture())
    mochi = page.locator('[data-model="mochi"]')
    expect(mochi).to_contain_text("Not this one: it makes videos from text only.")
    mochi.get_by_role("radio").check()
    expect(page.locator("#outlook")).to_have_text("mochi: it makes videos from text only.")


def test_without_a_model_for_it_there_is_no_picture_field(studio: Studio) -> None:
    """As /v1/models says."""
    studio.jobs.cards.pop()
    page = studio.open()
    expect(page.locator("picture-field")).to_be_hidden()


def test_a_picture_outlives_a_reload(studio: Studio) -> None:
    """With its frame; once removed it stays away."""
    page = studio.open()
    choose(page, picture(640, 320))
    page.get_by_label("Move the frame").fill("20")
    page.get_by_label("Move the frame").dispatch_event("change")
    page.wait_for_function(f"({KEPT}).then((kept) => kept?.position === 20)")
    page.reload()
    expect(page.locator(".crop img")).to_have_attribute("alt", "The picture photo.png")
    expect(page.get_by_label("Move the frame")).to_have_value("20")
    page.get_by_role("button", name="Remove the picture").click()
    page.wait_for_function(f"({KEPT}).then((kept) => kept === null)")
    studio.open()
    page.wait_for_timeout(300)
    expect(page.locator(".chosen")).to_be_hidden()


def test_a_pasted_text_is_no_picture(studio: Studio) -> None:
    """Office programs put a picture of it beside it; and a bad file leaves the good one."""
    page = studio.open()
    paste = PASTE.replace("document.dispatch", 'document.querySelector("#prompt").dispatch')
    with_text = paste.replace(
        "document.query", 'transfer.setData("text/plain", "a"); document.query'
    )
    bubbling = with_text.replace(
        "clipboardData: transfer", "clipboardData: transfer, bubbles: true"
    )
    page.evaluate(bubbling, list(picture()))
    page.wait_for_timeout(200)
    expect(page.locator(".chosen")).to_be_hidden()
    choose(page, picture())
    expect(page.locator(".chosen")).to_be_visible()
    page.evaluate(PASTE, [1, 2, 3])
    expect(page.locator("#picture-error")).to_contain_text("no picture that this browser can read")
    expect(page.locator(".chosen")).to_be_visible()
