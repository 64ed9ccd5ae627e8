"""The system view, the colours and the shortcuts."""

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Studio
from tests.scripted_jobs import replica

pytestmark = pytest.mark.system

LOOK = "document.querySelector('system-view').show()"


def test_the_machine_and_its_models_are_told(studio: Studio) -> None:
    """Memory of each GPU, what each model can, and plainly which checkpoint it has."""
    studio.jobs.replicas = (replica(gpu=True), replica("failed", "opensora", reason="no memory"))
    studio.add("a red ball", done=False)
    page = studio.open("/#/system")
    system = page.locator("system-view")
    expect(system).to_contain_text("GPU 0: NVIDIA H200")
    expect(system).to_contain_text("2.3 of 139.8 GB")
    expect(system).to_contain_text("GPU 0, load41 %")
    mochi = system.locator("article").first
    expect(mochi).to_contain_text("the small demo one that comes with the service")
    expect(mochi).to_contain_text("make weights MODEL=mochi")
    expect(system.locator("article").nth(1)).to_contain_text("failed: no memory")
    expect(system).to_contain_text("1 in progress, 0 waiting.")
    expect(system.locator(".queue a")).to_have_text("a red ball")
    expect(system.get_by_role("link", name="API, to try out")).to_have_attribute("href", "/docs")
    dashboard = system.get_by_role("link", name="Ray dashboard")
    expect(dashboard).to_have_attribute("href", "http://127.0.0.1:8265/")
    expect(page.locator("#status")).to_contain_text("opensora is failed (no memory)")


def test_the_system_view_outlives_a_service_that_does_not_answer(studio: Studio) -> None:
    """It says so from the first time on, says how old its figures are, and goes on by itself."""
    page = studio.page
    page.route("**/system-info", lambda route: route.abort())
    studio.open("/#/system")
    system = page.locator("system-view")
    note = system.locator(".note")
    expect(note).to_have_text("The service does not answer.")
    expect(system.locator(".live")).to_be_hidden()
    page.unroute("**/system-info")
    expect(system.locator("article")).to_have_count(2)
    expect(note).to_be_hidden()
    page.route("**/system-info", lambda route: route.abort())
    page.evaluate(LOOK)
    expect(note).to_contain_text("The service does not answer. These figures are from")
    expect(system.locator("article")).to_have_count(2)
    page.unroute("**/system-info")
    page.evaluate(LOOK)
    expect(note).to_be_hidden()
    studio.forgive("ERR_FAILED")


def test_new_figures_leave_the_focus_and_the_selection_alone(studio: Studio) -> None:
    """A link of the queue keeps the focus when its video goes on, and when others come or go."""
    first, second = (studio.add(f"a {what} ball", done=False) for what in ("blue", "red"))
    studio.jobs.queue(first, 1)
    studio.jobs.queue(second, 2)
    page = studio.open("/#/system")
    queue = page.locator(".queue li")
    link = page.get_by_role("link", name="a red ball").and_(page.locator(".queue a"))
    link.focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('system-view dl'))")
    selected = page.evaluate("String(getSelection())")
    expect(queue.nth(1)).to_have_text("a red ballNumber 2 in the queue, 0 %")
    studio.jobs.set(first, queue_position=3)
    studio.jobs.set(second, queue_position=1)
    expect(studio.making.nth(1)).to_contain_text("a blue ball")
    page.evaluate(LOOK)
    expect(queue.first).to_have_text("a red ballNext in the queue, 0 %")
    expect(link).to_be_focused()
    studio.jobs.finish(first)
    expect(studio.making).to_have_count(1)
    page.evaluate(LOOK)
    expect(queue).to_have_count(1)
    expect(link).to_be_focused()
    assert page.evaluate("String(getSelection())") == selected != ""


def test_a_change_of_the_models_leaves_the_focus_alone(studio: Studio) -> None:
    """Who walks through the models with the keyboard stays where they are."""
    page = studio.open()
    opensora = page.locator('[data-model="opensora"]')
    opensora.get_by_role("radio").check()
    studio.jobs.replicas = (replica(), replica("loading", "opensora"))
    expect(opensora).to_contain_text("loading.")
    expect(opensora.get_by_role("radio")).to_be_focused()
    expect(opensora.get_by_role("radio")).to_be_checked()
    others = "import('/static/api.js').then((api) => api.models()).then((all) => all.slice(1))"
    page.evaluate(f"{others}.then((some) => document.querySelector('model-field').setModels(some))")
    expect(page.locator("model-field label")).to_have_count(2)
    expect(opensora.get_by_role("radio")).to_be_focused()
    expect(opensora.get_by_role("radio")).to_be_checked()


def test_the_colours_are_chosen_and_stay(studio: Studio) -> None:
    """The system's own, light, dark; no flash of another on the next visit."""
    studio.page.emulate_media(color_scheme="dark")
    page = studio.open()
    back = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(back) == "rgb(17, 18, 20)"
    page.get_by_role("button", name="Colours").click()
    assert page.evaluate(back) == "rgb(245, 245, 244)"
    page.reload()
    assert page.evaluate(back) == "rgb(245, 245, 244)"
    page.get_by_role("button", name="Colours: light").click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(back) == "rgb(17, 18, 20)"


def test_the_shortcuts_are_listed_and_can_be_switched_off(studio: Studio) -> None:
    """Those of one key only, which get in the way of speech input."""
    page = studio.open()
    page.keyboard.press("/")
    expect(page.get_by_label("Search the prompts")).to_be_focused()
    page.locator("body").click(position={"x": 640, "y": 880})
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_contain_text("Make the video")
    dialog.get_by_label("Use single keys, without Ctrl or ⌘").uncheck()
    dialog.get_by_role("button", name="Close").click()
    page.keyboard.press("n")
    expect(page.get_by_label("What should the video show?")).not_to_be_focused()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(dialog).to_be_visible()
