"""What a request says of its repetitions and of its deadline, at both doors."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from deployments.core.service import Submission
from deployments.ingress import create_app
from deployments.routes.body import Part
from deployments.routes.repeats import fingerprint
from tests.routes.test_generate import post_and_leave
from tests.routes.test_video_create import multipart, picture
from tests.scripted_jobs import (
    BASE_URL,
    MOCHI,
    OPENSORA,
    Api,
    ScriptedJobs,
    form,
    service_config,
)

KEY = {"Idempotency-Key": "order-17"}


class KeyedApi(Api):
    """Knows what was handed in last."""

    @property
    def last(self) -> Submission:
        return self.jobs.submissions[-1]


def keyed(folder: Path) -> ScriptedJobs:
    return ScriptedJobs(service_config(folder), [MOCHI, OPENSORA])


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KeyedApi]:
    jobs = keyed(tmp_path)
    app = create_app(jobs, jobs.config, jobs.cards)
    with TestClient(app, base_url=BASE_URL) as http:
        yield KeyedApi(http, jobs, app)


def making(api: KeyedApi) -> dict[str, dict[str, str]]:
    """The four addresses that make a video, and a form for each."""
    source = api.http.post("/v1/videos", data=form(num_frames=13)).json()["id"]
    return {
        "/generate": form(),
        "/v1/videos": form(),
        f"/v1/videos/{source}/remix": form(),
        "/v1/videos/extensions": form(**{"video[id]": source}),
    }


# --- the headers ----------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(4))
def test_the_same_key_is_the_same_video(api: KeyedApi, index: int, monkeypatch: Any) -> None:
    """At every address that makes one."""
    monkeypatch.setattr("deployments.routes.video_extensions.last_frame", _frame)
    path, fields = list(making(api).items())[index]
    before = time.time()
    answers = [api.http.post(path, data=fields, headers=KEY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert len(api.jobs.jobs) == 2  # the source of the others, and this one
    first, second = api.jobs.submissions[-2:]
    assert first.idempotency_key == second.idempotency_key == "order-17"
    assert first.fingerprint == second.fingerprint != ""
    if "remix" not in path:  # drawn anew, and not in the fingerprint
        assert first.request.seed != second.request.seed
    assert first.received_at is not None
    assert before <= first.received_at <= time.time()
    name = "job_id" if path == "/generate" else "id"
    assert answers[0].json()[name] == answers[1].json()[name] == first.job_id


async def _frame(*_: Any) -> bytes:
    return picture()


@pytest.mark.parametrize("path", ["/generate", "/v1/videos"])
@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "\u00e4".encode("latin-1")])
def test_what_is_no_key_is_refused_by_name(api: KeyedApi, path: str, key: str | bytes) -> None:
    """It would not do what its sender hopes for."""
    answer = api.http.post(path, data=form(), headers={"Idempotency-Key": key})
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.text
    assert not api.jobs.submissions


@pytest.mark.parametrize(
    ("count", "is_retry"),
    [
        (None, False),
        ("0", False),
        ("1", True),
        ("2", True),
        ("", False),
        ("x", False),
        ("²", False),
    ],
)
def test_the_official_clients_count_its_attempts(
    api: KeyedApi, count: str | None, is_retry: bool
) -> None:
    """From the second one on it is a repetition; anything else is a first attempt."""
    headers = {} if count is None else {"x-stainless-retry-count": count.encode()}
    api.http.post("/v1/videos", data=form(), headers=headers)
    assert api.last.is_retry == is_retry


def test_generate_folds_nothing_by_itself(api: KeyedApi) -> None:
    """There a broken connection has cancelled the job."""
    api.http.post("/generate", data=form(), headers={"x-stainless-retry-count": "1"})
    assert not api.last.is_retry


# --- the fingerprint ------------------------------------------------------------------------


def test_the_same_contents_have_one_fingerprint(api: KeyedApi) -> None:
    """In whatever order, form or file name they come."""
    fields = {"prompt": "a ball", "lawful_use_consent": "true", "size": "256x256"}
    backwards = dict(reversed(fields.items()))
    files = multipart(fields)
    for number, body in enumerate(
        [
            {"data": fields},
            {"data": backwards},
            {"files": files},
            {"json": fields},
            {"files": files | {"input_reference": ("a.png", picture())}},
            {"files": files | {"input_reference": ("b.png", picture())}},
            {"files": files | {"input_reference": ("a.jpg", picture("JPEG"))}},
            {"data": fields | {"prompt": "a cube"}},
        ]
    ):
        answer = api.http.post("/v1/videos", **body)
        assert answer.status_code == 200, (number, answer.text)
    found = [submission.fingerprint for submission in api.jobs.submissions]
    assert len(set(found[:4])) == 1
    assert found[4] == found[5]
    assert len(set(found)) == 4


def test_a_fingerprint_tells_every_part_of_a_request() -> None:
    """Where one field ends and the next begins, and where it was sent."""
    whole = fingerprint("/p", [Part("a", b"1"), Part("b", b"2")])
    others = [
        fingerprint("/q", [Part("a", b"1"), Part("b", b"2")]),
        fingerprint("/p", [Part("a", b"2"), Part("b", b"1")]),
        fingerprint("/p", [Part("a", b"1")]),
        fingerprint("/p", [Part("a", b"1"), Part("b", b"2"), Part("c", b"")]),
        fingerprint("/p", [Part("a'=1\n'b", b"2")]),
        fingerprint("/p", [Part("\ud800", b"1")]),
    ]
    assert len({whole, *others}) == 7
    assert len(whole) == 64


# --- waiting calls --------------------------------------------------------------------------


@pytest.mark.parametrize("by_cancel", [False, True])
def test_a_client_with_a_key_may_come_back_for_its_video(tmp_path: Path, by_cancel: bool) -> None:
    """Its broken connection cancels nothing; the same request again waits for the same video."""
    jobs = keyed(tmp_path)
    jobs.hold = True
    app = create_app(jobs, jobs.config, jobs.cards)
    key = [(b"idempotency-key", b"order-17")]
    asyncio.run(post_and_leave(app, jobs, by_cancel=by_cancel, headers=key))
    assert not jobs.cancelled
    jobs.finish(jobs.last.id)
    with TestClient(app, base_url=BASE_URL) as http:
        answer = http.post("/generate", data=form(), headers=KEY)
    assert answer.json()["job_id"] == jobs.last.id
    assert len(jobs.jobs) == 1


# --- deadlines ------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(1, 4))
def test_a_deadline_counts_from_the_request(api: KeyedApi, index: int, monkeypatch: Any) -> None:
    """At the three addresses of /v1 that make a video."""
    monkeypatch.setattr("deployments.routes.video_extensions.last_frame", _frame)
    path, fields = list(making(api).items())[index]
    answer = api.http.post(path, data=fields | {"deadline_s": "90.5"})
    assert answer.status_code == 200, answer.text
    assert api.last.deadline_at is not None
    assert api.last.deadline_at - time.time() == pytest.approx(90.5, abs=5)
    api.http.post(path, data=fields | {"deadline_s": ""})
    assert api.last.deadline_at is None


@pytest.mark.parametrize("value", ["0", "-1", "604801", "soon", "nan"])
def test_what_is_no_deadline_is_refused_by_name(api: KeyedApi, value: str) -> None:
    """With the range."""
    answer = api.http.post("/v1/videos", data=form(deadline_s=value))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "deadline_s"
    assert "1 to 604800" in answer.text


def test_in_json_a_deadline_is_a_number(api: KeyedApi) -> None:
    """And null leaves it out."""
    body = {"prompt": "a ball", "lawful_use_consent": True}
    for value, status in ((60, 200), (None, 200), ("60", 400)):
        answer = api.http.post("/v1/videos", json=body | {"deadline_s": value})
        assert answer.status_code == status, value
