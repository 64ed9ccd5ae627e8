"""What the official `openai` client does with a server: run by its own Python, not by pytest.

    python official_client.py URL pass       every call, and the errors 400, 401, 403, 404 and 429
    python official_client.py URL refused    a create that meets a full queue
    python official_client.py URL keys KEY   calls without a key, with a wrong one and with KEY
    python official_client.py URL series N   N creates of the same contents, one after the other,
                                             each with the client's own repetitions

Ends with a line of JSON about what it saw.
"""

import json
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import openai

SMALL = {"seconds": "1", "size": "256x256"}
AGREED = {"X-Lawful-Use-Consent": "true"}


def connect(url: str, key: str = "unused", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, **options)


def png(side: int = 32) -> bytes:
    """A flat red picture, without a library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xc8\x1e\x1e" * side) * side
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def error_of(kind: type[openai.APIStatusError], call: Any, *args: Any, **options: Any) -> Any:
    """The error that the call raises; it has to be of this class, with a code and a sentence."""
    found = None
    try:
        call(*args, **options)
    except kind as error:
        found = error
    assert found is not None, f"no {kind.__name__}"
    assert found.code, found
    assert found.type, found
    assert len(found.body["message"]) > 10, found
    return found


def makes(client: openai.OpenAI) -> tuple[Any, Any]:
    """Videos of a text, with and without waiting, and of a picture."""
    video = client.videos.create(prompt="a red ball over the sea")
    assert (video.object, video.status in ("queued", "in_progress", "completed")) == ("video", True)
    assert (video.seconds, video.size) == ("4", "720x1280")
    plain = client.videos.poll(video.id)
    assert (plain.status, plain.progress, plain.error) == ("completed", 100, None), plain
    assert plain.completed_at >= plain.created_at

    waited = client.videos.create_and_poll(
        prompt="a red ball",
        model="sora-2",
        size="256x256",
        extra_body={"num_frames": 13, "seed": 7},
    )
    assert (waited.status, waited.seconds, waited.seed) == ("completed", "0.54", 7), waited

    pictured = client.videos.create_and_poll(
        prompt="it moves", input_reference=("a.png", png(), "image/png"), **SMALL
    )
    assert (pictured.status, pictured.model) == ("completed", "opensora"), pictured
    return waited, pictured


def reads(client: openai.OpenAI, video: Any) -> dict[str, int]:
    """The object, the list and the files."""
    again = client.videos.retrieve(video.id)
    assert again == video, (again, video)
    for order in ("desc", "asc"):
        pages = list(client.videos.list(limit=2, order=order).iter_pages())
        ids = [entry.id for page in pages for entry in page.data]
        assert len(pages) == 3, pages
        assert len(set(ids)) == len(ids) == 5, ids
        assert [len(page.data) for page in pages] == [2, 2, 1]
        created = [entry.created_at for page in pages for entry in page.data]
        assert created == sorted(created, reverse=order == "desc")
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in ("video", "thumbnail", "spritesheet"):
            path = Path(folder) / variant
            client.videos.download_content(video.id, variant=variant).write_to_file(path)
            with client.videos.with_streaming_response.download_content(
                video.id, variant=variant
            ) as answer:
                answer.stream_to_file(Path(folder) / "streamed")
            assert path.read_bytes() == (Path(folder) / "streamed").read_bytes()
            sizes[variant] = path.stat().st_size
    assert client.videos.download_content(video.id).read()[:4]
    models = client.models.list().data
    assert client.models.retrieve(models[0].id).id == models[0].id
    return sizes


def continues(client: openai.OpenAI, plain: Any, pictured: Any) -> None:
    """Remixes of a text and of a picture, and what goes on from a last frame."""
    for source in (plain, pictured):
        remix = client.videos.remix(source.id, prompt="a blue square")
        remix = client.videos.poll(remix.id)
        assert (remix.status, remix.remixed_from_video_id) == ("completed", source.id), remix
        assert (remix.prompt, remix.model) == ("a blue square", source.model)
        for name in ("seconds", "size", "seed", "num_frames", "fps"):
            assert getattr(remix, name) == getattr(source, name), name
    clip = client.videos.download_content(plain.id).read()
    longer = client.videos.extend(
        prompt="it goes on", seconds="1", video=("clip.mp4", clip, "video/mp4")
    )
    longer = client.videos.poll(longer.id)
    assert (longer.status, longer.model, longer.size) == ("completed", "opensora", "256x256"), (
        longer
    )


def meets_a_full_queue(client: openai.OpenAI) -> None:
    """More than may wait, and when to come back."""
    hasty = client.with_options(max_retries=0)

    def fill() -> None:
        for _ in range(20):
            hasty.videos.create(prompt="a slow hand", **SMALL)

    full = error_of(openai.RateLimitError, fill)
    assert full.code == "queue_full"
    assert int(full.response.headers["retry-after"]) >= 1


def fails(client: openai.OpenAI, url: str, video: Any) -> None:
    """The classes of errors, and a video that is deleted."""
    wrong = error_of(openai.BadRequestError, client.videos.create, prompt="a ball", size="1x1")
    assert wrong.param == "size"
    wrong = error_of(openai.BadRequestError, client.videos.create, prompt="a ball", seconds="12")
    assert "20" in str(wrong)
    wrong = error_of(openai.BadRequestError, client.videos.create, prompt="a ball", model="gpt")
    assert wrong.param == "model"
    clip = ("clip.mp4", b"clip", "video/mp4")
    for call in (
        lambda: client.videos.edit(prompt="bluer", video=clip),
        lambda: client.videos.create_character(name="Bo", video=clip),
        lambda: client.videos.get_character("char_1"),
    ):
        assert error_of(openai.BadRequestError, call).code == "unsupported_operation"
    error_of(openai.PermissionDeniedError, connect(url).videos.create, prompt="a red ball")
    error_of(openai.AuthenticationError, connect(url, "sk-wrong").videos.list)
    error_of(openai.NotFoundError, client.videos.retrieve, "video_none")
    error_of(openai.NotFoundError, client.videos.download_content, "video_none")
    gone = client.videos.delete(video.id)
    assert (gone.id, gone.deleted, gone.object) == (video.id, True, "video.deleted")
    error_of(openai.NotFoundError, client.videos.retrieve, video.id)
    error_of(openai.NotFoundError, client.videos.delete, video.id)
    busy = client.videos.create(prompt="a slow hand", **SMALL)
    client.videos.delete(busy.id)
    error_of(openai.NotFoundError, client.videos.retrieve, busy.id)
    meets_a_full_queue(client)
    for entry in client.videos.list(limit=2):  # deleting while reading on
        client.videos.delete(entry.id)
    assert client.videos.list().data == []


def shows_its_key(url: str, key: str) -> dict[str, Any]:
    """What it may do with its own key, and is told with another one."""
    stranger = connect(url, "sk-wrong", default_headers=AGREED)
    for call in (
        lambda: stranger.videos.create(prompt="a red ball"),
        lambda: stranger.videos.retrieve("video_none"),
        lambda: stranger.videos.list(),
        lambda: stranger.models.list(),
    ):
        error = error_of(openai.AuthenticationError, call)
        assert (error.code, error.type) == ("unauthorized", "authentication_error"), error
    client = connect(url, key, default_headers=AGREED)
    video = client.videos.create_and_poll(prompt="a red ball", **SMALL)
    assert video.status == "completed", video
    assert [entry.id for entry in client.videos.list()] == [video.id]
    assert len(client.videos.download_content(video.id).read()) > 100
    return {"challenge": error.response.headers["www-authenticate"], "id": video.id}


def asks_again(url: str, count: int) -> dict[str, Any]:
    """The ids of the same video, made many times, whatever the client had to repeat."""
    client = connect(url, default_headers=AGREED, max_retries=10)
    made = [client.videos.create(prompt="a steady hand", **SMALL) for _ in range(count)]
    return {"ids": [video.id for video in made]}


def main(url: str, what: str, *more: str) -> None:
    client = connect(url, default_headers=AGREED)
    saw: dict[str, Any] = {"version": openai.__version__}
    if what == "refused":
        hasty = client.with_options(max_retries=0)
        error = error_of(openai.RateLimitError, hasty.videos.create, prompt="a red ball")
        saw["retry_after"] = error.response.headers["retry-after"]
    elif what == "keys":
        saw |= shows_its_key(url, *more)
    elif what == "series":
        saw |= asks_again(url, int(more[0]))
    else:
        plain, pictured = makes(client)
        for _ in range(2):
            client.videos.create_and_poll(prompt="one more", **SMALL)
        saw["sizes"] = reads(client, plain)
        continues(client, plain, pictured)
        fails(client, url, plain)
    sys.stdout.write(json.dumps(saw))


if __name__ == "__main__":
    main(*sys.argv[1:])
