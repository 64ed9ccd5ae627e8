"""The field `loras` at both doors, and what `/v1/models` tells of the files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from deployments.core.loras import LoraFolder, LoraFolders
from deployments.core.spec import Lora
from tests.routes.test_video_create import AGREED, create, create_json
from tests.routes.test_videos import openai_error
from tests.scripted_jobs import MOCHI, OPENSORA, Api, form, open_api

LINEARS = {"blocks.0": (8, 6)}


def write(folder: Path, name: str, layer: str = "blocks.0", rank: int = 2) -> None:
    tensors = {
        f"transformer.{layer}.lora_A.weight": torch.zeros(rank, 6),
        f"transformer.{layer}.lora_B.weight": torch.zeros(8, rank),
    }
    save_file(tensors, folder / f"{name}.safetensors")


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """Mochi has two LoRA files and one of another network, Open-Sora has one."""
    folders = {}
    for model, names in (("mochi", ("ink", "paper.v2")), ("opensora", ("sand",))):
        folder = tmp_path / model
        folder.mkdir()
        for name in names:
            write(folder, name)
        folders[model] = LoraFolder(str(folder), LINEARS)
    write(tmp_path / "mochi", "flux", layer="double_blocks.0")
    with open_api(tmp_path, cards=[MOCHI, OPENSORA], loras=LoraFolders(folders)) as opened:
        yield opened


def test_models_list_their_files_as_they_are_now(api: Api, tmp_path: Path) -> None:
    mochi, opensora = api.http.get("/v1/models").json()["data"]
    assert [(lora["name"], lora["rank"]) for lora in mochi["loras"]] == [
        ("flux", 0),
        ("ink", 2),
        ("paper.v2", 2),
    ]
    assert mochi["loras"][0]["problem"].startswith("transformer.double_blocks.0.lora_A.weight: ")
    assert [lora["name"] for lora in opensora["loras"]] == ["sand"]
    write(tmp_path / "opensora", "glass")
    found = api.http.get("/v1/models/opensora").json()["loras"]
    assert [lora["name"] for lora in found] == ["glass", "sand"]


@pytest.mark.parametrize(
    ("text", "loras"),
    [
        ("ink", [("ink", 1.0)]),
        ("ink:0.8, paper.v2:-0.5", [("ink", 0.8), ("paper.v2", -0.5)]),
        (" ink:4 ,paper.v2:-4e0 ", [("ink", 4.0), ("paper.v2", -4.0)]),
        ("", []),
    ],
)
def test_a_form_names_files_and_strengths(
    api: Api, text: str, loras: list[tuple[str, float]]
) -> None:
    """Both doors read the same text, and the video tells it."""
    wanted = tuple(Lora(name=name, strength=strength) for name, strength in loras)
    video = create(api, loras=text, model="mochi").json()
    assert video["loras"] == [{"name": name, "strength": strength} for name, strength in loras]
    assert api.jobs.requests[-1].loras == wanted
    answer = api.http.post("/generate", data=form(loras=text))
    assert answer.status_code == 200, answer.text
    assert api.jobs.requests[-1].loras == wanted


@pytest.mark.parametrize(
    "loras",
    [
        [{"name": "ink", "strength": 0.8}, {"name": "paper.v2"}],
        "ink:0.8, paper.v2",
        "ink:0.8,paper.v2:1",
    ],
)
def test_json_has_a_list_or_the_same_text(api: Api, loras: object) -> None:
    video = create_json(api, loras=loras).json()
    assert video["loras"] == [
        {"name": "ink", "strength": 0.8},
        {"name": "paper.v2", "strength": 1.0},
    ]
    assert video["model"] == "mochi"


def test_auto_takes_the_model_that_has_the_file(api: Api) -> None:
    video = create(api, loras="sand").json()
    assert video["model"] == "opensora"
    assert "sand is unknown to mochi" in video["routing"]


def test_a_remix_has_the_files_of_its_source(api: Api) -> None:
    source = create(api, loras="ink:0.8").json()["id"]
    remix = api.http.post(
        f"/v1/videos/{source}/remix", json={"prompt": "a blue ball"}, headers=AGREED
    )
    assert remix.json()["loras"] == [{"name": "ink", "strength": 0.8}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nope", "nope is unknown to mochi, which has ink, paper.v2"),
        ("flux", "mochi cannot use flux.safetensors: transformer.double_blocks.0.lora_A.weight: "),
        ("ink:5", "ink: 5 is no strength; allowed: numbers from -4 to 4"),
        ("ink:1e999", "is no strength"),
        ("ink:much", "'ink:much' is none; send NAME:STRENGTH"),
        ("ink:", "'ink:' is none"),
        ("ink,", "'' is none"),
        ("../ink", "'../ink' is none"),
        ("ink, ink:0.5", "ink stands there twice"),
        ("a,b,c,d,e", "5 are too many"),
    ],
)
def test_what_is_wrong_names_the_field(api: Api, text: str, words: str) -> None:
    """In a form at both doors, and as text in JSON."""
    for answer in (
        create(api, loras=text, model="mochi"),
        create_json(api, loras=text, model="mochi"),
    ):
        error = openai_error(answer, 400, "invalid_request")
        assert error["message"].startswith("loras: ")
        assert words in error["message"]
    found = api.http.post("/generate", data=form(loras=text, prefer_backend="mochi"))
    assert found.status_code == 400
    assert words in found.json()["error"]
    assert api.jobs.requests == []


@pytest.mark.parametrize(
    ("loras", "words"),
    [
        (["ink"], "objects of name and strength only"),
        ([{"name": "ink", "weight": 1}], "objects of name and strength only"),
        ([{"strength": 1}], "has to have a name"),
        ([{"name": 7}], "has to have a name"),
        ([{"name": "ink", "strength": "0.8"}], "ink: the strength has to be a number"),
        ([{"name": "ink", "strength": True}], "ink: the strength has to be a number"),
        ([{"name": "ink", "strength": 5}], "ink: 5 is no strength"),
        ([{"name": "ink"}, {"name": "ink"}], "ink stands there twice"),
        ([{"name": "ink", "strength": [1]}], "too deep"),
        ([[["ink"]]], "too deep"),
        ({"name": "ink"}, "is not a field of this form"),
        (1, "must be a list or a string, not a number"),
    ],
)
def test_a_list_is_taken_strictly(api: Api, loras: Any, words: str) -> None:
    error = openai_error(create_json(api, loras=loras), 400, "invalid_request")
    assert words in error["message"]


def test_an_entry_says_each_thing_once(api: Api) -> None:
    body = b'{"prompt": "a red ball", "loras": [{"name": "ink", "name": "sand"}]}'
    headers = AGREED | {"Content-Type": "application/json"}
    answer = api.http.post("/v1/videos", content=body, headers=headers)
    assert "the same key twice" in openai_error(answer, 400, "invalid_request")["message"]


def test_an_estimate_counts_the_files_and_refuses_what_is_not_there(api: Api) -> None:
    """Whoever asks first is told the same as whoever begins."""
    path = "/v1/videos/estimate"
    with_lora = api.http.post(path, json={"prompt": "a ball", "loras": "ink", "model": "mochi"})
    assert with_lora.status_code == 200
    error = api.http.post(path, json={"prompt": "a ball", "loras": "nope"}).json()["error"]
    assert "nope is unknown to mochi" in error["message"]
    assert "nope is unknown to opensora" in error["message"]
