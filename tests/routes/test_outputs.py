"""`/outputs/{filename}`: whole files, ranges, and nothing that is not in the job table."""

from pathlib import Path

import pytest

from tests.scripted_jobs import FILE_NAME, VIDEO, Api, form

URL = f"/outputs/{FILE_NAME}"


@pytest.fixture(autouse=True)
def _made(api: Api) -> None:
    api.http.post("/generate", data=form())


def test_a_video_is_sent_whole_as_mp4(api: Api) -> None:
    """With what players and caches need to know."""
    answer = api.http.get(URL)
    assert answer.status_code == 200
    assert answer.content == VIDEO
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(VIDEO))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("0-0", 0, 0), ("100-199", 100, 199), ("10000-", 10000, 10239), ("-5", 10235, 10239)],
)
def test_a_range_is_sent_alone(api: Api, asked: str, first: int, last: int) -> None:
    """206, with its place in the whole."""
    answer = api.http.get(URL, headers={"Range": f"bytes={asked}"})
    assert answer.status_code == 206
    assert answer.content == VIDEO[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(VIDEO)}"


def test_a_range_outside_the_file_is_a_416_with_the_size(api: Api) -> None:
    """So that the client can ask again."""
    answer = api.http.get(URL, headers={"Range": "bytes=10240-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(VIDEO)}"


@pytest.mark.parametrize("asked", ["bytes=x-y", "frames=0-1", "bytes", "bytes=", "bytes=٢-٣"])
def test_a_range_that_cannot_be_read_is_ignored(api: Api, asked: str) -> None:
    """As RFC 9110 has it."""
    answer = api.http.get(URL, headers={"Range": asked.encode()})
    assert (answer.status_code, answer.content) == (200, VIDEO)


def test_a_head_has_the_headers_of_a_get_and_no_body(api: Api) -> None:
    """For the whole file and for a range."""
    whole, head = api.http.get(URL), api.http.head(URL)
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-length", "etag", "last-modified", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]
    part = api.http.head(URL, headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (206, "10")


def test_a_known_etag_is_not_sent_again(api: Api) -> None:
    """304 for it, 200 for another, 206 only while it is the same file."""
    etag = api.http.get(URL).headers["etag"]
    same = api.http.get(URL, headers={"If-None-Match": f'"x", W/{etag}'})
    assert (same.status_code, same.content) == (304, b"")
    assert api.http.get(URL, headers={"If-None-Match": '"x"'}).status_code == 200
    ranged = {"Range": "bytes=0-9"}
    assert api.http.get(URL, headers={"If-Range": etag, **ranged}).status_code == 206
    assert api.http.get(URL, headers={"If-Range": '"x"', **ranged}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "nothing.mp4",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "..%5cjobs.sqlite3",
        "%00",
        "a%00.mp4",
        ".part",
        "../state/jobs.sqlite3",
        FILE_NAME + "/",
        FILE_NAME.upper(),
        "",
        "x" * 5000,
        "%ff",
    ],
)
def test_a_name_that_is_not_in_the_job_table_is_not_found(api: Api, path: str) -> None:
    """It is looked up, never joined to a folder."""
    answer = api.http.get(f"/outputs/{path}")
    assert answer.status_code == 404
    assert list(answer.json()) == ["success", "video_url", "error"]


def test_a_file_in_the_folder_that_no_job_owns_is_not_found(api: Api) -> None:
    """Being there is not enough."""
    (Path(api.jobs.config.outputs_dir) / "private.mp4").write_bytes(b"x")
    assert api.http.get("/outputs/private.mp4").status_code == 404


def test_a_video_of_a_job_that_failed_is_not_found(api: Api) -> None:
    """Only completed jobs have one."""
    api.jobs.set(api.jobs.last.id, status="failed")
    assert api.http.get(URL).status_code == 404


def test_a_file_that_was_deleted_from_the_disk_is_not_found(api: Api) -> None:
    """The table may say otherwise."""
    (Path(api.jobs.config.outputs_dir) / FILE_NAME).unlink()
    answer = api.http.get(URL)
    assert answer.status_code == 404
    assert answer.json()["error"] == "This video's file is no longer there."
