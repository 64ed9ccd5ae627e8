"""Videos in the making: progress, the queue, cancel, reloads, and a service that goes and comes."""

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.e2e.graph import free_port
from tests.page.conftest import HIDE_TAB, Studio, served, watch
from tests.page.films import Film, FilmJobs
from tests.scripted_jobs import service_config

pytestmark = pytest.mark.system


def test_a_video_is_watched_to_its_end(studio: Studio) -> None:
    """Phase, step and time left in words; then it stands on the wall."""
    page = studio.open()
    job_id = studio.make()
    card = studio.making.first
    expect(card.locator(".phase")).to_have_text("Drawing")
    expect(card.locator(".outlook")).to_contain_text("step 8 of 20 · about")
    expect(card.locator("progress")).to_have_js_property("value", 40)
    studio.jobs.set(job_id, step=11, progress=55, seconds_left=80.0)
    expect(card.locator(".outlook")).to_contain_text("step 11 of 20 · about 1 min 20 s left")
    expect(card.locator(".percent")).to_have_text("55 %")
    assert page.title() == "55 % – Video studio"
    studio.jobs.set(job_id, phase="encode", progress=97)
    expect(card.locator(".phase")).to_have_text("Writing the video file")
    studio.jobs.finish(job_id)
    expect(studio.making).to_have_count(0)
    expect(studio.tiles).to_have_count(1)
    expect(page.locator("#announcer")).to_have_text("Finished: a red ball moving right")


def test_a_video_is_seen_before_it_is_done(studio: Studio) -> None:
    """Where its frames will be, on the wall and in its own view, with words for whoever does not
    see it; nothing moves, and a reload shows it again."""
    page = studio.open()
    job_id = studio.make()
    well = studio.making.first.locator(".well")
    before = well.bounding_box()
    expect(well.locator("img")).to_have_count(0)
    studio.jobs.foresee(job_id, 4)
    expect(well.get_by_alt_text("Preview after step 4")).to_be_visible()
    studio.jobs.foresee(job_id, 6)
    picture = well.get_by_alt_text("Preview after step 6")
    expect(picture).to_be_visible()
    expect(well.locator("img")).to_have_count(1)
    expect(well.locator(".percent")).to_be_visible()
    assert well.bounding_box() == before
    assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") == 16
    page.reload()
    expect(picture).to_be_visible()
    page.goto(f"{studio.url}/#/videos/{job_id}")
    large = studio.sheet.locator(".running .well")
    expect(large.get_by_alt_text("Preview after step 6")).to_be_visible()
    studio.jobs.foresee(job_id, 8)
    expect(large.get_by_alt_text("Preview after step 8")).to_be_visible()
    studio.jobs.finish(job_id)
    expect(studio.sheet.locator("video")).to_be_visible()
    expect(page.locator("img.preview")).to_have_count(0)


def test_a_video_that_has_to_begin_again_shows_nothing_of_its_first_try(studio: Studio) -> None:
    """Until there is a preview of the second."""
    studio.open()
    job_id = studio.make()
    preview = studio.making.first.locator("img.preview")
    studio.jobs.foresee(job_id, 4)
    expect(preview).to_have_count(1)
    studio.jobs.queue(job_id, 1)
    expect(preview).to_have_count(0)
    studio.jobs.set(job_id, status="in_progress", phase="denoise", queue_position=0)
    studio.jobs.foresee(job_id, 2)
    expect(preview).to_have_attribute("alt", "Preview after step 2")


def test_several_videos_stand_in_the_order_of_the_queue(studio: Studio) -> None:
    """With their places, which move up."""
    studio.open()
    first, second, third = (studio.make(name) for name in ("a red ball", "a square", "a tree"))
    studio.jobs.queue(second, 2)
    studio.jobs.queue(third, 1)
    expect(studio.making.locator(".text")).to_have_text(["a red ball", "a tree", "a square"])
    phases = studio.making.locator(".phase")
    expect(phases).to_have_text(["Drawing", "Next in the queue", "Number 2 in the queue"])
    studio.jobs.finish(first)
    studio.jobs.set(third, status="in_progress", phase="denoise", queue_position=0)
    studio.jobs.queue(second, 1)
    expect(phases).to_have_text(["Drawing", "Next in the queue"])


def test_a_video_can_be_cancelled(studio: Studio) -> None:
    """It stays on the wall as cancelled, from where it can be tried again."""
    page = studio.open()
    job_id = studio.make()
    page.get_by_role("button", name="Cancel").click()
    expect(studio.making).to_have_count(0)
    expect(studio.tiles.locator(".reason")).to_have_text("Cancelled.")
    assert studio.jobs.cancelled == [job_id]


def test_a_failed_video_says_why_and_can_be_tried_again(studio: Studio) -> None:
    """In the service's own sentence; the new one has the same recipe."""
    page = studio.open()
    job_id = studio.make("a green ball")
    sentence = "Insufficient VRAM: mochi needs ~6.0GB, but only 4.2GB available."
    studio.jobs.fail(job_id, "insufficient_vram", sentence)
    expect(studio.tiles.locator(".reason")).to_have_text(sentence)
    page.get_by_role("button", name="Try again").click()
    expect(studio.making).to_have_count(1)
    first, second = studio.jobs.requests
    assert (second.prompt, second.seed, second.width) == (first.prompt, first.seed, first.width)


def test_a_stalled_video_is_told_from_a_slow_one(studio: Studio) -> None:
    """By the last sign of life."""
    studio.open()
    job_id = studio.make()
    studio.jobs.set(job_id, stalled=True, heartbeat_at=time.time() - 150)
    expect(studio.making.locator(".outlook")).to_contain_text("no sign of life for 2 min 3")


def test_reloads_and_other_tabs_show_the_same(studio: Studio) -> None:
    """Nothing of a job is kept in the page; one that ended meanwhile is on the wall."""
    page = studio.open()
    first, second = studio.make("a red ball"), studio.make("a square")
    page.reload()
    expect(studio.making).to_have_count(2)
    page.goto("about:blank")
    studio.jobs.finish(first)
    studio.open()
    expect(studio.making.locator(".text")).to_have_text(["a square"])
    expect(studio.tiles.locator(".text")).to_have_text(["a red ball"])
    other = studio.context.new_page()
    other.goto(studio.url)
    expect(other.locator(".making li")).to_have_count(1)
    studio.jobs.finish(second)
    expect(other.locator(".tile")).to_have_count(2)
    expect(studio.tiles).to_have_count(2)


def test_what_ends_while_the_page_is_loading_is_seen(studio: Studio) -> None:
    """Between the answer of the list and the stream of events."""
    job_id = studio.add(done=False)

    def end_behind_it(route: Route) -> None:
        answer = route.fetch()
        studio.jobs.finish(job_id)
        route.fulfill(response=answer)

    studio.page.route("**/v1/videos?*", end_behind_it, times=1)
    studio.open()
    expect(studio.tiles).to_have_count(1)
    expect(studio.making).to_have_count(0)


def test_a_video_in_the_making_has_an_address(studio: Studio) -> None:
    """The detail view shows the same progress, and turns into the player."""
    studio.open()
    job_id = studio.make()
    studio.making.locator("a").click()
    expect(studio.sheet.locator(".phase")).to_have_text("Drawing")
    studio.jobs.set(job_id, progress=72)
    expect(studio.sheet.locator(".percent")).to_have_text("72 %")
    studio.jobs.finish(job_id)
    expect(studio.sheet.locator("video")).to_be_visible()


def test_what_ends_while_its_view_is_fetched_is_seen(studio: Studio) -> None:
    """The first time that a video is opened its view has to come."""
    page = studio.open()
    job_id = studio.make()
    view = studio.hold("**/video-detail.js")
    studio.making.locator("a").click()
    late = view()
    studio.jobs.finish(job_id)
    expect(studio.tiles).to_have_count(1)
    late.continue_()
    expect(studio.sheet.locator("video")).to_be_visible()
    assert page.url.endswith(job_id)


def test_jobs_that_do_not_answer_are_waited_for(studio: Studio) -> None:
    """The page says so, keeps what it has, and goes on by itself."""
    page = studio.open()
    job_id = studio.make()
    studio.jobs.down = True
    expect(page.locator("#status")).to_be_visible(timeout=20_000)
    expect(studio.making).to_have_count(1)
    studio.jobs.finish(job_id)
    studio.jobs.down = False
    expect(studio.tiles).to_have_count(1, timeout=20_000)
    expect(page.locator("#status")).to_be_hidden(timeout=20_000)
    studio.forgive("50[0-9]|ERR_")


def test_a_restart_of_the_server_is_survived(browser: Browser, tmp_path: Path, film: Film) -> None:
    """The same address, a new process: the job that ended meanwhile is there."""
    jobs = FilmJobs(service_config(tmp_path), film)
    port = free_port()
    with served(jobs, port) as url:
        context = browser.new_context()
        page = context.new_page()
        studio = Studio(context, page, url, jobs)
        watch(studio)
        studio.open()
        job_id = studio.make()
    expect(page.locator("#status")).to_contain_text("does not answer", timeout=20_000)
    expect(studio.making).to_have_count(1)
    jobs.finish(job_id)
    with served(jobs, port):
        expect(studio.tiles).to_have_count(1, timeout=20_000)
        expect(studio.making).to_have_count(0)
        expect(page.locator("#status")).to_be_hidden(timeout=20_000)
        context.close()


def test_a_tab_that_nobody_sees_gives_its_connection_back(studio: Studio) -> None:
    """If it waits for nothing; it catches up when one returns."""
    page = studio.open()
    expect(page.locator(".empty")).to_be_visible()
    page.evaluate(HIDE_TAB, True)
    studio.add("a ball that nobody saw")
    page.wait_for_timeout(500)
    expect(studio.tiles).to_have_count(0)
    page.evaluate(HIDE_TAB, False)
    expect(studio.tiles.locator(".text")).to_have_text(["a ball that nobody saw"])
    studio.add("a ball that one sees")
    expect(studio.tiles).to_have_count(2)


def test_the_window_tells_of_the_end_while_one_is_elsewhere(studio: Studio) -> None:
    """In its title, and by a notification for those who asked."""
    studio.context.grant_permissions(["notifications"])
    studio.page.add_init_script(
        "window.told = [];"
        "window.Notification = class { static permission = 'granted';"
        "static async requestPermission() { return 'granted'; }"
        "constructor(title, more) { window.told.push([title, more.body]); } };"
    )
    page = studio.open()
    job_id = studio.make()
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_role("button", name="Notify me")).to_have_attribute("aria-pressed", "true")
    page.evaluate(HIDE_TAB, True)
    studio.jobs.finish(job_id)
    expect(page).to_have_title("Done (1) – Video studio")
    assert page.evaluate("window.told") == [["Your video is done", "a red ball moving right"]]
    page.evaluate(HIDE_TAB, False)
    expect(page).to_have_title("Video studio")


def test_much_work_is_not_thrown_away_by_one_press(studio: Studio) -> None:
    """What has been in the making for more than a minute is cancelled ten seconds later, unless
    that is taken back."""
    page = studio.open()
    job_id = studio.make()
    studio.jobs.set(job_id, started_at=time.time() - 90, progress=72)
    expect(studio.making.locator(".percent")).to_have_text("72 %")
    page.clock.install()
    cancel = studio.making.get_by_role("button", name="Cancel")
    cancel.click()
    expect(studio.making.locator(".phase")).to_have_text("About to be cancelled")
    expect(cancel).to_be_focused()
    page.get_by_role("button", name="Undo").click()
    expect(studio.making.locator(".phase")).to_have_text("Drawing")
    page.clock.fast_forward(12_000)
    assert studio.jobs.cancelled == []
    cancel.click()
    page.mouse.move(5, 5)
    page.clock.fast_forward(10_500)
    expect(studio.making).to_have_count(0)
    assert studio.jobs.cancelled == [job_id]


def test_a_message_waits_for_whoever_is_at_it(studio: Studio) -> None:
    """Its way back is there as long as one points at it or has the focus on it."""
    studio.add()
    page = studio.open()
    page.locator(".tile > a").focus()
    page.clock.install()
    page.keyboard.press("Delete")
    undo = page.get_by_role("button", name="Undo")
    undo.focus()
    page.clock.fast_forward(30_000)
    expect(undo).to_be_visible()
    page.keyboard.press("Enter")
    expect(studio.tiles).to_have_count(1)
