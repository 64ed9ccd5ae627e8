"""Every view of the studio, with something in it to look at."""

import time
from collections.abc import Callable

from playwright.sync_api import expect

from tests.page.conftest import Studio
from tests.page.films import EXAMPLES, Film
from tests.page.test_picture import choose

# Background, width, height, and what moves in front of it: the newest first.
SCENES: tuple[tuple[str, int, int, tuple[str, str, str] | None], ...] = (
    ("lake", 344, 256, None),
    ("sea", 456, 256, ("white", "ball", "right")),
    ("snow", 256, 256, ("red", "square", "up")),
    ("desert", 256, 456, ("blue", "triangle", "down")),
    ("meadow", 256, 256, ("white", "ball", "bouncing")),
    ("city", 456, 256, None),
)
HOUR_S = 3600


def scenes() -> list[Film]:
    """The films of the wall, the oldest first."""
    films = [Film(place, width, height, 24, thing=it) for place, width, height, it in SCENES]
    return films[::-1]


def furnish(studio: Studio, films: list[Film]) -> None:
    """Hang films on the wall, a failed one among them; one runs and one waits."""
    jobs = studio.jobs
    for age, film in zip(range(len(films) + 1, 1, -1), films, strict=True):
        jobs.film = film
        job_id = studio.add(film.prompt)
        ended = time.time() - age * HOUR_S
        jobs.set(job_id, created_at=ended - 84, started_at=ended - 80, finished_at=ended)
    jobs.set(job_id, pinned=True)
    failed = studio.add("a large clip for a small card", width=1280, height=720, done=False)
    sentence = "Insufficient VRAM: mochi needs ~6.0GB, but only 4.2GB available."
    jobs.fail(failed, "insufficient_vram", sentence)
    jobs.set(failed, created_at=time.time() - HOUR_S)
    running = studio.add(EXAMPLES[1], done=False)
    jobs.set(running, seconds_left=84.0, step=9, progress=43)
    jobs.foresee(running, 9)
    waiting = studio.add(EXAMPLES[2], width=456, height=256, done=False)
    jobs.queue(waiting, 1)


def _of(studio: Studio, status: str) -> list[str]:
    return [job.id for job in studio.jobs.jobs.values() if job.status == status]


def first(studio: Studio) -> None:
    """Before there is any video; the others come after it."""
    studio.open("/#/")
    expect(studio.page.locator(".empty")).to_be_visible()


def wall(studio: Studio) -> None:
    studio.open("/#/")
    expect(studio.tiles).to_have_count(len(SCENES) + 1)


def composer(studio: Studio) -> None:
    wall(studio)
    studio.fill("the boat crosses the lake")
    studio.unfold()
    choose(studio.page, studio.jobs.film.poster)
    studio.page.get_by_label("16:9").check()
    studio.page.get_by_label("16:9").scroll_into_view_if_needed()


def settings(studio: Studio) -> None:
    """All settings unfolded, one of them wrong. The last: the fault stays."""
    studio.open("/#/")
    studio.unfold()
    page = studio.page
    page.get_by_role("radio", name="720").check()
    page.get_by_label("What should the video show?").fill("a large clip")
    if not page.get_by_label("Steps").is_visible():
        page.get_by_text("More", exact=True).click()
    steps = page.get_by_label("Steps")
    steps.fill("1")
    steps.blur()
    expect(page.locator("#num_inference_steps-error")).to_be_visible()
    page.locator("#num_inference_steps-error").scroll_into_view_if_needed()


def detail(studio: Studio) -> None:
    studio.open(f"/#/videos/{_of(studio, 'completed')[-1]}")
    expect(studio.sheet.locator("video")).to_be_visible()


def running(studio: Studio) -> None:
    studio.open(f"/#/videos/{_of(studio, 'in_progress')[0]}")
    expect(studio.sheet.locator("progress")).to_be_visible()


def failed(studio: Studio) -> None:
    studio.open(f"/#/videos/{_of(studio, 'failed')[0]}")
    expect(studio.sheet.locator(".failure")).to_be_visible()


def compare(studio: Studio) -> None:
    first, second = _of(studio, "completed")[-2:]
    studio.open(f"/#/compare/{first}/{second}")
    expect(studio.sheet.locator("video")).to_have_count(2)


def drafts(studio: Studio) -> None:
    studio.open("/#/")
    studio.fill(studio.jobs.film.prompt)
    studio.unfold()
    if studio.page.locator("#picture-clear").is_visible():
        studio.page.locator("#picture-clear").click()
    studio.page.get_by_label("4:3").check()
    studio.page.get_by_label("256", exact=True).check()
    studio.page.get_by_role("button", name="Draft four").click()
    expect(studio.page.locator(".board li")).to_have_count(4)
    for job_id in _of(studio, "in_progress")[-4:-1]:
        studio.jobs.finish(job_id)
    studio.jobs.foresee(_of(studio, "in_progress")[-1], 8)
    expect(studio.page.locator(".board img")).to_have_count(1)
    studio.page.get_by_role("button", name="Make in full").nth(1).click()
    expect(studio.page.locator(".board .chosen")).to_have_count(1)


def system(studio: Studio) -> None:
    studio.open("/#/system")
    expect(studio.page.locator("system-view article")).to_have_count(2)


def shortcuts(studio: Studio) -> None:
    studio.open("/#/")
    studio.page.get_by_role("button", name="Keyboard shortcuts").click()


def key(studio: Studio) -> None:
    studio.open("/#/")
    dialogs = "import('/static/elements/dialogs.js')"
    studio.page.evaluate(f"{dialogs}.then(({{ askForKey }}) => askForKey(() => {{}}))")
    expect(studio.page.get_by_label("API key")).to_be_visible()


VIEWS: dict[str, Callable[[Studio], None]] = {
    "first": first,
    "wall": wall,
    "composer": composer,
    "detail": detail,
    "running": running,
    "failed": failed,
    "compare": compare,
    "system": system,
    "shortcuts": shortcuts,
    "key": key,
    "drafts": drafts,
    "settings": settings,
}
