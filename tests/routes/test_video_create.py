"""`POST /v1/videos`: OpenAI's fields and those that other engines share, in a form or as JSON."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deployments.core.errors import InsufficientVram, QueueFull
from tests.routes.test_videos import OPENAI_KEYS, openai_error
from tests.scripted_jobs import MOCHI, OPENSORA, Api, open_api

AGREED = {"X-Lawful-Use-Consent": "true"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with open_api(tmp_path, cards=[MOCHI, OPENSORA]) as opened:
        yield opened


def picture(kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(file, kind)
    return file.getvalue()


def data_url() -> str:
    return "data:image/png;base64," + base64.b64encode(picture()).decode()


def multipart(fields: dict[str, Any]) -> dict[str, tuple[None, str]]:
    """Parts without a file, as the official client always sends them."""
    return {name: (None, str(value)) for name, value in fields.items()}


def create(api: Api, **fields: Any) -> Any:
    fields = {"prompt": "a red ball"} | fields
    return api.http.post("/v1/videos", files=multipart(fields), headers=AGREED)


def create_json(api: Api, **fields: Any) -> Any:
    return api.http.post("/v1/videos", json={"prompt": "a red ball"} | fields, headers=AGREED)


def test_a_prompt_alone_is_enough(api: Api) -> None:
    """Four seconds at 24 frames a second, upright; the answer is the video object."""
    api.jobs.hold = True
    answer = create(api)
    assert answer.status_code == 200
    video = answer.json()
    assert set(video) >= OPENAI_KEYS
    assert (video["object"], video["status"]) == ("video", "in_progress")
    assert (video["seconds"], video["size"]) == ("4", "720x1280")
    assert (video["num_frames"], video["fps"], video["prompt"]) == (96, 24, "a red ball")
    assert api.http.get(f"/v1/videos/{video['id']}").json() == video


@pytest.mark.parametrize("send", [create, create_json])
def test_every_field_arrives(api: Api, send: Any) -> None:
    """The same in a form and as JSON, whose numbers are numbers."""
    fields = {
        "prompt": "a red ball\nover the sea – 🌊",
        "negative_prompt": "text",
        "width": 512,
        "height": 256,
        "num_frames": 48,
        "fps": 12,
        "seed": 0,
        "num_inference_steps": 30,
        "guidance_scale": 4.5,
    }
    answer = send(api, model="opensora", low_vram=True, quality="exact", **fields)
    assert answer.status_code == 200, answer.text
    [request] = api.jobs.requests
    assert request.model_dump(include=set(fields)) == fields
    assert (request.prefer_backend, request.low_vram) == ("opensora", True)
    told = answer.json()
    assert {name: told[name] for name in fields} == fields
    assert (told["quality"], told["low_vram"], told["has_image"]) == ("exact", True, False)


@pytest.mark.parametrize("size", ["720x1280", "1280x720", "1024x1792", "1792x1024"])
def test_the_four_sizes_of_the_official_client_are_made(api: Api, size: str) -> None:
    """Exactly."""
    answer = create(api, size=size)
    assert (answer.status_code, answer.json()["size"]) == (200, size)


@pytest.mark.parametrize(
    ("fields", "frames", "fps", "seconds"),
    [
        ({"seconds": "4"}, 96, 24, "4"),
        ({"seconds": "8"}, 192, 24, "8"),
        ({"seconds": "12", "fps": 20}, 240, 20, "12"),
        ({"seconds": "2.5"}, 60, 24, "2.5"),
        ({"seconds": "2.67"}, 64, 24, "2.67"),
        ({"num_frames": 64}, 64, 24, "2.67"),
        ({"num_frames": 64, "seconds": "2.67"}, 64, 24, "2.67"),
        ({"fps": 60}, 240, 60, "4"),
        ({"seconds": ""}, 96, 24, "4"),
    ],
)
def test_a_length_is_kept(
    api: Api, fields: dict[str, Any], frames: int, fps: int, seconds: str
) -> None:
    """To the frame; what an answer says may be sent again."""
    video = create(api, **fields).json()
    assert (video["num_frames"], video["fps"], video["seconds"]) == (frames, fps, seconds)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"seconds": "12"}, "seconds", "288 frames; at most 240 are made, the highest fps that"),
        ({"seconds": "12"}, "seconds", "fits is 20"),
        ({"seconds": "999"}, "seconds", "at most 240 s at 1 fps"),
        ({"seconds": "4", "num_frames": 48}, "seconds", "48 frames at 24 fps last 2 seconds"),
        ({"seconds": "2.51"}, "seconds", "the nearest are num_frames 60 and 61"),
        ({"seconds": "0.25"}, "seconds", "is 6 frames; at least 8"),
        ({"seconds": "four"}, "seconds", "send a decimal number"),
        ({"seconds": "-4"}, "seconds", "send a decimal number"),
        ({"seconds": "1e1"}, "seconds", "send a decimal number"),
        ({"seconds": "0"}, "seconds", "send a decimal number"),
        ({"size": "large"}, "size", "is not WIDTHxHEIGHT"),
        ({"size": "724x1280"}, "size", "724 is not a multiple of 8; the nearest are 720 and 728"),
        ({"size": "1920x1920"}, "size", "more than 2073600 pixels"),
        ({"size": "128x128"}, "size", "each side has to be 256 to 1920"),
        ({"size": "512x512", "width": 256}, "width", "send one"),
        ({"width": 300}, "width", "300 is not a multiple of 8"),
        ({"width": 1920, "height": 1088}, "width", "more than 2073600 pixels"),
        ({"num_frames": 7}, "num_frames", "7 is less than 8"),
        ({"num_frames": 241}, "num_frames", "241 is more than 240"),
        ({"fps": "24.0"}, "fps", "is not a whole number"),
        ({"model": "gpt-image"}, "model", "there is mochi, opensora"),
        ({"model": "mochi", "num_frames": 200}, "num_frames", "mochi makes at most 163"),
        ({"prompt": "ab"}, "prompt", "has 2 characters"),
        ({"n": 2}, "'n'", "is not a field of this form"),
        ({"input_reference[file_id]": "file_1"}, "'input_reference[file_id]'", "is not a field"),
        ({"lawful_use_consent": "perhaps"}, "lawful_use_consent", "is not a boolean"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(
    api: Api, fields: dict[str, Any], param: str, words: str
) -> None:
    """Nothing is clamped; the error names the field and what would do."""
    error = openai_error(create(api, **fields), 400, "invalid_request")
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert not api.jobs.requests


@pytest.mark.parametrize("model", ["", "auto", "sora-2", "sora-2-pro", "sora-2-2025-10-06"])
def test_openais_models_mean_whichever_can(api: Api, model: str) -> None:
    """The answer says which one, and why."""
    assert create(api, model=model, num_frames=200).json()["model"] == "opensora"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_comes_as_a_file(api: Api, kind: str) -> None:
    """The model that takes pictures gets it, as a PNG."""
    answer = api.http.post(
        "/v1/videos",
        data={"prompt": "it moves"},
        files={"input_reference": ("a.bin", picture(kind))},
        headers=AGREED,
    )
    assert (answer.status_code, answer.json()["model"]) == (200, "opensora")
    [image] = api.jobs.images
    assert image is not None
    with Image.open(io.BytesIO(image)) as opened:
        assert (opened.format, opened.size) == ("PNG", (40, 30))


@pytest.mark.parametrize(
    "send",
    [
        lambda api: create(api, **{"input_reference[image_url]": data_url()}),
        lambda api: create(api, input_reference=data_url()),
        lambda api: create_json(api, input_reference={"image_url": data_url()}),
        lambda api: create_json(api, input_reference=data_url()),
    ],
)
def test_a_picture_comes_as_a_data_url(api: Api, send: Any) -> None:
    """In a form as the official client flattens it, and as JSON."""
    answer = send(api)
    assert answer.status_code == 200, answer.text
    assert api.jobs.requests[0].has_image
    assert api.jobs.images[0] is not None


@pytest.mark.parametrize(
    ("send", "words"),
    [
        (
            lambda api: create(api, **{"input_reference[image_url]": "https://example.com/a.png"}),
            "fetches nothing",
        ),
        (lambda api: create(api, input_reference="data:image/png;base64,!"), "base64"),
        (lambda api: create(api, input_reference="data:,hello"), "data URL"),
        (lambda api: create(api, input_reference="data:;base64,aGVsbG8="), "neither JPEG"),
        (
            lambda api: create(
                api,
                **{"input_reference": data_url(), "input_reference[image_url]": data_url()},
            ),
            "is sent twice",
        ),
    ],
)
def test_a_picture_that_is_none_is_refused(api: Api, send: Any, words: str) -> None:
    """Under the name that this door knows it by."""
    error = openai_error(send(api), 400, "invalid_request")
    assert error["param"].startswith("input_reference")
    assert words in error["message"]


def test_a_model_without_pictures_refuses_one_under_this_doors_name(tmp_path: Path) -> None:
    """`image` is the other door's."""
    with open_api(tmp_path, cards=[MOCHI]) as api:
        error = openai_error(create(api, input_reference=data_url()), 400, "invalid_request")
    assert error["param"] == "input_reference"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[1]", "must be one JSON object"),
        (b'{"prompt": "a red ball"', "is not well-formed application/json"),
        (b'{"prompt": "a red ball", "fps": NaN}', "is not well-formed"),
        (b"[" * 10000, "is not well-formed"),
        (b'{"prompt": 12345}', "must be a string, not a number"),
        (b'{"prompt": "a red ball", "fps": "24"}', "must be a number, not a string"),
        (b'{"prompt": "a red ball", "fps": true}', "must be a number, not a boolean"),
        (b'{"prompt": "a red ball", "fps": [24]}', "must be a number, not a list"),
        (b'{"prompt": "a red ball", "prompt": "another"}', "is sent more than once"),
        (b'{"prompt": "a \\ud800 ball"}', "lone surrogate"),
        (b'{"prompt": "a red ball", "input_reference": {}}', "is an empty object"),
    ],
)
def test_json_is_taken_strictly(api: Api, body: bytes, words: str) -> None:
    """A slip would otherwise change nothing and say nothing."""
    headers = AGREED | {"Content-Type": "application/json"}
    error = openai_error(
        api.http.post("/v1/videos", content=body, headers=headers), 400, "invalid_request"
    )
    assert words in error["message"]


def test_null_in_json_counts_as_left_out(api: Api) -> None:
    """Many clients write every field."""
    answer = create_json(api, seed=None, size=None, input_reference=None, model=None, seconds=2)
    assert (answer.status_code, answer.json()["seconds"]) == (200, "2")


def test_a_body_of_another_kind_names_the_three(api: Api) -> None:
    """Among them JSON, unlike at the other door."""
    headers = AGREED | {"Content-Type": "text/plain"}
    answer = api.http.post("/v1/videos", content=b"a red ball", headers=headers)
    assert "application/json, not 'text/plain'" in openai_error(answer, 400, "invalid_request")[
        "message"
    ].replace("or ", "", 1)


# --- consent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "header", "operator", "status"),
    [
        (None, None, False, 403),
        ("true", None, False, 200),
        (None, "true", False, 200),
        (None, "YES", False, 200),
        (None, None, True, 200),
        ("false", None, True, 403),
        ("false", "true", False, 403),
        (None, "false", True, 403),
        ("true", "false", False, 200),
    ],
)
def test_somebody_has_to_agree_to_lawful_use(
    tmp_path: Path, field: str | None, header: str | None, operator: bool, status: int
) -> None:
    """The field counts before the header, the header before the operator's word."""
    fields = {"prompt": "a red ball"} | ({"lawful_use_consent": field} if field else {})
    headers = {"X-Lawful-Use-Consent": header} if header else {}
    settings = {"consent": "operator"} if operator else {}
    with open_api(tmp_path, **settings) as api:
        answer = api.http.post("/v1/videos", files=multipart(fields), headers=headers)
    assert answer.status_code == status


def test_a_missing_consent_names_the_three_ways(api: Api) -> None:
    """Before anything else is looked at."""
    answer = api.http.post("/v1/videos", files=multipart({"size": "1x1"}))
    error = openai_error(answer, 403, "consent_required")
    assert error["param"] == "lawful_use_consent"
    for way in ("lawful_use_consent=true", "X-Lawful-Use-Consent: true", "consent: operator"):
        assert way in error["message"]


def test_a_header_that_is_no_boolean_is_refused(api: Api) -> None:
    """It may have been meant either way."""
    headers = {"X-Lawful-Use-Consent": "sure"}
    answer = api.http.post("/v1/videos", files=multipart({"prompt": "a ball"}), headers=headers)
    error = openai_error(answer, 400, "invalid_request")
    assert error["param"] == "X-Lawful-Use-Consent"


def test_the_operators_word_counts_at_this_door_only(tmp_path: Path) -> None:
    """`/generate` keeps the seed's rule."""
    with open_api(tmp_path, consent="operator") as api:
        answer = api.http.post("/generate", data={"prompt": "a red ball"})
    assert answer.status_code == 403


# --- what comes back besides -------------------------------------------------------------


def test_a_full_queue_says_when_to_come_back(api: Api) -> None:
    """In the error object."""
    api.jobs.refuse = QueueFull(100, 9)
    answer = create(api)
    assert openai_error(answer, 429, "queue_full")["type"] == "rate_limit_error"
    assert answer.headers["retry-after"] == "9"


def test_too_little_gpu_memory_is_not_asked_for_again(api: Api) -> None:
    """OpenAI's clients repeat a 503 unless they are told not to; a GPU does not grow."""
    api.jobs.refuse = InsufficientVram("mochi", 6.0, 4.2)
    answer = create(api)
    assert openai_error(answer, 503, "insufficient_vram")["type"] == "server_error"
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("left_s", "poll_ms"), [(30.0, "1500"), (1.0, "500"), (3600.0, "10000"), (0.0, "500")]
)
def test_the_poll_interval_follows_from_the_time_left(
    api: Api, left_s: float, poll_ms: str
) -> None:
    """About twenty looks at a video, two a second at most; none at one that is done."""
    api.jobs.hold = True
    video_id = create(api).json()["id"]
    api.jobs.set(video_id, seconds_left=left_s)
    url = f"/v1/videos/{video_id}"
    assert api.http.get(url).headers["openai-poll-after-ms"] == poll_ms
    api.jobs.finish(video_id)
    assert "openai-poll-after-ms" not in api.http.get(url).headers


def test_both_doors_lead_to_one_queue(api: Api) -> None:
    """What `/generate` takes is listed here."""
    form = {"prompt": "a red ball", "lawful_use_consent": "true"}
    made = api.http.post("/generate", data=form).json()["job_id"]
    created = create(api).json()["id"]
    listed = [video["id"] for video in api.http.get("/v1/videos").json()["data"]]
    assert listed == [created, made]
