"""With API keys in the config: who gets in, what a session is, and that each sees his own."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.core.keys import digest
from tests.scripted_jobs import FILE_NAME, MOCHI, OPENSORA, VIDEO, Api, form, open_api

KEYS = {"ada": "the key of ada", "bob": "the key of bob"}
CONFIG = {"api_keys": [{"name": name, "sha256": digest(key)} for name, key in KEYS.items()]}
CLOSED = ["/v1/videos", "/v1/models", "/v1/nothing", "/outputs/x.mp4", "/system-info", "/nothing"]
OPEN = ["/", "/docs", "/redoc", "/openapi.json", "/health", "/static/style.css", "/favicon.ico"]
COOKIE = "video_service_session"


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """The application with two keys and both models."""
    with open_api(tmp_path, cards=[MOCHI, OPENSORA], **CONFIG) as opened:
        yield opened


def make(api: Api, name: str) -> str:
    answer = api.http.post("/v1/videos", data=form(), headers=bearer(name))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


# --- keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CLOSED)
def test_without_a_key_the_api_is_closed(api: Api, path: str) -> None:
    """An address that is not there too: what there is, is nobody's business."""
    answer = api.http.get(path)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    body = answer.json()
    if path.startswith("/v1"):
        assert body["error"]["type"] == "authentication_error"
        assert body["error"]["code"] == "unauthorized"
        assert "Authorization: Bearer" in body["error"]["message"]
    else:
        assert list(body) == ["success", "video_url", "error"]


@pytest.mark.parametrize("path", ["/generate", "/v1/videos"])
def test_without_a_key_nothing_is_made(api: Api, path: str) -> None:
    """The body is not even read."""
    assert api.http.post(path, data=form()).status_code == 401
    assert not api.jobs.jobs


@pytest.mark.parametrize("path", OPEN)
def test_the_pages_and_the_health_stay_open(api: Api, path: str) -> None:
    """Somebody has to be told where to log in."""
    assert api.http.get(path).status_code == 200


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer ", "Bearer", "Basic YTpi", "bearer"])
def test_a_wrong_key_is_told_apart_from_none(api: Api, header: str) -> None:
    """It is not the cookie's turn then."""
    answer = api.http.get("/v1/videos", headers={"Authorization": header})
    assert answer.status_code == 401
    wrong = "not known" in answer.text
    assert wrong == header.lower().startswith("bearer")


def test_a_key_opens_everything(api: Api) -> None:
    """In any case of the scheme's letters."""
    for path in ("/v1/videos", "/v1/models", "/system-info"):
        assert api.http.get(path, headers=bearer("ada")).status_code == 200
    small = {"Authorization": f"bearer  {KEYS['ada']}"}
    assert api.http.get("/v1/videos", headers=small).status_code == 200
    answer = api.http.post("/generate", data=form(), headers=bearer("ada"))
    assert answer.status_code == 200
    assert api.jobs.last.caller == "ada"


def test_a_head_without_a_key_has_no_body(api: Api) -> None:
    """As with every error."""
    answer = api.http.head("/v1/videos")
    assert (answer.status_code, answer.content) == (401, b"")


def test_without_keys_in_the_config_all_is_open_and_everybodys(tmp_path: Path) -> None:
    """As it always was; a key that is sent all the same does no harm."""
    with open_api(tmp_path) as api:
        assert api.http.post("/generate", data=form(), headers=bearer("ada")).status_code == 200
        assert api.jobs.last.caller == ""
        assert len(api.http.get("/v1/videos").json()["data"]) == 1
        assert api.http.post("/session", json={"key": "x"}).status_code == 404


def test_the_schema_says_where_a_key_is_needed(api: Api, tmp_path: Path) -> None:
    """So that /docs has a button for it; and nothing of it where there are no keys."""
    schema = api.http.get("/openapi.json").json()
    assert set(schema["components"]["securitySchemes"]) == {"key", "session"}
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in ("/health", "/session")), path
            if "security" in operation:
                assert "401" in operation["responses"], path
    with open_api(tmp_path) as without:
        assert "securitySchemes" not in without.http.get("/openapi.json").json()["components"]


# --- sessions -------------------------------------------------------------------------------


def log_in(api: Api, name: str = "ada", **headers: str) -> str:
    answer = api.http.post("/session", json={"key": KEYS[name]}, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    return answer.headers["set-cookie"]


def test_a_key_is_exchanged_for_a_cookie(api: Api) -> None:
    """Which no script can read and no other site can send."""
    cookie = log_in(api)
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    assert "secure" not in attributes
    assert any(part.startswith("max-age=") for part in attributes)
    assert KEYS["ada"] not in cookie
    assert api.http.get("/v1/videos").status_code == 200
    make(api, "ada")
    assert api.http.get(f"/outputs/{FILE_NAME}").content == VIDEO


def test_over_https_the_cookie_is_secure(api: Api) -> None:
    """Also behind a proxy that speaks it."""
    assert "secure" in log_in(api, **{"X-Forwarded-Proto": "https"}).lower()
    api.http.base_url = "https://localhost:8000"
    assert "secure" in log_in(api).lower()


def test_a_session_can_be_ended(api: Api) -> None:
    """In this browser."""
    log_in(api)
    ended = api.http.delete("/session")
    assert ended.status_code == 204
    assert f'{COOKIE}=""' in ended.headers["set-cookie"]
    assert api.http.get("/v1/videos").status_code == 401
    assert api.http.delete("/session").status_code == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"key": "nonsense"}, 401),
        ({}, 400),
        ({"key": ""}, 400),
        ({"key": 5}, 400),
        ({"key": "x", "more": "y"}, 400),
        ({"key": "x" * 5000}, 413),
    ],
)
def test_what_is_no_key_gets_no_session(api: Api, body: dict[str, Any], status: int) -> None:
    """And the answer does not repeat it."""
    answer = api.http.post("/session", json=body)
    assert answer.status_code == status
    assert "set-cookie" not in answer.headers
    assert "nonsense" not in answer.text


def test_a_form_opens_no_session(api: Api) -> None:
    """Any page may send one; JSON it may not."""
    for body in ({"data": {"key": KEYS["ada"]}}, {"files": {"key": (None, KEYS["ada"])}}):
        answer = api.http.post("/session", **body)
        assert answer.status_code == 400
        assert "application/json" in answer.text


def test_a_forged_cookie_is_no_session(api: Api) -> None:
    """It is signed."""
    for value in ("ada", "ada|99999999999|" + "0" * 64, "", '"'):
        headers = {"Cookie": f"{COOKIE}={value}"}
        assert api.http.get("/v1/videos", headers=headers).status_code == 401, value


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    """The key was removed from its file."""
    file = tmp_path / "keys"
    file.write_text("\n".join(f"{name}:{digest(key)}" for name, key in KEYS.items()))
    with open_api(tmp_path, api_keys_file=str(file)) as api:
        log_in(api)
        assert api.http.get("/v1/videos").status_code == 200
        file.write_text(f"bob:{digest(KEYS['bob'])}")
        answer = api.http.get("/v1/videos")
        assert answer.status_code == 401
        assert "removed" in answer.json()["error"]["message"]
        assert api.http.get("/v1/videos", headers=bearer("bob")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/videos", "/generate", "/session"])
def test_a_foreign_page_cannot_use_the_session(api: Api, path: str) -> None:
    """Neither to make a video nor to log somebody in."""
    log_in(api)
    answer = api.http.post(path, data=form(), headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert not api.jobs.jobs


@pytest.mark.parametrize("site", ["same-origin", "none", ""])
def test_our_own_page_can_use_the_session(api: Api, site: str) -> None:
    """An older browser does not say where a request comes from, but sends an Origin."""
    log_in(api)
    headers = {"Origin": "http://localhost:8000"} | ({"Sec-Fetch-Site": site} if site else {})
    assert api.http.post("/v1/videos", data=form(), headers=headers).is_success


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
def test_another_port_of_this_host_cannot_use_the_session(api: Api, site: str) -> None:
    """To the cookie it is the same site; what is shown to it stays unreadable there."""
    log_in(api)
    headers = {"Origin": "http://localhost:3000", "Sec-Fetch-Site": site}
    answer = api.http.post("/v1/videos", data=form(), headers=headers)
    assert answer.status_code == 401
    assert not api.jobs.jobs
    assert api.http.post("/v1/videos", data=form(), headers=headers | bearer("ada")).is_success


# --- each his own ---------------------------------------------------------------------------


def calls(api: Api, video_id: str) -> dict[str, Any]:
    """Every documented operation on one video, as the answer of bob to it."""
    found = {}
    for path, operations in api.app.openapi()["paths"].items():
        if "{video_id}" in path:
            for method in operations:
                answer = api.http.request(
                    method,
                    path.replace("{video_id}", video_id),
                    data=form() if path.endswith("/remix") else None,
                    headers=bearer("bob"),
                )
                found[f"{method} {path}"] = (
                    answer.status_code,
                    re.sub(r"video_\w+", "ID", answer.text),
                )
    extended = form(**{"video[id]": video_id})
    answer = api.http.post("/v1/videos/extensions", data=extended, headers=bearer("bob"))
    found["extensions"] = (answer.status_code, re.sub(r"video_\w+", "ID", answer.text))
    return found


def test_anothers_video_is_not_there(api: Api) -> None:
    """Every operation answers to the letter as for a video that never was, and changes nothing."""
    mine = make(api, "ada")
    before = api.jobs.jobs[mine]
    others, missing = calls(api, mine), calls(api, "video_000000000000000000000000")
    assert len(others) >= 8
    assert others == missing
    assert {status for status, _ in others.values()} == {404}
    assert api.jobs.jobs == {mine: before}
    assert not api.jobs.cancelled


def test_anothers_file_is_not_there(api: Api) -> None:
    """Nor is its name."""
    make(api, "ada")
    others = api.http.get(f"/outputs/{FILE_NAME}", headers=bearer("bob"))
    missing = api.http.get("/outputs/none.mp4", headers=bearer("bob"))
    assert others.status_code == missing.status_code == 404
    assert others.text.replace(FILE_NAME, "none.mp4") == missing.text
    assert api.http.get(f"/outputs/{FILE_NAME}", headers=bearer("ada")).status_code == 200


def test_a_list_holds_ones_own(api: Api) -> None:
    """Both doors' videos."""
    ada = [make(api, "ada"), make(api, "ada")]
    bob = [make(api, "bob")]
    for name, ids in (("ada", ada), ("bob", bob)):
        page = api.http.get("/v1/videos?order=asc", headers=bearer(name)).json()
        assert [video["id"] for video in page["data"]] == ids


def test_no_route_asks_for_the_jobs_of_all() -> None:
    """`JobsDep` is the way to them; what follows every change filters by caller itself."""
    routes = Path(__file__).parents[2] / "deployments/routes"
    names = {path.name for path in routes.glob("*.py") if "door.jobs" in path.read_text()}
    assert names == {"own_jobs.py"}
