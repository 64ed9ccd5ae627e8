"""`docs/api.md` says what the code does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_jobs import Api, form

DOCS = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_every_address_is_in_the_docs(api: Api) -> None:
    """With its method."""
    for path, methods in api.app.openapi()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path.replace('video_id', 'id')}`" in DOCS


def test_the_field_table_has_the_fields_defaults_and_ranges_of_the_form(api: Api) -> None:
    """In the form's order, or at least all of them."""
    table = DOCS.partition("| field |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [\w ]+ \| (.*) \|$", table, re.MULTILINE))
    content = api.app.openapi()["paths"]["/generate"]["post"]["requestBody"]["content"]
    fields: dict[str, Any] = content["multipart/form-data"]["schema"]["properties"]
    assert set(rows) == set(fields)
    for name, field in fields.items():
        default, _, takes = rows[name].partition(" | ")
        if "minimum" in field:
            assert f"{field['minimum']} to {field['maximum']}" in takes, name
        if isinstance(field.get("default"), int | str) and field["default"]:
            assert str(field["default"]).lower() in default, name


def test_the_success_example_has_the_keys_of_the_answer(api: Api) -> None:
    """In the same order."""
    examples = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)]
    answer = api.http.post("/generate", data=form()).json()
    assert list(answer) == list(examples[0])
    later = api.http.post("/generate", data=form(), headers={"Prefer": "respond-async"}).json()
    assert list(later) == list(examples[1])
    wrong = api.http.post("/generate", data=form(fps=61)).json()
    assert wrong == examples[2]


@pytest.mark.parametrize("path", ["/health", "/system-info"])
def test_every_key_of_the_system_answers_is_in_the_docs(api: Api, path: str) -> None:
    """And those of a video's state."""
    made = api.http.post("/generate", data=form()).json()
    for answer in (api.http.get(path).json(), api.http.get(f"/v1/videos/{made['job_id']}").json()):
        for key in answer.keys() - {"expires_at", "remixed_from_video_id"}:
            assert f"`{key}`" in DOCS, key


def test_every_status_that_the_schema_promises_is_in_the_docs(api: Api) -> None:
    """Success codes stand in the text, errors in the table."""
    for methods in api.app.openapi()["paths"].values():
        for operation in methods.values():
            for status in operation["responses"]:
                assert status in DOCS, status
