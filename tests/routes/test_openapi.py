"""The schema tells the truth: schemathesis sends what it allows and what it forbids."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from deployments.ingress import create_app
from deployments.routes.pages import STATIC_DIR
from tests.scripted_jobs import MOCHI, OPENSORA, Api, ScriptedJobs, open_api, service_config

HOST = {"Host": "localhost"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with open_api(tmp_path_factory.mktemp("openapi")) as api:
        yield api


# Made at import: pytest needs to know the operations before there are fixtures.
FOLDER = tempfile.TemporaryDirectory()
CONFIG = service_config(Path(FOLDER.name))
CARDS = [MOCHI, OPENSORA]
schema = schemathesis.openapi.from_asgi(
    "/openapi.json",
    create_app(ScriptedJobs(CONFIG, CARDS), CONFIG, CARDS),
    config=schemathesis.Config.from_path(Path(__file__).parents[2] / "schemathesis.toml"),
    headers=HOST,
)


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_the_service_answers_as_its_schema_says(case: Any) -> None:
    """Every allowed request is served, every other one refused, and both as documented."""
    case.call_and_validate(headers=HOST)


@pytest.fixture(scope="module")
def document(opened: Api) -> dict[str, Any]:
    answer: dict[str, Any] = opened.http.get("/openapi.json").json()
    return answer


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_and_every_answer_is_described(document: dict[str, Any]) -> None:
    """And none promises FastAPI's 422, which is never sent."""
    for name, operation in operations(document):
        assert operation["summary"], name
        assert len(operation["description"]) > 20, name
        assert {"403", "500"} <= set(operation["responses"]), name
        assert "422" not in operation["responses"], name
        assert all(answer["description"] for answer in operation["responses"].values()), name


def test_every_field_of_the_form_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    """People learn the API at /docs; a file alone needs no example."""
    content = document["paths"]["/generate"]["post"]["requestBody"]["content"]
    fields = content["multipart/form-data"]["schema"]["properties"]
    assert len(fields) == 15
    content = document["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    fields = fields | content["multipart/form-data"]["schema"]["properties"]
    for name, field in fields.items():
        assert field["description"], name
        assert field.get("examples") or name.startswith(("image", "input_reference")), name


def test_the_form_states_the_ranges_of_the_api_reference(document: dict[str, Any]) -> None:
    """The schema and the checks come from the same declaration."""
    content = document["paths"]["/generate"]["post"]["requestBody"]["content"]
    form = content["multipart/form-data"]["schema"]
    assert form["required"] == ["prompt", "lawful_use_consent"]
    ranges = {
        name: (field["minimum"], field["maximum"], field.get("default"))
        for name, field in form["properties"].items()
        if "minimum" in field
    }
    assert ranges["fps"] == (1, 60, 24)
    assert ranges["num_frames"] == (8, 240, 64)
    assert ranges["width"] == (256, 1920, 720)
    assert ranges["height"] == (256, 1080, 720)
    assert ranges["seed"] == (0, 2**32 - 1, None)
    assert form["properties"]["width"]["multipleOf"] == 8
    assert form["properties"]["prompt"]["maxLength"] == 1000


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
def test_a_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(
    opened: Api, path: str
) -> None:
    """Each script, style and picture is a file of this service, and is there."""
    page = opened.http.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = re.findall(
        r'<(?:script|link|img|video|source|iframe)\b[^>]*?(?:src|href)="([^"]*)"', page.text
    )
    assert loaded
    for address in loaded:
        assert address.startswith("/"), address
        assert not address.startswith("//"), address
        assert opened.http.get(address).status_code == 200, address
    for tag in re.findall(r"<script\b[^>]*>", page.text):
        assert "src=" in tag
    assert "<style" not in page.text
    assert not re.search(r'\s(style|on[a-z]+)="', page.text)


def test_our_own_scripts_and_styles_name_no_other_host() -> None:
    """The vendored viewers are watched in a browser: tests/page."""
    ours = [
        file
        for file in STATIC_DIR.rglob("*")
        if file.suffix in (".js", ".css", ".html") and "vendor" not in file.parts
    ]
    assert ours
    for file in ours:
        assert not re.search(r"https?://(?!www\.w3\.org/)", file.read_text()), file
        assert "innerHTML" not in file.read_text(), file


def test_the_vendored_viewers_ask_no_cdn() -> None:
    """Their two known addresses are cut or switched off."""
    redoc = (STATIC_DIR / "vendor/redoc/redoc.standalone.js").read_text()
    assert "cdn." not in redoc
    assert "validatorUrl: null" in (STATIC_DIR / "docs/swagger.js").read_text()
    for name in ("redoc", "swagger-ui"):
        assert (STATIC_DIR / "vendor" / name / "LICENSE").stat().st_size > 500
