"""The studio in front of the real graph with its bundled checkpoints: one start for all tests."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from deployments.core.config import ModelConfig
from tests.e2e.graph import Graph, cluster, configure, free_port, serving
from tests.page.films import Film
from tests.page.test_picture import choose

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SLOW_MS = 120_000
SETTINGS = {"width": "256", "height": "256", "num_frames": "13"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    models = (ModelConfig(name="mochi"), ModelConfig(name="opensora"))
    config = configure(tmp_path_factory.mktemp("studio"), *models)
    with cluster(num_cpus=4), serving(config, free_port()) as running:
        running.until_ready(2)
        yield running


@pytest.fixture
def page(browser: Browser, graph: Graph) -> Iterator[Page]:
    """The studio on a desk."""
    with studio(browser, graph, viewport={"width": 1280, "height": 900}) as opened:
        yield opened


@contextmanager
def studio(browser: Browser, graph: Graph, **screen: Any) -> Iterator[Page]:
    """The page, set to small clips; what it writes to the console fails the test."""
    context = browser.new_context(**screen)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.set_default_timeout(SLOW_MS)
    opened.add_init_script(f"localStorage.setItem('studio.settings', '{json.dumps(SETTINGS)}')")
    opened.goto(graph.url)
    opened.get_by_label("What should the video show?").fill("a ball")
    opened.get_by_label("I will use this video lawfully").check()
    yield opened
    context.close()
    assert complaints == []


def make(page: Page, prompt: str) -> None:
    page.get_by_label("What should the video show?").fill(prompt)
    page.get_by_role("button", name="Make video").click()
    expect(page.locator(".making .text", has_text=prompt)).to_be_visible()


def finished(page: Page, prompt: str) -> str:
    """Wait for the video on the wall; returns its id."""
    tile = page.locator(".tile:not(.failed)", has_text=prompt).first
    expect(tile).to_be_visible(timeout=SLOW_MS)
    return str(tile.get_attribute("data-id"))


def content(graph: Graph, video_id: str) -> bytes:
    return graph.http.get(f"/v1/videos/{video_id}/content").content


def test_a_prompt_is_watched_until_it_plays(page: Page, graph: Graph) -> None:
    """The progress moves through its steps, previews show what comes, and the player runs without
    an error."""
    prompt = "a red ball moving right on a black background"
    page.evaluate(
        """() => {
          window.seen = [];
          window.shown = [];
          const look = () => {
            const bar = document.querySelector('.making progress');
            if (bar && window.seen.at(-1) !== bar.value) window.seen.push(bar.value);
            const preview = document.querySelector('.making .preview');
            if (preview && window.shown.at(-1) !== preview.src) window.shown.push(preview.src);
          };
          setInterval(look, 20);
        }"""
    )
    make(page, prompt)
    video_id = finished(page, prompt)
    seen = page.evaluate("window.seen")
    assert len(seen) > 3
    assert seen == sorted(seen)
    previews = page.evaluate("window.shown")
    assert len(previews) > 1
    with Image.open(BytesIO(base64.b64decode(previews[-1].partition(",")[2]))) as last:
        colours = np.asarray(last).reshape(-1, 3).astype(int)
    # Much of it is black, and some is red.
    assert np.median(colours.sum(axis=1)) < 150
    assert (colours[:, 0] - colours[:, 1:].max(axis=1)).max() > 60
    page.goto(f"{graph.url}/#/videos/{video_id}")
    clip = page.locator("#sheet video")
    page.wait_for_function("() => document.querySelector('#sheet video')?.currentTime > 0.1")
    assert clip.evaluate("clip => [clip.error, clip.videoWidth, clip.videoHeight]") == [
        None,
        256,
        256,
    ]


def test_a_picture_begins_the_video(page: Page, graph: Graph) -> None:
    """As it stood in the frame; and the same again is the very same file."""
    film = Film("lake", 400, 300, 1)
    choose(page, film.poster)
    make(page, "the lake at sunset")
    video_id = finished(page, "the lake at sunset")
    assert graph.job(video_id)["routing"].startswith("image given: opensora")
    poster = graph.http.get(f"/v1/videos/{video_id}/content?variant=thumbnail").content
    shown = np.asarray(Image.open(BytesIO(poster)).convert("RGB").resize((64, 64)), float)
    wanted = Image.open(BytesIO(film.poster)).convert("RGB").crop((50, 0, 350, 300))
    error = np.square(shown - np.asarray(wanted.resize((64, 64)), float)).mean()
    assert 10 * np.log10(255**2 / error) > 18
    page.goto(f"{graph.url}/#/videos/{video_id}")
    page.get_by_role("button", name="Same again").click()
    expect(page.locator(".tile", has_text="the lake at sunset")).to_have_count(2, timeout=SLOW_MS)
    assert content(graph, finished(page, "the lake at sunset")) == content(graph, video_id)


def test_a_reload_and_a_cancel_in_the_middle(page: Page, graph: Graph) -> None:
    """The card is there again; the cancelled video says so."""
    page.get_by_label("Frames", exact=True).fill("160")
    make(page, "a long clip of a white square")
    expect(page.locator(".making .outlook")).to_contain_text("step", timeout=SLOW_MS)
    page.reload()
    expect(page.locator(".making .text")).to_have_text("a long clip of a white square")
    page.get_by_role("button", name="Cancel").click()
    tile = page.locator(".tile.failed", has_text="a long clip of a white square")
    expect(tile.locator(".reason")).to_have_text("Cancelled.", timeout=SLOW_MS)


def test_the_same_again_has_the_same_bits(page: Page, graph: Graph) -> None:
    """The very same file, under another name."""
    prompt = "a blue triangle on a black background"
    make(page, prompt)
    first = finished(page, prompt)
    page.goto(f"{graph.url}/#/videos/{first}")
    page.get_by_role("button", name="Same again").click()
    expect(page.locator(".tile", has_text=prompt)).to_have_count(2, timeout=SLOW_MS)
    second = finished(page, prompt)
    assert second != first
    assert content(graph, first) == content(graph, second)


def test_the_chosen_draft_is_made_in_full(page: Page, graph: Graph) -> None:
    """With its seed and all of the model's steps."""
    prompt = "a yellow ball on a black background"
    page.get_by_label("What should the video show?").fill(prompt)
    page.get_by_role("radio", name=re.compile("^mochi")).check()
    page.get_by_role("button", name="Draft four").click()
    board = page.locator(".board li")
    expect(board.locator("video")).to_have_count(4, timeout=SLOW_MS)
    seed = board.nth(1).get_attribute("data-seed")
    board.nth(1).get_by_role("button", name="Make in full").click()
    full = board.nth(1).get_by_role("link", name="Watch it in full")
    expect(full).to_be_visible(timeout=SLOW_MS)
    job = graph.job(str(full.get_attribute("href")).rpartition("/")[2])
    assert (str(job["seed"]), job["status"], job["num_steps"]) == (seed, "completed", 20)
    full.click()
    page.wait_for_function("() => document.querySelector('#sheet video')?.currentTime > 0.1")


def test_a_search_finds_what_was_made(page: Page) -> None:
    """By the service's own search."""
    make(page, "a green square on a white background")
    finished(page, "a green square on a white background")
    page.get_by_label("Search the prompts").fill("GREEN")
    expect(page.locator(".tile .text")).to_have_text(["a green square on a white background"])


PLAYS = "() => document.querySelector('#sheet video')?.currentTime > 0.1"
SHAPE = "clip => [clip.error, clip.videoWidth, clip.videoHeight]"


def test_what_was_made_plays_at_odd_sizes_and_rates(page: Page, graph: Graph) -> None:
    """At one, 24 and 60 frames a second."""
    asked = ((264, 256, 8, 1), (296, 344, 24, 24), (512, 256, 60, 60))
    names = ("width", "height", "num_frames", "fps")
    ids = [
        graph.submit(
            prompt=f"a clip of {size[3]} frames a second",
            num_inference_steps="2",
            **{name: str(value) for name, value in zip(names, size, strict=True)},
        )
        for size in asked
    ]
    for video_id, (width, height, _, _) in zip(ids, asked, strict=True):
        expect(page.locator(f".tile[data-id={video_id}]")).to_be_visible(timeout=SLOW_MS)
        page.goto(f"{graph.url}/#/videos/{video_id}")
        page.wait_for_function(PLAYS)
        assert page.locator("#sheet video").evaluate(SHAPE) == [None, width, height]
        page.keyboard.press("Escape")
        expect(page.locator("#sheet")).to_be_hidden()


def test_the_gallery_comes_in_pages(page: Page, graph: Graph) -> None:
    """Pages of three, that those of the other tests may suffice: each once, the newest first."""
    listed = graph.http.get("/v1/videos?limit=100").json()["data"]
    ended = [video["id"] for video in listed if video["status"] in ("completed", "failed")]
    assert len(ended) > 6
    asked: list[str] = []

    def fewer(route: Route) -> None:
        asked.append(route.request.url)
        route.continue_(url=route.request.url.replace("limit=24", "limit=3"))

    page.route("**/v1/videos?*", fewer)
    page.reload()
    expect(page.locator(".tile")).to_have_count(len(ended))
    tiles = page.locator(".tile").evaluate_all("tiles => tiles.map((tile) => tile.dataset.id)")
    assert tiles == ended
    assert len(asked) >= len(ended) / 3


def test_a_video_is_made_and_watched_by_keyboard_alone(page: Page) -> None:
    """Written, sent, found, opened, paused, stepped, closed, deleted and brought back."""
    prompt = "a white triangle on a blue background"
    page.locator("body").press("n")
    page.keyboard.type(prompt)
    page.keyboard.press("Control+Enter")
    finished(page, prompt)
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.tile > a')"):
            break
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("#sheet-title")).to_have_text(prompt)
    page.wait_for_function(PLAYS)
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    before = page.locator("#sheet .time").inner_text()
    page.keyboard.press(",")
    expect(page.locator("#sheet .time")).not_to_have_text(before)
    page.keyboard.press("Escape")
    expect(page.locator(".tile > a").first).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.locator(".tile", has_text=prompt)).to_have_count(0)
    page.get_by_role("button", name="Undo").press("Enter")
    expect(page.locator(".tile", has_text=prompt)).to_have_count(1)


def test_a_video_is_made_and_watched_on_a_phone(browser: Browser, graph: Graph) -> None:
    """By touch, at the width of one; a hostile prompt is text there too."""
    prompt = "<img src=x onerror=alert(1)> ‮אבג 🦊 " + "w" * 900
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with studio(browser, graph, **phone) as page:
        page.get_by_label("What should the video show?").fill(prompt)
        page.get_by_role("button", name="Make video").tap()
        expect(page.locator(".making .text")).to_have_text(prompt)
        tile = page.locator(".tile", has_text="onerror").first
        expect(tile).to_be_visible(timeout=SLOW_MS)
        tile.locator("a").tap()
        page.wait_for_function(PLAYS)
        assert page.locator("#sheet video").evaluate(SHAPE) == [None, 256, 256]
        expect(page.locator("#sheet-title")).to_have_text(prompt)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("img[src='x']").count() == 0
