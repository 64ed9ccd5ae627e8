"""`/v1/videos/{id}`: OpenAI's video object, cancellation, and OpenAI's errors."""

from pathlib import Path
from typing import Any

import pytest

from tests.scripted_jobs import FILE_NAME, MOCHI, OPENSORA, Api, form, open_api

OPENAI_KEYS = {
    "id",
    "object",
    "model",
    "status",
    "progress",
    "created_at",
    "completed_at",
    "expires_at",
    "prompt",
    "remixed_from_video_id",
    "seconds",
    "size",
    "error",
}


def start(api: Api, **fields: object) -> str:
    """Begin a job that stays in progress; returns its address."""
    api.jobs.hold = True
    answer = api.http.post("/generate", data=form(**fields), headers={"Prefer": "respond-async"})
    return str(answer.json()["status_url"])


def test_a_running_video_tells_its_progress(api: Api) -> None:
    """OpenAI's keys, and ours beside them."""
    video = api.http.get(start(api, num_frames=48, fps=24, seed=3, width=512, height=256)).json()
    assert set(video) >= OPENAI_KEYS
    assert (video["object"], video["status"], video["progress"]) == ("video", "in_progress", 40)
    assert (video["phase"], video["step"], video["num_steps"]) == ("denoise", 8, 20)
    assert (video["seconds"], video["size"]) == ("2", "512x256")
    assert (video["model"], video["checkpoint"], video["seed"]) == ("mochi", "mochi-tiny", 3)
    assert isinstance(video["created_at"], int)
    assert (video["completed_at"], video["video_url"], video["error"]) == (None, None, None)


def test_a_waiting_video_tells_its_place(api: Api) -> None:
    """Before a model is chosen there is no recipe yet."""
    url = start(api)
    api.jobs.set(
        api.jobs.last.id,
        status="queued",
        phase="queued",
        queue_position=3,
        spec=None,
        step=0,
        num_steps=0,
    )
    video = api.http.get(url).json()
    assert (video["status"], video["queue_position"]) == ("queued", 3)
    assert video["checkpoint"] is None
    assert video["generated_width"] is None
    assert video["segments"] is None


def test_a_completed_video_names_its_file(api: Api) -> None:
    """And when it was done."""
    url = start(api)
    api.jobs.finish(api.jobs.last.id)
    video = api.http.get(url).json()
    assert (video["status"], video["progress"]) == ("completed", 100)
    assert video["video_url"] == f"/outputs/{FILE_NAME}"
    assert isinstance(video["completed_at"], int)


@pytest.mark.parametrize(
    ("frames", "fps", "seconds"), [(64, 24, "2.67"), (8, 60, "0.13"), (60, 24, "2.5"), (8, 1, "8")]
)
def test_seconds_are_a_short_text(api: Api, frames: int, fps: int, seconds: str) -> None:
    """OpenAI's clients expect a string."""
    assert api.http.get(start(api, num_frames=frames, fps=fps)).json()["seconds"] == seconds


def test_a_failed_video_says_why(api: Api) -> None:
    """Code for programs, sentence for people."""
    url = start(api)
    api.jobs.fail(api.jobs.last.id, "generation_failed", "The model ran out of memory.")
    video = api.http.get(url).json()
    assert video["status"] == "failed"
    assert video["error"] == {
        "code": "generation_failed",
        "message": "The model ran out of memory.",
    }


def test_a_cancelled_video_is_failed_with_code_cancelled(api: Api) -> None:
    """OpenAI's clients know no fifth status."""
    url = start(api)
    video = api.http.post(f"{url}/cancel").json()
    assert (video["status"], video["error"]["code"]) == ("failed", "cancelled")
    assert api.http.get(url).json() == video


def test_cancelling_a_video_that_is_done_changes_nothing(api: Api) -> None:
    """It is answered as it is."""
    url = start(api)
    api.jobs.finish(api.jobs.last.id)
    assert api.http.post(f"{url}/cancel").json()["status"] == "completed"


def openai_error(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    error: dict[str, Any] = answer.json()["error"]
    assert list(error) == ["message", "type", "code", "param"]
    assert error["code"] == code
    return error


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "kind"),
    [
        ("GET", "/v1/videos/video_none", 404, "not_found", "invalid_request_error"),
        ("POST", "/v1/videos/video_none/cancel", 404, "not_found", "invalid_request_error"),
        ("GET", "/v1/nothing", 404, "not_found", "invalid_request_error"),
        ("GET", "/v1", 404, "not_found", "invalid_request_error"),
        ("PUT", "/v1/models", 405, "method_not_allowed", "invalid_request_error"),
        ("DELETE", "/v1/videos/x/cancel", 405, "method_not_allowed", "invalid_request_error"),
    ],
)
def test_every_error_under_v1_is_openais_error_object(
    api: Api, method: str, path: str, status: int, code: str, kind: str
) -> None:
    """Also those of the router."""
    error = openai_error(api.http.request(method, path), status, code)
    assert error["type"] == kind


def test_an_unexpected_error_under_v1_is_a_server_error(api: Api) -> None:
    """In the same shape, without its cause."""
    api.jobs.jobs["x"] = None  # type: ignore[assignment]
    error = openai_error(api.http.get("/v1/videos/x"), 500, "server_error")
    assert error["type"] == "server_error"
    assert "NoneType" not in error["message"]


def test_a_foreign_host_under_v1_is_told_in_the_same_shape(api: Api) -> None:
    """The guard stands before the router."""
    answer = api.http.get("/v1/models", headers={"Host": "evil.example"})
    openai_error(answer, 403, "foreign_origin")


def test_a_long_video_tells_its_segments_and_why_its_model(tmp_path: Path) -> None:
    """Steps are those of all segments."""
    with open_api(tmp_path, cards=[MOCHI, OPENSORA]) as api:
        video = api.http.get(start(api, num_frames=240)).json()
    assert (video["model"], video["segments"], video["num_steps"]) == ("opensora", 2, 40)
    assert video["routing"] == "240 frames: more than mochi's 163"
