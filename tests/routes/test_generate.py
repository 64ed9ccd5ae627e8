"""`POST /generate`: every field at its borders, every status, the answer of the reference."""

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from deployments.core.errors import (
    BackendUnavailable,
    InsufficientDisk,
    InsufficientVram,
    QueueFull,
)
from deployments.ingress import create_app
from tests.scripted_jobs import (
    FILE_NAME,
    MOCHI,
    OPENSORA,
    Api,
    ScriptedJobs,
    form,
    open_api,
    served,
    service_config,
)

SEED_KEYS = [
    "success",
    "video_url",
    "mp4_path",
    "frames",
    "fps",
    "width",
    "height",
    "seed",
    "backend",
    "elapsed_time",
    "error",
]
ERROR_KEYS = ["success", "video_url", "error"]


def refused(answer: Any, status: int) -> str:
    """Check that the answer is an error in the seed's shape; return its sentence."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ERROR_KEYS
    assert body["success"] is False
    assert body["video_url"] is None
    return str(body["error"])


# --- the answer ----------------------------------------------------------------------------


def test_the_answer_has_the_keys_of_the_api_reference_first_and_in_order(api: Api) -> None:
    """Extra keys come after them; none is missing."""
    body = api.http.post("/generate", data=form(num_frames=48, width=512, height=512, seed=42))
    answer = body.json()
    assert list(answer)[: len(SEED_KEYS)] == SEED_KEYS
    assert answer["success"] is True
    assert answer["video_url"] == f"/outputs/{FILE_NAME}"
    assert (answer["frames"], answer["fps"]) == (48, 24)
    assert (answer["width"], answer["height"], answer["seed"]) == (512, 512, 42)
    assert answer["backend"] == "mochi"
    assert answer["error"] is None


def test_the_path_is_absolute_and_the_file_is_there(api: Api) -> None:
    """`mp4_path` names the served file on the server's disk."""
    answer = api.http.post("/generate", data=form()).json()
    path = Path(answer["mp4_path"])
    assert path.is_absolute()
    assert path.read_bytes() == api.http.get(answer["video_url"]).content


def test_the_elapsed_time_is_in_seconds_with_two_decimals(api: Api) -> None:
    """From the request to the video, the queue included."""
    elapsed = api.http.post("/generate", data=form()).json()["elapsed_time"]
    assert isinstance(elapsed, float)
    assert 0 <= elapsed < 5
    assert elapsed == round(elapsed, 2)


def test_the_answer_says_what_size_the_network_made(api: Api) -> None:
    """Above the native area the video is scaled up, and the answer says so."""
    answer = api.http.post("/generate", data=form(width=512, height=512)).json()
    assert (answer["generated_width"], answer["generated_height"]) == (128, 128)
    assert answer["checkpoint"] == "mochi-tiny"
    assert answer["notices"] == []


def test_left_out_fields_have_the_defaults_of_the_api_reference(api: Api) -> None:
    """24 fps, 64 frames, 720 x 720, any backend, no low VRAM."""
    answer = api.http.post("/generate", data=form()).json()
    assert (answer["fps"], answer["frames"]) == (24, 64)
    assert (answer["width"], answer["height"]) == (720, 720)
    spec = api.jobs.last.spec
    assert spec is not None
    assert (spec.low_vram, spec.quality, spec.negative_prompt) == (False, "exact", "")


def test_two_requests_without_a_seed_get_different_ones(api: Api) -> None:
    """The default is random, and the answer names it."""
    seeds = {api.http.post("/generate", data=form()).json()["seed"] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize("as_files", [True, False], ids=["multipart", "urlencoded"])
def test_both_encodings_of_a_form_are_taken(api: Api, as_files: bool) -> None:
    """`requests` sends urlencoded forms when there is no file."""
    values = form(seed=7, prompt="a lake & a + b = ü 🦊")
    sent: dict[str, Any] = (
        {"files": {k: (None, v) for k, v in values.items()}} if as_files else {"data": values}
    )
    assert api.http.post("/generate", **sent).json()["seed"] == 7
    assert api.jobs.last.request.prompt == values["prompt"]


# --- the fields ----------------------------------------------------------------------------

BORDERS = {
    "fps": (1, 60, 1),
    "num_frames": (8, 240, 1),
    "width": (256, 1920, 8),
    "height": (256, 1080, 8),
    "seed": (0, 2**32 - 1, 1),
    "num_inference_steps": (2, 200, 1),
}


@pytest.mark.parametrize("field", BORDERS)
@pytest.mark.parametrize("end", [0, 1], ids=["lowest", "highest"])
def test_a_number_is_taken_at_the_ends_of_its_range(tmp_path: Path, field: str, end: int) -> None:
    """The borders themselves are allowed."""
    with open_api(tmp_path, cards=[OPENSORA]) as api:
        answer = api.http.post("/generate", data=form(**{field: BORDERS[field][end]}))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("field", BORDERS)
@pytest.mark.parametrize("end", [0, 1], ids=["below", "above"])
def test_a_number_outside_its_range_is_refused_by_name_and_range(
    api: Api, field: str, end: int
) -> None:
    """The sentence names the field, the value, and the range."""
    lowest, highest, step = BORDERS[field]
    value = lowest - step if end == 0 else highest + step
    error = refused(api.http.post("/generate", data=form(**{field: value})), 400)
    assert error.startswith(f"{field}: {value} is {'less' if end == 0 else 'more'} than")
    assert f"{lowest} to {highest}" in error


@pytest.mark.parametrize("field", BORDERS)
@pytest.mark.parametrize("text", ["24.0", "abc", "1e2", " 24", "+24", "٢٤", "0x18", "9" * 5000])
def test_a_number_is_plain_decimal_digits(api: Api, field: str, text: str) -> None:
    """Nothing is guessed or rounded."""
    error = refused(api.http.post("/generate", data=form(**{field: text})), 400)
    assert error.startswith(f"{field}: ")
    assert "allowed: whole numbers from" in error
    assert len(error) < 300


@pytest.mark.parametrize("field", ["fps", "num_frames", "width", "height"])
def test_an_empty_number_is_refused(api: Api, field: str) -> None:
    """Only optional fields may be sent empty."""
    assert refused(api.http.post("/generate", data=form(**{field: ""})), 400).startswith(field)


@pytest.mark.parametrize("field", ["width", "height"])
def test_a_side_that_is_no_multiple_of_8_is_refused_with_the_nearest(api: Api, field: str) -> None:
    """The user can pick one of the two without trying."""
    error = refused(api.http.post("/generate", data=form(**{field: 514})), 400)
    assert error.startswith(f"{field}: 514 is not a multiple of 8; the nearest are 512 and 520")


def test_fields_that_html_forms_send_empty_count_as_absent(api: Api) -> None:
    """An input left blank is a default, not an error."""
    empty = dict.fromkeys(
        ["seed", "prefer_backend", "num_inference_steps", "guidance_scale", "quality"], ""
    )
    answer = api.http.post(
        "/generate", data=form(**empty), files={"image": ("", b"", "application/octet-stream")}
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("prompt", ["cat", "x" * 1000, "🦊" * 1000, "a\tb\nc\r\nd", "ab "])
def test_a_prompt_of_3_to_1000_characters_is_taken_as_it_is(api: Api, prompt: str) -> None:
    """Characters, not bytes; nothing is stripped."""
    assert api.http.post("/generate", data=form(prompt=prompt)).status_code == 200
    assert api.jobs.last.request.prompt == prompt


@pytest.mark.parametrize(
    ("prompt", "what"),
    [
        ("ab", "has 2 characters"),
        ("x" * 1001, "has 1001 characters"),
        ("", "has 0 characters"),
        (" \t\n ", "holds only white space"),
        ("a\0b c", "holds a control character"),
        ("esc \x1b[31m", "holds a control character"),
    ],
)
def test_another_prompt_is_refused(api: Api, prompt: str, what: str) -> None:
    """Too short, too long, blank, or with control characters."""
    error = refused(api.http.post("/generate", data=form(prompt=prompt)), 400)
    assert error.startswith(f"prompt: {what}")
    assert "3 to 1000 characters" in error


def test_a_missing_prompt_is_refused_by_name(api: Api) -> None:
    """It is the one field besides the consent that has no default."""
    error = refused(api.http.post("/generate", data=form(prompt=None)), 400)
    assert error.startswith("prompt: is required")


def test_text_that_is_not_utf8_is_refused(api: Api) -> None:
    """It is not read as another encoding."""
    error = refused(
        api.http.post(
            "/generate",
            content=b"prompt=%ff%fe%fa&lawful_use_consent=true",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ),
        400,
    )
    assert error == "prompt: is not valid UTF-8 text"


@pytest.mark.parametrize("word", ["true", "TRUE", "1", "on", "Yes"])
def test_words_for_true(api: Api, word: str) -> None:
    """What forms, curl and Python send."""
    api.http.post("/generate", data=form(low_vram=word, lawful_use_consent=word))
    assert api.jobs.last.spec is not None
    assert api.jobs.last.spec.low_vram is True


@pytest.mark.parametrize("word", ["false", "False", "0", "OFF", "no"])
def test_words_for_false(api: Api, word: str) -> None:
    """What forms, curl and Python send."""
    api.http.post("/generate", data=form(low_vram=word))
    assert api.jobs.last.spec is not None
    assert api.jobs.last.spec.low_vram is False


@pytest.mark.parametrize("word", ["maybe", "", "2", "truee", "t"])
def test_another_word_is_no_boolean(api: Api, word: str) -> None:
    """The sentence lists the words."""
    error = refused(api.http.post("/generate", data=form(low_vram=word)), 400)
    assert error.startswith("low_vram: ")
    assert "true, 1, on, yes, false, 0, off, no" in error


def test_an_unknown_field_is_refused_by_name(api: Api) -> None:
    """A misspelt field would otherwise change nothing and say nothing."""
    error = refused(api.http.post("/generate", data=form(num_frame=48)), 400)
    assert "'num_frame'" in error
    assert "num_frames" in error


def test_a_repeated_field_is_refused(api: Api) -> None:
    """Which of the two would be meant?"""
    body = b"prompt=a+red+ball&fps=24&fps=30&lawful_use_consent=true"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    error = refused(api.http.post("/generate", content=body, headers=headers), 400)
    assert error == "fps: is sent more than once"


@pytest.mark.parametrize("scale", ["0.9", "20.1", "nan", "inf", "1e999", "4,5", "x"])
def test_the_guidance_scale_is_a_number_from_1_to_20(api: Api, scale: str) -> None:
    """Fractions are fine, other texts are not."""
    assert refused(api.http.post("/generate", data=form(guidance_scale=scale)), 400).startswith(
        "guidance_scale: "
    )
    assert api.http.post("/generate", data=form(guidance_scale="4.5")).status_code == 200


def test_an_unknown_quality_is_refused_with_the_known_ones(api: Api) -> None:
    """And a known one that the model lacks in the model's words."""
    unknown = api.http.post("/generate", data=form(quality="best"))
    assert "exact or fast or draft" in refused(unknown, 400)
    assert refused(api.http.post("/generate", data=form(quality="draft")), 400).startswith(
        "quality: mochi has no draft mode"
    )


# --- backends ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "auto", "mochi"])
def test_a_configured_backend_serves(api: Api, name: str) -> None:
    """Empty and `auto` mean any."""
    answer = api.http.post("/generate", data=form(prefer_backend=name))
    assert answer.json()["backend"] == "mochi"


def test_a_backend_of_the_api_reference_that_is_not_configured_is_unavailable(api: Api) -> None:
    """503, because the operator could configure it."""
    error = refused(api.http.post("/generate", data=form(prefer_backend="opensora")), 503)
    assert "opensora is not configured here; there is mochi" in error


def test_an_unknown_backend_is_refused_with_what_there_is(api: Api) -> None:
    """400, because no configuration would help."""
    error = refused(api.http.post("/generate", data=form(prefer_backend="wan")), 400)
    assert error.startswith("prefer_backend: 'wan' is unknown")
    assert "configured here: mochi" in error


def test_more_frames_than_mochi_makes_are_refused_with_its_number(api: Api) -> None:
    """163 is the model's limit, 240 the API's."""
    assert api.http.post("/generate", data=form(num_frames=163)).status_code == 200
    error = refused(api.http.post("/generate", data=form(num_frames=164)), 400)
    assert error == "num_frames: 164 frames: mochi makes at most 163"


def test_a_text_field_must_not_be_a_file(api: Api) -> None:
    """`curl -F prompt=@file` is a slip."""
    answer = api.http.post(
        "/generate", data=form(prompt=None), files={"prompt": ("p.txt", b"a red ball")}
    )
    assert refused(answer, 400) == "prompt: must be a text field, not a file"


# --- consent -------------------------------------------------------------------------------


@pytest.mark.parametrize("consent", [None, "false", "0", "no", "OFF"])
def test_without_consent_nothing_is_made(api: Api, consent: str | None) -> None:
    """Missing and false are the same 403."""
    answer = api.http.post("/generate", data=form(lawful_use_consent=consent))
    assert refused(answer, 403).startswith("lawful_use_consent: ")
    assert not api.jobs.jobs


def test_a_missing_consent_wins_over_every_other_error(api: Api) -> None:
    """The user learns of it first."""
    wrong = {"fps": "x", "prompt": "", "nonsense": 1, "prefer_backend": "opensora"}
    refused(api.http.post("/generate", data=form(lawful_use_consent=None, **wrong)), 403)
    refused(api.http.post("/generate", data=form(lawful_use_consent="no", **wrong)), 403)
    refused(api.http.post("/generate"), 403)


@pytest.mark.parametrize("consent", ["maybe", "", "tru", "null"])
def test_a_consent_that_cannot_be_read_is_a_400(api: Api, consent: str) -> None:
    """It is neither yes nor no."""
    answer = api.http.post("/generate", data=form(lawful_use_consent=consent))
    assert refused(answer, 400).startswith("lawful_use_consent: ")


# --- bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"prompt": "a red ball"}', "application/json"),
        (b"prompt=a", None),
        (b"prompt=a", "text/plain"),
        (b"", "application/json"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\nno name\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (b"anything", "multipart/form-data"),
        (b"", "multipart/form-data; boundary=x"),
        (b"a=1&" * 200, "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_is_no_form_is_refused(
    api: Api, content: bytes, content_type: str | None
) -> None:
    """JSON, cut-off multipart, nothing at all, or a hundred fields."""
    headers = {"Content-Type": content_type} if content_type else {}
    error = refused(api.http.post("/generate", content=content, headers=headers), 400)
    assert error.startswith("body: ")


def test_a_body_that_says_it_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    """Its Content-Length is looked at first."""
    with open_api(tmp_path, limits={"max_upload_mb": 1}) as api:
        headers = {"Content-Length": str(2**20 + 1)}
        error = refused(api.http.post("/generate", content=b"", headers=headers), 413)
        assert error == "body: larger than the 1 MiB allowed."


def test_a_body_that_grows_too_large_is_refused(tmp_path: Path) -> None:
    """A chunked body has no Content-Length: bytes are counted."""
    with open_api(tmp_path, limits={"max_upload_mb": 1}) as api:
        chunks = (b"x" * 2**16 for _ in range(20))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        refused(api.http.post("/generate", content=chunks, headers=headers), 413)


# --- refusals and failures of the service --------------------------------------------------


def test_a_full_queue_says_when_to_come_back(api: Api) -> None:
    """429 with `Retry-After`."""
    api.jobs.refuse = QueueFull(100, 60)
    answer = api.http.post("/generate", data=form())
    assert "The queue is full (100 jobs wait)" in refused(answer, 429)
    assert answer.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            InsufficientVram("mochi", 6.0, 4.2),
            "Insufficient VRAM: mochi needs ~6.0GB, but only 4.2GB available.",
        ),
        (BackendUnavailable("mochi is still loading"), "mochi is still loading"),
        (InsufficientDisk(500, 3), "Insufficient disk space: a video needs ~500MB"),
    ],
)
def test_what_cannot_be_served_now_is_a_503(api: Api, error: Exception, sentence: str) -> None:
    """In the sentences of the API reference."""
    api.jobs.refuse = error  # type: ignore[assignment]
    assert refused(api.http.post("/generate", data=form()), 503).startswith(sentence)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("generation_failed", 500),
        ("encoding_failed", 500),
        ("interrupted", 500),
        ("cancelled", 500),
        ("insufficient_vram", 503),
        ("insufficient_disk", 503),
        ("backend_unavailable", 503),
    ],
)
def test_a_failed_job_is_told_with_the_status_of_its_error(
    api: Api, code: str, status: int
) -> None:
    """The row holds the code and the sentence."""

    def fail(job_id: str) -> None:
        ScriptedJobs.fail(api.jobs, job_id, code, "It went wrong.")

    api.jobs.finish = fail  # type: ignore[method-assign]
    assert refused(api.http.post("/generate", data=form()), status) == "It went wrong."


def test_an_unexpected_error_shows_no_traceback(api: Api) -> None:
    """Only an id under which the log has the cause."""
    api.jobs.refuse = ZeroDivisionError("/secret/path")  # type: ignore[assignment]
    answer = api.http.post("/generate", data=form(), headers={"X-Request-ID": "abc-1"})
    error = refused(answer, 500)
    assert "abc-1" in error
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


# --- waiting, leaving, not waiting ---------------------------------------------------------


def test_respond_async_answers_at_once(api: Api) -> None:
    """202, and where to look; the video is made without a waiting client."""
    api.jobs.hold = True
    answer = api.http.post(
        "/generate", data=form(), headers={"Prefer": "wait=5, Respond-Async; x=1"}
    )
    assert answer.status_code == 202
    body = answer.json()
    url = f"/v1/videos/{api.jobs.last.id}"
    assert body == {
        "success": True,
        "job_id": api.jobs.last.id,
        "status_url": url,
        "video_url": None,
        "error": None,
    }
    assert answer.headers["location"] == url
    assert answer.headers["preference-applied"] == "respond-async"
    assert not api.jobs.cancelled


def test_respond_async_refuses_like_the_other_way(api: Api) -> None:
    """The same checks stand before both."""
    answer = api.http.post("/generate", data=form(fps=0), headers={"Prefer": "respond-async"})
    refused(answer, 400)


async def post_and_leave(
    app: Any,
    jobs: ScriptedJobs,
    *,
    by_cancel: bool,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> list[str]:
    """Post a form as a server would, and go away once the job runs; returns what was sent back."""
    body = b"prompt=a+red+ball&lawful_use_consent=true"
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/generate",
        "raw_path": b"/generate",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"application/x-www-form-urlencoded"),
            *headers,
        ],
    }
    sent: list[str] = []
    left = asyncio.Event()
    bodies = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        if message := next(bodies, None):
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async with app.router.lifespan_context(app):
        handling = asyncio.create_task(app(scope, receive, send))
        while not jobs.running:
            await asyncio.sleep(0.001)
        if by_cancel:
            handling.cancel()
        else:
            left.set()
        await asyncio.gather(handling, return_exceptions=True)
        assert handling.cancelled() == by_cancel
    return sent


@pytest.mark.parametrize("by_cancel", [False, True], ids=["disconnect", "cancelled by the server"])
def test_a_client_that_leaves_cancels_its_job(tmp_path: Path, by_cancel: bool) -> None:
    """Plain servers send a disconnect, Ray Serve cancels the handler; both stop the work."""
    config = service_config(tmp_path)
    jobs = ScriptedJobs(config)
    jobs.hold = True
    app = create_app(jobs, config, [MOCHI])
    assert asyncio.run(post_and_leave(app, jobs, by_cancel=by_cancel)) == []
    assert jobs.cancelled == [jobs.last.id]
    assert jobs.last.error_code == "cancelled"


def test_a_broken_connection_cancels_the_job_within_half_a_second(tmp_path: Path) -> None:
    """Over a real socket."""
    config = service_config(tmp_path)
    jobs = ScriptedJobs(config)
    jobs.hold = True
    with served(create_app(jobs, config, [MOCHI])) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            body = b"prompt=a+red+ball&lawful_use_consent=true"
            client.sendall(
                b"POST /generate HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            wait_until(lambda: bool(jobs.running))
        left = time.monotonic()
        wait_until(lambda: bool(jobs.cancelled))
        assert time.monotonic() - left < 0.5


def test_a_too_large_upload_is_answered_over_a_real_socket(tmp_path: Path) -> None:
    """The client gets to read the 413 although it was still sending."""
    config = service_config(tmp_path, limits={"max_upload_mb": 1})
    with served(create_app(ScriptedJobs(config), config, [MOCHI])) as url:
        answer = requests.post(
            f"{url}/generate", data=form(), files={"image": ("a.png", b"x" * 8 * 2**20)}, timeout=20
        )
    refused(answer, 413)


def wait_until(happened: Any) -> None:
    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(
    "prompt",
    [
        "<script>alert(1)</script>",
        "'; DROP TABLE jobs; --",
        "../../../etc/passwd",
        "{{7*7}} ${jndi:ldap://x}",
        "%s%n%00",
        "\u202eevil\u202c",
        "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L",
        "\ufeffcat\u2028dog",
    ],
)
def test_a_hostile_prompt_is_only_text(api: Api, prompt: str) -> None:
    """It is stored and echoed as data, and as JSON."""
    answer = api.http.post("/generate", data=form(prompt=prompt), headers={"Prefer": ""})
    assert answer.status_code == 200
    shown = api.http.get(f"/v1/videos/{answer.json()['job_id']}")
    assert json.loads(shown.content)["prompt"] == prompt
    assert shown.headers["content-type"] == "application/json"
