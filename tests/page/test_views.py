"""Every view in light and dark, on a desk and on a phone: without a fault of access, and within
the screen. With the environment variable STUDIO_SCREENSHOTS a picture of each goes to that folder.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests.page.conftest import Studio, served, watch
from tests.page.films import Film, FilmJobs
from tests.page.views import VIEWS, furnish, scenes
from tests.scripted_jobs import service_config

pytestmark = pytest.mark.system

AXE = Path(__file__).resolve().parents[1] / "data/axe/axe.min.js"
SIZES = {"desktop": (1360, 850), "phone": (390, 844)}
# What WCAG 2.2 AA asks for, and what axe's authors advise besides.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = f'{{ runOnly: {RULES}, resultTypes: ["violations"] }}'
RUN = f"""axe.run(document, {OPTIONS}).then(({{ violations }}) => violations.map(
  ({{ id, nodes }}) => [id, nodes[0].html.slice(0, 120), nodes[0].failureSummary]))"""


@pytest.fixture(scope="module")
def films() -> list[Film]:
    return scenes()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(SIZES))
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bare(
    browser: Browser, tmp_path: Path, films: list[Film], scheme: str, device: str
) -> Iterator[Studio]:
    """A service without any video, on one kind of screen."""
    width, height = SIZES[device]
    jobs = FilmJobs(service_config(tmp_path), films[-1])
    with served(jobs) as url:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            has_touch=device == "phone",
            reduced_motion="reduce",
            locale="en-GB",
        )
        studio = Studio(context, context.new_page(), url, jobs)
        watch(studio)
        yield studio
        context.close()
        assert studio.complaints == []


def test_every_view_is_accessible_and_fits(
    bare: Studio, films: list[Film], scheme: str, device: str
) -> None:
    """axe finds nothing in any, and nothing is wider than the screen."""
    page = bare.page
    bare.open()
    page.evaluate(AXE.read_text())
    found = []
    for name, show in VIEWS.items():
        show(bare)
        page.wait_for_timeout(200)
        picture(bare, f"studio-{name}-{scheme}-{device}")
        found += [(name, *violation) for violation in page.evaluate(RUN)]
        if page.evaluate("document.documentElement.scrollWidth") > SIZES[device][0]:
            found.append((name, "too wide"))
        page.keyboard.press("Escape")
        if name == "first":
            furnish(bare, films)
    assert found == []


def picture(studio: Studio, name: str) -> None:
    folder = os.environ.get("STUDIO_SCREENSHOTS")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    shot = Image.open(io.BytesIO(studio.page.screenshot()))
    shot.convert("RGB").save(Path(folder) / f"{name}.webp", quality=78, method=6)
