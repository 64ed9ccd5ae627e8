"""What every request passes: hosts, origins, headers, request ids, HEAD."""

from pathlib import Path

import pytest

from deployments.routes.guard import host_name
from tests.scripted_jobs import Api, form, open_api

PATHS = ["/", "/health", "/docs", "/static/style.css", "/nothing", "/v1/models"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:8000", "[::1]:8000"])
def test_a_configured_host_is_served_on_any_port(api: Api, host: str) -> None:
    """The port is the operator's own choice."""
    assert api.http.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "[::2]", "xlocalhost"],
)
@pytest.mark.parametrize("path", PATHS)
def test_another_host_is_refused_everywhere(api: Api, host: str, path: str) -> None:
    """A name that was rebound to 127.0.0.1 stays foreign."""
    answer = api.http.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert "allowed_hosts" in answer.text


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://", "x"]
)
def test_a_foreign_origin_is_refused(api: Api, origin: str) -> None:
    """Any web page can post a form to localhost."""
    answer = api.http.post("/generate", data=form(), headers={"Origin": origin})
    assert answer.status_code == 403
    assert list(answer.json()) == ["success", "video_url", "error"]
    assert not api.jobs.jobs


@pytest.mark.parametrize("origin", ["http://localhost:8000", "http://127.0.0.1", "http://[::1]:1"])
def test_an_own_origin_is_served(api: Api, origin: str) -> None:
    """The web page itself sends one."""
    answer = api.http.post("/generate", data=form(), headers={"Origin": origin})
    assert answer.status_code == 200


def test_any_host_still_means_only_its_own_pages(tmp_path: Path) -> None:
    """`*` opens the service to a network, not to every web page."""
    with open_api(tmp_path, allowed_hosts=["*"]) as api:
        own = {"Host": "gpu.lan:8000", "Origin": "http://gpu.lan:8000"}
        assert api.http.post("/generate", data=form(), headers=own).status_code == 200
        foreign = {"Host": "gpu.lan:8000", "Origin": "http://evil.example"}
        assert api.http.post("/generate", data=form(), headers=foreign).status_code == 403


@pytest.mark.parametrize(
    ("header", "name"),
    [("A.b:80", "a.b"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]"), ("a.", "a"), ("", "")],
)
def test_the_port_is_not_part_of_a_host_name(header: str, name: str) -> None:
    """Nor are capitals or the final dot."""
    assert host_name(header) == name


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_the_security_headers(api: Api, path: str) -> None:
    """Errors and files too; what only means something to a document, scripts and styles lack."""
    headers = api.http.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-site"
    if path.endswith(".css"):
        assert "content-security-policy" not in headers
        return
    assert headers["x-frame-options"] == "DENY"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self';" in policy
    assert ("'unsafe-inline'" in policy) == (path == "/docs")


def test_a_request_id_is_echoed(api: Api) -> None:
    """So that a client's log and ours can be laid side by side."""
    assert api.http.get("/health", headers={"X-Request-ID": "a-1"}).headers["x-request-id"] == "a-1"
    made = api.http.get("/health").headers["x-request-id"]
    strange = api.http.get("/health", headers={"X-Request-ID": "a b" * 99}).headers["x-request-id"]
    assert len(made) == len(strange) == 32


@pytest.mark.parametrize(
    "path", ["/", "/health", "/system-info", "/v1/models", "/docs", "/redoc", "/openapi.json"]
)
def test_head_works_where_get_does(api: Api, path: str) -> None:
    """The same headers, no body."""
    head, get = api.http.head(path), api.http.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/generate", "POST"),
        ("GET", "/generate", "POST"),
        ("HEAD", "/generate", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/outputs/x.mp4", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    api: Api, method: str, path: str, allowed: str
) -> None:
    """405 with `Allow`."""
    answer = api.http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


def test_an_unknown_path_is_not_found_in_the_shape_of_the_api_reference(api: Api) -> None:
    """And says where to look."""
    answer = api.http.get("/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"] == "There is nothing at this address; see /docs."
