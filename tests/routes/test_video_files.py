"""What can be done with a video that is there: list, fetch, remix, extend, delete."""

import io
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from PIL import Image

from tests.routes.test_video_create import AGREED, create, multipart
from tests.routes.test_videos import openai_error
from tests.scripted_jobs import (
    FILE_NAME,
    MOCHI,
    OPENSORA,
    POSTER,
    SHEET,
    VIDEO,
    Api,
    open_api,
    replica,
)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with open_api(tmp_path, cards=[MOCHI, OPENSORA]) as opened:
        yield opened


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Eleven red frames and a blue one, 256 x 320."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    source = "color=red:size=256x320:rate=12:duration=1,drawbox=c=blue:t=fill:enable='eq(n,11)'"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi", "-i", source]
    subprocess.run([*command, "-pix_fmt", "yuv420p", path], check=True)
    return path.read_bytes()


def make(api: Api, **fields: Any) -> str:
    answer = create(api, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


# --- list --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_the_videos_are_listed_page_by_page(api: Api, order: str) -> None:
    """`after` takes the `last_id` of the page before."""
    ids = [make(api) for _ in range(5)]
    seen, params = [], {"limit": "2", "order": order}
    for expected in (2, 2, 1):
        page = api.http.get("/v1/videos", params=params).json()
        found = [video["id"] for video in page["data"]]
        assert page["object"] == "list"
        assert (page["first_id"], page["last_id"]) == (found[0], found[-1])
        assert (len(found), page["has_more"]) == (expected, expected == 2)
        seen += found
        params["after"] = page["last_id"]
    assert seen == (ids[::-1] if order == "desc" else ids)


def test_an_empty_list_has_no_ids(api: Api) -> None:
    """And the newest come first when nobody says otherwise."""
    empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert api.http.get("/v1/videos").json() == {**empty, "last_event_id": "0"}
    ids = [make(api) for _ in range(2)]
    assert [video["id"] for video in api.http.get("/v1/videos").json()["data"]] == ids[::-1]


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("order=up", "order"), ("after=x", "after")],
)
def test_a_list_that_cannot_be_is_refused(api: Api, query: str, param: str) -> None:
    """By the name of the parameter."""
    error = openai_error(api.http.get(f"/v1/videos?{query}"), 400, "invalid_request")
    assert error["param"] == param


# --- content -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "media_type", "data", "ending"),
    [
        ("video", "video/mp4", VIDEO, "mp4"),
        ("thumbnail", "image/webp", POSTER, "webp"),
        ("spritesheet", "image/jpeg", SHEET, "jpg"),
    ],
)
def test_each_variant_is_a_file_of_its_own(
    api: Api, variant: str, media_type: str, data: bytes, ending: str
) -> None:
    """With a length, a tag, and a name under which it is saved; whole or in parts."""
    url = f"/v1/videos/{make(api)}/content?variant={variant}"
    answer = api.http.get(url, headers={"Accept": "application/binary"})
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["accept-ranges"] == "bytes"
    name = FILE_NAME.replace("mp4", ending)
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert api.http.get(url, headers={"Range": "bytes=2-5"}).content == data[2:6]
    unchanged = {"If-None-Match": answer.headers["etag"]}
    assert api.http.get(url, headers=unchanged).status_code == 304


def test_a_video_without_a_variant_is_the_video(api: Api) -> None:
    """As OpenAI has it."""
    assert api.http.get(f"/v1/videos/{make(api)}/content").content == VIDEO


def with_picture(api: Api) -> str:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "PNG")
    answer = api.http.post(
        "/v1/videos",
        data={"prompt": "it moves", "size": "256x320"},
        files={"input_reference": ("a.png", file.getvalue())},
        headers=AGREED,
    )
    return str(answer.json()["id"])


@pytest.mark.parametrize("kept", [True, False])
def test_the_picture_that_a_video_began_with(api: Api, clip: bytes, *, kept: bool) -> None:
    """As it was kept; of a video that was made when pictures were not, its first frame."""
    api.jobs.video = clip
    source = with_picture(api)
    if not kept:
        api.jobs.pictures.clear()
    answer = api.http.get(f"/v1/videos/{source}/content?variant=picture")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    if kept:
        assert answer.content == api.jobs.images[0]
    else:
        with Image.open(io.BytesIO(answer.content)) as shown:
            assert shown.getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=3)


def test_a_video_that_began_without_a_picture_has_none(api: Api) -> None:
    """Which is a 404 of its own."""
    answer = api.http.get(f"/v1/videos/{make(api)}/content?variant=picture")
    assert "without a picture" in openai_error(answer, 404, "not_found")["message"]


def test_an_unknown_variant_is_refused(api: Api) -> None:
    """By name."""
    answer = api.http.get(f"/v1/videos/{make(api)}/content?variant=gif")
    assert openai_error(answer, 400, "invalid_request")["param"] == "variant"


def test_a_video_that_is_not_ready_has_no_file_yet(api: Api) -> None:
    """A 404: a 409 would be asked for again at once."""
    api.jobs.hold = True
    video_id = make(api)
    url = f"/v1/videos/{video_id}/content"
    assert "in_progress, at 40 %" in openai_error(api.http.get(url), 404, "not_ready")["message"]
    api.jobs.fail(video_id, "generation_failed", "The model ran out of paint.")
    assert "out of paint" in openai_error(api.http.get(url), 404, "not_found")["message"]
    openai_error(api.http.get("/v1/videos/none/content"), 404, "not_found")


def test_a_picture_that_an_older_version_did_not_make_is_missing(api: Api, tmp_path: Path) -> None:
    """The video is still there."""
    video_id = make(api)
    (tmp_path / "outputs/.previews" / FILE_NAME.replace("mp4", "webp")).unlink()
    answer = api.http.get(f"/v1/videos/{video_id}/content?variant=thumbnail")
    openai_error(answer, 404, "not_found")


# --- delete ------------------------------------------------------------------------------


def test_a_deleted_video_is_gone(api: Api) -> None:
    """The official client sends a Content-Type and no body."""
    video_id = make(api)
    headers = {"Content-Type": "application/json"}
    answer = api.http.delete(f"/v1/videos/{video_id}", headers=headers)
    assert answer.json() == {"id": video_id, "object": "video.deleted", "deleted": True}
    for path in ("", "/content"):
        openai_error(api.http.get(f"/v1/videos/{video_id}{path}"), 404, "not_found")
    openai_error(api.http.delete(f"/v1/videos/{video_id}"), 404, "not_found")


def test_a_deletion_waits_until_the_model_is_idle(api: Api) -> None:
    """A video in the making is cancelled first."""
    api.jobs.hold = True
    video_id = make(api)
    busy = replica().model_copy(update={"job_id": video_id})
    api.jobs.replicas = (busy,)
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(api.http.delete(f"/v1/videos/{video_id}"))
    )
    thread.start()
    time.sleep(0.4)
    assert api.jobs.cancelled == [video_id]
    assert not answers
    api.jobs.replicas = (replica(),)
    thread.join(5)
    assert answers[0].json()["deleted"] is True


# --- remix -------------------------------------------------------------------------------


def test_a_remix_has_the_same_recipe_and_another_prompt(api: Api) -> None:
    """Model, size, length, seed and settings; also those that were the model's own."""
    source = make(api, size="512x256", num_frames=200, fps=12, seed=7, negative_prompt="text")
    answer = api.http.post(
        f"/v1/videos/{source}/remix", json={"prompt": "a blue square"}, headers=AGREED
    )
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert (video["prompt"], video["remixed_from_video_id"]) == ("a blue square", source)
    first, second = api.jobs.requests
    assert second == first.model_copy(
        update={
            "prompt": "a blue square",
            "prefer_backend": "opensora",
            "num_inference_steps": OPENSORA.num_inference_steps,
            "guidance_scale": OPENSORA.guidance_scale,
        }
    )


@pytest.mark.parametrize("kept", [True, False])
def test_a_remix_of_a_picture_begins_with_it(api: Api, clip: bytes, *, kept: bool) -> None:
    """With the very same pixels; of a video that was made when pictures were not kept, with its
    first frame."""
    api.jobs.video = clip
    source = with_picture(api)
    if not kept:
        api.jobs.pictures.clear()
    answer = api.http.post(
        f"/v1/videos/{source}/remix", json={"prompt": "it turns"}, headers=AGREED
    )
    assert answer.status_code == 200, answer.text
    first, again = api.jobs.images
    assert first is not None
    assert again is not None
    if kept:
        with Image.open(io.BytesIO(first)) as one, Image.open(io.BytesIO(again)) as other:
            assert (other.mode, other.tobytes()) == (one.mode, one.tobytes())
    else:
        assert colour(again) == "red"


def colour(image: bytes | None) -> str:
    assert image is not None
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.size == (256, 320)
        red, _, blue = opened.convert("RGB").resize((1, 1)).getpixel((0, 0))
        return "red" if red > blue else "blue"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"prompt": "ab"}, 400, "invalid_request"),
        ({"prompt": "a ball", "seed": 1}, 400, "invalid_request"),
        ({"prompt": "a ball", "lawful_use_consent": False}, 403, "consent_required"),
    ],
)
def test_a_remix_takes_a_prompt_and_nothing_else(
    api: Api, body: dict[str, Any], status: int, code: str
) -> None:
    """Same recipe is what the word means."""
    source = make(api)
    answer = api.http.post(f"/v1/videos/{source}/remix", json=body, headers=AGREED)
    openai_error(answer, status, code)


def test_only_a_completed_video_is_remixed(api: Api) -> None:
    """A 404 that says how far it is."""
    api.jobs.hold = True
    source = make(api)
    for video_id, code in ((source, "not_ready"), ("video_none", "not_found")):
        answer = api.http.post(
            f"/v1/videos/{video_id}/remix", json={"prompt": "a ball"}, headers=AGREED
        )
        openai_error(answer, 404, code)


# --- extensions --------------------------------------------------------------------------


def extend(api: Api, clip: bytes | None = None, **fields: Any) -> Any:
    fields = {"prompt": "it goes on"} | fields
    files: Any = multipart(fields)
    if clip is not None:
        files["video"] = ("clip.mp4", clip, "video/mp4")
    return api.http.post("/v1/videos/extensions", files=files, headers=AGREED)


def test_a_file_goes_on_from_its_last_frame(api: Api, clip: bytes) -> None:
    """At its own size, on the model that takes pictures."""
    answer = extend(api, clip, seconds="1")
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert (video["model"], video["size"], video["seconds"]) == ("opensora", "256x320", "1")
    assert colour(api.jobs.images[-1]) == "blue"


def test_a_video_of_here_goes_on_by_its_id(api: Api, clip: bytes) -> None:
    """At its size and frame rate; in a form and as JSON."""
    api.jobs.video = clip
    source = make(api, size="256x320", num_frames=12, fps=12)
    answers = [
        extend(api, **{"video[id]": source}),
        api.http.post(
            "/v1/videos/extensions",
            json={"prompt": "it goes on", "video": {"id": source}},
            headers=AGREED,
        ),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        video = answer.json()
        assert (video["size"], video["fps"], video["seconds"]) == ("256x320", 12, "4")
    assert colour(api.jobs.images[-1]) == "blue"


@pytest.mark.parametrize(
    ("clip_of", "fields", "words"),
    [
        (None, {}, "is required: an MP4 file, or video[id]"),
        (b"not a video", {}, "is not an MP4 file"),
        (b"\0\0\0\x18ftypisom" + b"x" * 99, {}, "damaged"),
        (None, {"video": "text"}, "must be an MP4 file, not text"),
        (b"\0\0\0\x18ftypisom", {"video[id]": "x"}, "is sent twice"),
    ],
)
def test_what_cannot_be_extended_is_refused(
    api: Api, clip_of: bytes | None, fields: dict[str, str], words: str
) -> None:
    """By name."""
    error = openai_error(extend(api, clip_of, **fields), 400, "invalid_request")
    assert error["param"] == "video"
    assert words in error["message"]


def test_a_file_of_a_size_that_is_not_made_needs_another_one(
    api: Api, clip: bytes, tmp_path: Path
) -> None:
    """Nothing is rounded in silence."""
    (tmp_path / "clip.mp4").write_bytes(clip)
    odd = tmp_path / "odd.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", tmp_path / "clip.mp4"]
    subprocess.run([*command, "-vf", "crop=250:300", odd], check=True)
    error = openai_error(extend(api, odd.read_bytes()), 400, "invalid_request")
    assert (error["param"], "250x300" in error["message"]) == ("video", True)
    assert extend(api, odd.read_bytes(), size="256x320").status_code == 200


# --- what is not here --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/videos/edits"),
        ("POST", "/v1/videos/characters"),
        ("GET", "/v1/videos/characters/char_1"),
    ],
)
def test_what_no_model_here_can_do_is_told_apart(api: Api, method: str, path: str) -> None:
    """From a slip in the address."""
    error = openai_error(api.http.request(method, path), 400, "unsupported_operation")
    assert path in error["message"]


def test_a_model_is_found_by_its_name(api: Api) -> None:
    """With what this door takes and uses, as data."""
    model = api.http.get("/v1/models/opensora").json()
    assert model == api.http.get("/v1/models").json()["data"][1]
    defaults = {"seconds": "4", "size": "720x1280", "fps": 24, "quality": "exact"}
    assert model["videos"]["defaults"] == defaults
    limits = model["videos"]["limits"]
    assert limits["height"] == {"minimum": 256, "maximum": 1920, "multiple_of": 8}
    assert limits["area"]["maximum"] == 1920 * 1080
    assert limits["seconds"]["maximum"] == 10
    error = openai_error(api.http.get("/v1/models/sora-2"), 404, "not_found")
    assert "mochi, opensora" in error["message"]
