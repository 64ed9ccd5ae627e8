"""`POST /generate` with a picture, and with more than one model to choose from."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deployments.core import images
from tests.routes.test_generate import refused
from tests.scripted_jobs import MOCHI, OPENSORA, Api, form, open_api


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Api]:
    """The application with mochi, which is preferred, and opensora."""
    with open_api(tmp_path, cards=[MOCHI, OPENSORA]) as opened:
        yield opened


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 128).save(file, kind)
    return file.getvalue()


def post_image(api: Api, image: Any, **fields: object) -> Any:
    """Post a form with the file `image`: (name, content)."""
    parts = {name: (None, value) for name, value in form(**fields).items()} | {"image": image}
    return api.http.post("/generate", files=parts)


@pytest.mark.parametrize(
    ("fields", "backend", "routing", "segments"),
    [
        ({"prefer_backend": "mochi"}, "mochi", "prefer_backend", 1),
        ({"prefer_backend": "opensora"}, "opensora", "prefer_backend", 1),
        ({"num_frames": 164}, "opensora", "164 frames: more than mochi's 163", 2),
        ({"num_frames": 240}, "opensora", "240 frames: more than mochi's 163", 2),
    ],
)
def test_the_answer_says_which_model_made_it_and_why(
    both: Api, fields: dict[str, object], backend: str, routing: str, segments: int
) -> None:
    """And in how many pieces."""
    answer = both.http.post("/generate", data=form(**fields)).json()
    assert (answer["backend"], answer["routing"]) == (backend, routing)
    assert (answer["segments"], answer["frames"]) == (segments, fields.get("num_frames", 64))


def test_a_refusal_names_the_model_that_can(both: Api) -> None:
    """The user need not read /v1/models."""
    fields = form(num_frames=240, prefer_backend="mochi")
    error = refused(both.http.post("/generate", data=fields), 400)
    assert error == ("num_frames: 240 frames: mochi makes at most 163; opensora makes up to 240")
    error = refused(post_image(both, ("a.png", picture()), prefer_backend="mochi"), 400)
    assert error == (
        "image: mochi makes videos from text only; leave the image out, or take opensora"
    )


def test_an_image_is_refused_in_the_words_of_a_model_that_takes_none(api: Api) -> None:
    """Whether mochi was asked for or is all there is; nobody looks into the file."""
    for backend in ("", "mochi"):
        answer = post_image(api, ("a.png", b"not even one"), prefer_backend=backend)
        assert refused(answer, 400).startswith("image: mochi makes videos from text only")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_reaches_a_model_that_takes_one(both: Api, kind: str) -> None:
    """As a PNG, whatever came; its name goes nowhere."""
    answer = post_image(both, ("../../etc/passwd.png", picture(kind, mode="L")))
    assert answer.json()["backend"] == "opensora"
    assert answer.json()["routing"] == "image given: opensora makes videos from images"
    [image] = both.jobs.images
    assert image is not None
    with Image.open(io.BytesIO(image)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGB", (40, 30))
    assert both.jobs.last.spec is not None
    assert both.jobs.last.spec.conditioned
    assert "passwd" not in answer.text


def test_a_file_field_left_empty_is_no_image(both: Api) -> None:
    """A browser sends it for an input without a choice."""
    assert post_image(both, ("", b"")).json()["backend"] == "mochi"
    assert both.jobs.images == [None]


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (("a.png", b"GIF89a....."), "is a GIF picture; send a JPEG, PNG or WebP file"),
        (("a.png", b"hello"), "is neither JPEG, PNG nor WebP; send"),
        (("a.png", b""), "the file is empty; send a JPEG, PNG or WebP file"),
        ((None, b"abc"), "must be a JPEG, PNG or WebP file, not text"),
        (("a.png", picture()[:60]), "begins like a PNG file but is damaged or cut off"),
        (("a.png", picture(size=(8, 8))), "is 8 x 8 pixels; at least 16"),
        (("a.png", picture(size=(1001, 1000), mode="1")), "is 1001 x 1000 pixels; at most 1 mega"),
    ],
)
def test_an_image_must_be_a_picture_that_can_be_used(
    tmp_path: Path, image: tuple[str | None, bytes], what: str
) -> None:
    """By its content, not by what the client calls it; nothing of it reaches the queue."""
    with open_api(tmp_path, cards=[OPENSORA], limits={"max_image_megapixels": 1}) as api:
        assert refused(post_image(api, image), 400).startswith(f"image: {what}")
        assert not api.jobs.jobs


def test_a_large_image_does_not_hold_up_the_others(
    both: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is decoded on a thread of its own, one after the other; the rest is answered meanwhile."""
    decoding = threading.Event()
    read_all = threading.Event()
    at_once: list[int] = []
    real = images.normalise

    def slow(data: bytes, most: float) -> bytes:
        at_once.append(threading.active_count())
        decoding.set()
        read_all.wait(5)
        return real(data, most)

    monkeypatch.setattr(images, "normalise", slow)
    answers: list[Any] = []
    posting = [
        threading.Thread(target=lambda: answers.append(post_image(both, ("a.png", picture()))))
        for _ in range(2)
    ]
    for thread in posting:
        thread.start()
    assert decoding.wait(5)
    assert both.http.get("/health").status_code == 200
    assert len(at_once) == 1
    read_all.set()
    for thread in posting:
        thread.join(10)
    assert [answer.status_code for answer in answers] == [200, 200]
