"""The studio in front of the real graph with its bundled checkpoints: one start for all tests."""

import base64
import re
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from deployments.core.config import ModelConfig, ServiceConfig
from tests.e2e.graph import Graph, cluster, configure, free_port, serving
from tests.page.films import Film
from tests.page.test_picture import choose

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SLOW_MS = 120_000


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ServiceConfig:
    folder = tmp_path_factory.mktemp("studio")
    return configure(folder, ModelConfig(name="mochi"), ModelConfig(name="opensora"))


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with cluster(num_cpus=4):
        yield


@pytest.fixture(scope="module")
def graph(ray: None, config: ServiceConfig, port: int) -> Iterator[Graph]:
    with serving(config, port) as running:
        running.until_ready(2)
        yield running


@pytest.fixture
def page(browser: Browser, graph: Graph) -> Iterator[Page]:
    """The studio, set to small clips; what it writes to the console fails the test, but for what
    the browser says of a server that is away."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
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
    opened.goto(graph.url)
    opened.get_by_label("1:1").check()
    opened.get_by_label("256", exact=True).check()
    opened.get_by_label("Frames", exact=True).fill("13")
    opened.get_by_label("I will use this video lawfully").check()
    yield opened
    context.close()
    assert [text for text in complaints if not re.search("ERR_|50[0-9]|404", text)] == []


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


def test_a_restart_of_the_service_in_the_middle_is_survived(
    page: Page, graph: Graph, config: ServiceConfig, port: int
) -> None:
    """The page waits, and the video that was begun is finished and shown. Last: it leaves the
    graph of the others down."""
    from ray import serve

    page.get_by_label("Frames", exact=True).fill("160")
    make(page, "a clip that outlives its service")
    expect(page.locator(".making .outlook")).to_contain_text("step", timeout=SLOW_MS)
    serve.shutdown()
    expect(page.locator("#status")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator(".making li")).to_have_count(1)
    with serving(config, port):
        finished(page, "a clip that outlives its service")
        expect(page.locator("#status")).to_be_hidden(timeout=SLOW_MS)
