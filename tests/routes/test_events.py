"""`/v1/events`: the state of jobs after each change, for whoever listens."""

import asyncio
import base64
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deployments.ingress import create_app
from deployments.routes import feed, listener
from deployments.routes.feed import Feed
from deployments.routes.listener import Event
from tests.event_stream import WITHIN_S, Stream, until
from tests.scripted_jobs import ScriptedJobs, form, served, service_config


@dataclass
class Service:
    """The application behind a real server, with jobs that stay in progress."""

    url: str
    http: httpx.Client
    jobs: ScriptedJobs
    feed: Feed

    def submit(self, **headers: str) -> str:
        answer = self.http.post("/v1/videos", data=form(), headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    def stream(self, path: str = "/v1/events", **headers: str) -> Stream:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return Stream(self.url + path, names)

    def until_heard_by(self, count: int) -> None:
        until(lambda: self.feed.listeners == count)


@contextmanager
def serving(folder: Path, **settings: object) -> Iterator[Service]:
    config = service_config(folder, **settings)
    jobs = ScriptedJobs(config)
    jobs.hold = True
    app = create_app(jobs, config, jobs.cards)
    with served(app) as url, httpx.Client(base_url=url) as http:
        yield Service(url, http, jobs, app.state.door.feed)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path) as opened:
        yield opened


def test_a_stream_begins_with_every_video_that_is_not_done(service: Service) -> None:
    """Each as `GET /v1/videos/{id}` gives it; then a number from which to go on."""
    done, running = service.submit(), service.submit()
    service.jobs.finish(done)
    with service.stream().reading() as stream:
        (event,) = stream.until(1)
        assert (event["event"], event["id"]) == ("video", None)
        assert event["data"] == service.http.get(f"/v1/videos/{running}").json()
        stream.until_id(service.jobs.last_change)
        assert (stream.status, stream.retry_ms) == (200, 2000)


def test_every_change_is_told_with_its_number(service: Service) -> None:
    """A new video, a step, the end, and the deletion."""
    with service.stream().reading() as stream:
        stream.until_id(0)
        video = service.submit()
        stream.until(1)
        service.jobs.set(video, step=9, progress=45)
        stream.until(2)
        service.jobs.finish(video)
        stream.until(3)
        assert service.http.delete(f"/v1/videos/{video}").status_code == 200
        events = stream.until(4)
    assert [event["id"] for event in events] == ["1", "2", "3", "4"]
    assert [event["data"].get("progress") for event in events] == [40, 45, 100, None]
    assert events[-1] == {"event": "deleted", "id": "4", "data": {"id": video}}


@pytest.mark.parametrize("by", ["header", "query", "both"])
def test_a_client_that_comes_back_is_told_what_it_missed(service: Service, by: str) -> None:
    """The last state of each video that changed, and what was deleted; a browser repeats the
    address it began with, so the header counts."""
    first, second, third = [service.submit() for _ in range(3)]
    known = service.jobs.last_change
    for progress in (50, 60):
        service.jobs.set(first, progress=progress)
    service.jobs.finish(second)
    service.http.delete(f"/v1/videos/{second}")
    stream = service.stream()
    if by != "header":
        stream.url += f"?after={known if by == 'query' else 0}"
    if by != "query":
        stream.headers["Last-Event-ID"] = str(known)
    with stream.reading():
        stream.until_id(service.jobs.last_change)
        found = [(event["event"], event["data"]["id"]) for event in stream.events]
        assert found == [("video", first), ("deleted", second)]
        assert stream.events[0]["data"]["progress"] == 60
        service.jobs.set(third, progress=41)
        assert stream.until(3)[2]["data"]["progress"] == 41


def test_a_list_says_from_where_to_follow(service: Service) -> None:
    """Nothing that happens between the answer and the stream is missed, whatever page it was."""
    first = service.submit()
    service.submit()
    page = service.http.get("/v1/videos", params={"limit": 1}).json()
    service.jobs.finish(first)
    stream = service.stream(f"/v1/events?after={page['last_event_id']}")
    with stream.reading():
        (event,) = stream.until(1)
    assert (event["data"]["id"], event["data"]["status"]) == (first, "completed")


def test_a_number_that_never_was_stands_for_the_present(service: Service) -> None:
    """The job table is another one, and a client knows numbers of the old one."""
    video = service.submit()
    with service.stream(Last_Event_ID="999").reading() as stream:
        assert stream.until(1)[0]["data"]["id"] == video
        stream.until_id(service.jobs.last_change)


@pytest.mark.parametrize("number", ["x", "-1", "1.5"])
def test_a_wrong_number_is_refused(service: Service, number: str) -> None:
    """With the name of the header."""
    answer = service.http.get("/v1/events", headers={"Last-Event-ID": number})
    assert answer.status_code == 400
    assert "last-event-id" in answer.json()["error"]["message"].lower()


def test_what_moves_without_the_row_is_told_without_a_number(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when it is hardly different."""
    monkeypatch.setattr(feed, "MOVES_EVERY_S", 0.2)
    video = service.submit()
    with service.stream().reading() as stream:
        stream.until_id(1)
        view = service.jobs.jobs[video]
        service.jobs.jobs[video] = view.model_copy(update={"seconds_left": 29.5})
        time.sleep(0.5)
        assert len(stream.events) == 1
        service.jobs.jobs[video] = view.model_copy(update={"seconds_left": 20.0, "stalled": True})
        event = stream.until(2)[1]
    assert event["id"] is None
    assert (event["data"]["seconds_left"], event["data"]["stalled"]) == (20.0, True)
    assert len(stream.events) == 2


def test_a_stream_of_one_video_ends_with_it(service: Service) -> None:
    """It begins with the present state and tells of no other."""
    other, video = service.submit(), service.submit()
    with service.stream(f"/v1/videos/{video}/events").reading() as stream:
        stream.until(1)
        service.until_heard_by(1)
        service.jobs.set(other, progress=50)
        service.jobs.set(video, progress=60)
        stream.until(2)
        service.jobs.finish(video)
        events = stream.until_end()
    assert {event["data"]["id"] for event in events} == {video}
    assert [event["data"]["progress"] for event in events] == [40, 60, 100]


def test_a_stream_of_a_video_that_is_done_is_its_last_state(service: Service) -> None:
    """Whoever has read that gets a 204, which tells a browser not to come back."""
    video = service.submit()
    service.jobs.finish(video)
    with service.stream(f"/v1/videos/{video}/events").reading() as stream:
        (event,) = stream.until_end()
    assert (event["data"]["status"], event["id"]) == ("completed", "2")
    again = service.http.get(f"/v1/videos/{video}/events", headers={"Last-Event-ID": "2"})
    assert (again.status_code, again.content) == (204, b"")


def test_a_video_that_is_not_there_has_no_stream(service: Service) -> None:
    """404 before anything is sent."""
    answer = service.http.get("/v1/videos/video_nope/events")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_a_head_is_answered_without_a_stream(service: Service) -> None:
    """It would never end."""
    answer = service.http.head("/v1/events")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"


def test_a_quiet_stream_gives_signs_of_life(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comments, which clients skip, so that no proxy cuts it."""
    monkeypatch.setattr(listener, "KEEP_ALIVE_S", 0.1)
    with service.stream().reading() as stream:
        deadline = time.monotonic() + WITHIN_S
        while stream.comments < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stream.comments >= 3
        assert stream.events == []


def test_a_client_that_has_gone_is_forgotten(service: Service) -> None:
    """And when nobody listens, nothing is asked."""
    with service.stream().reading() as stream:
        stream.until_id(0)
        service.until_heard_by(1)
    service.until_heard_by(0)


def test_streams_go_on_after_the_jobs_deployment_was_away(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happened meanwhile is told."""
    monkeypatch.setattr(feed, "AWAY_PAUSE_S", 0.05)
    video = service.submit()
    with service.stream().reading() as stream:
        stream.until_id(1)
        service.jobs.down = True
        time.sleep(0.3)
        service.jobs.set(video, progress=70)
        service.jobs.down = False
        assert stream.until(2)[1]["data"]["progress"] == 70


def test_previews_are_shown_without_a_number(service: Service) -> None:
    """They are not changes: whoever comes back asks for none of them again."""
    video = service.submit()
    with service.stream().reading() as stream:
        stream.until_id(1)
        service.jobs.preview(video, 4, b"a picture")
        event = stream.until(2)[1]
    assert (event["event"], event["id"], stream.last_id) == ("preview", None, "1")
    picture = "data:image/jpeg;base64," + base64.b64encode(b"a picture").decode()
    assert event["data"] == {"id": video, "step": 4, "picture": picture}


@pytest.mark.parametrize("path", ["/v1/events", "/v1/videos/{}/events"])
def test_whoever_comes_is_shown_the_newest_preview_of_each_running_video(
    service: Service, path: str
) -> None:
    """Whether or not somebody listened when it was taken."""
    video = service.submit()
    service.jobs.preview(service.submit(), 9)
    for step in (2, 4):
        service.jobs.preview(video, step)
    for newest in (4, 5):
        with service.stream(path.format(video)).reading() as stream:
            until_shown(stream, (video, newest))
            with service.stream(path.format(video)).reading() as late:
                until_shown(late, (video, newest))
                assert [step for shown, step in previews(late) if shown == video] == [newest]
        service.until_heard_by(0)
        service.jobs.preview(video, 5)


def test_a_video_that_has_ended_has_no_preview(service: Service) -> None:
    """Its last one is gone with its run."""
    video, running = service.submit(), service.submit()
    with service.stream().reading() as stream:
        service.jobs.preview(video, 2)
        until(lambda: previews(stream))
        service.jobs.finish(video)
        stream.until_id(3)
        with service.stream().reading() as late:
            late.until_id(3)
            service.jobs.preview(running, 3)
            until(lambda: previews(late))
            assert previews(late) == [(running, 3)]


def test_a_slow_client_sees_the_newest_preview_and_none_after_the_end() -> None:
    """One that waits is replaced, and never keeps the end from being the last."""

    async def test() -> None:
        slow = listener.Listener(None)
        for step in (1, 2):
            slow.offer(Event("preview", None, "a", data=str(step)))
            slow.offer(Event("preview", None, "b", data=str(step)))
        slow.offer(Event("video", 7, "b", final=True))
        told = [(event.kind, event.job_id, event.data) for event in await slow.take()]
        assert told == [("video", "b", ""), ("preview", "a", "2")]
        assert slow.told == 7

    asyncio.run(test())


def until_shown(stream: Stream, preview: tuple[str, int]) -> None:
    until(lambda: preview in previews(stream))


def previews(stream: Stream) -> list[tuple[str, int]]:
    told = [event["data"] for event in stream.events if event["event"] == "preview"]
    return [(data["id"], data["step"]) for data in told]


def test_every_stream_ends_when_the_service_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Serve would wait for them."""
    monkeypatch.setattr(feed, "STOPPING_EVERY_S", 0.05)
    with serving(tmp_path) as service:
        with service.stream().reading() as stream:
            stream.until_id(0)
            service.feed._is_stopping = lambda: True
            stream.until_end()
        with service.stream().reading() as late:
            assert late.until_end() == []


def test_each_caller_is_told_of_his_own_videos(tmp_path: Path) -> None:
    """With keys; another's video is a 404, and its changes are passed over."""
    keys = [{"name": name, "sha256": digest(name)} for name in ("ann", "bob")]
    ann, bob = [{"Authorization": f"Bearer {name}"} for name in ("ann", "bob")]
    with serving(tmp_path, api_keys=keys) as service:
        video = service.submit(**ann)
        assert service.http.get("/v1/events").status_code == 401
        assert service.http.get(f"/v1/videos/{video}/events", headers=bob).status_code == 404
        with (
            service.stream(**ann).reading() as mine,
            service.stream(**bob).reading() as others,
        ):
            mine.until(1)
            others.until_id(1)
            service.jobs.set(video, progress=50)
            assert mine.until(2)[1]["data"]["progress"] == 50
            service.jobs.preview(video, 3)
            mine.until(3)
            service.jobs.finish(video)
            mine.until(4)
            service.http.delete(f"/v1/videos/{video}", headers=ann)
            mine.until(5)
            assert others.events == []


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
