"""`POST /v1/videos/estimate`: what a video would take, without making it."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.core.memory import MODES, Mode, Placement, plan
from deployments.core.networks.figures import MochiFigures
from deployments.core.outlook import Times
from deployments.core.spec import VideoRequest, resolve
from tests.routes.test_videos import openai_error
from tests.scripted_jobs import MOCHI, OPENSORA, Api, open_api, replica

# As large as the published ones: what does not fit is then a question of cards that are for sale.
CARDS = [
    MOCHI.model_copy(update={"native_area": 848 * 480, "num_inference_steps": 64}),
    OPENSORA.model_copy(update={"native_area": 768 * 768, "num_inference_steps": 50}),
]
ASKED = {"prompt": "a red ball", "size": "720x720", "num_frames": 160}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with open_api(tmp_path, cards=CARDS) as opened:
        yield opened


def on_gpu(api: Api, mode: Mode = MODES[0], **available_gb: float) -> None:
    """Give each of the models named a replica on a GPU, with so much of it."""
    api.jobs.replicas = tuple(
        replica(model=name, gpu=True, placement=Placement(mode=mode, available_gb=gb, total_gb=gb))
        for name, gb in available_gb.items()
    )


def estimate(api: Api, **changes: Any) -> dict[str, Any]:
    answer = api.http.post("/v1/videos/estimate", json=ASKED | changes)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_memory_is_that_of_the_plan(api: Api) -> None:
    """By phase and network, in the mode that the replica reported."""
    on_gpu(api, MODES[2], mochi=40.0)
    found = estimate(api, model="mochi")
    request = VideoRequest(prompt="a red ball", width=720, height=720, num_frames=160, seed=0)
    expected = plan(MochiFigures(), resolve(request, CARDS[0]), MODES[2])
    assert [phase["phase"] for phase in found["memory"]] == ["text", "denoise", "decode"]
    for phase, planned in zip(found["memory"], expected.phases, strict=True):
        assert phase["total_gb"] == pytest.approx(planned.total_gb, abs=0.001)
        assert phase["weights_gb"] == pytest.approx(planned.weights_gb, abs=0.001)
    assert found["peak_gb"] == pytest.approx(expected.peak_gb, abs=0.001)
    assert (found["available_gb"], found["fits"], found["nearest"]) == (40.0, True, None)
    assert found["placement"].endswith("transformer and autoencoder take turns on the GPU")
    assert found["work_tflop"]["total"] == pytest.approx(expected.work.total_flops / 1e12)


def test_what_does_not_fit_is_told_what_would(api: Api) -> None:
    """Each of the settings alone makes it fit, and the next larger one does not."""
    on_gpu(api, MODES[2], mochi=23.5)
    found = estimate(api, model="mochi")
    assert (found["fits"], found["nearest"]["low_vram"]) == (False, False)
    frames, size = found["nearest"]["num_frames"], found["nearest"]["size"]
    side = f"{size['width']}x{size['height']}"
    assert estimate(api, model="mochi", num_frames=frames)["fits"] is True
    assert estimate(api, model="mochi", num_frames=frames + 1)["fits"] is False
    assert estimate(api, model="mochi", size=side)["fits"] is True
    said = f"It would fit with at most {frames} frames, or at {side}."
    assert found["nearest"]["message"] == said


def test_low_vram_is_named_where_it_suffices(api: Api) -> None:
    """The networks take turns then."""
    on_gpu(api, opensora=41.0)
    found = estimate(api, model="opensora", num_frames=129)
    assert (found["fits"], found["nearest"]["low_vram"]) == (False, True)
    lower = estimate(api, model="opensora", num_frames=129, low_vram=True)
    assert (lower["fits"], lower["nearest"]) == (True, None)
    assert lower["placement"] == "transformer and autoencoder take turns on the GPU"


def test_where_nothing_fits_that_is_said(api: Api) -> None:
    """A card that is too small for the transformer alone."""
    on_gpu(api, MODES[2], mochi=8.0)
    nearest = estimate(api, model="mochi")["nearest"]
    assert (nearest["low_vram"], nearest["num_frames"], nearest["size"]) == (False, None, None)
    assert nearest["message"] == "No shorter or smaller video fits either."


def test_the_first_model_that_is_ready_and_has_the_memory_is_the_one(api: Api) -> None:
    """The others are named too."""
    on_gpu(api, mochi=20.0, opensora=140.0)
    found = estimate(api)
    assert found["model"] == "opensora"
    chances = [(one["model"], one["state"], one["fits"]) for one in found["models"]]
    assert chances == [("mochi", "ready", False), ("opensora", "ready", True)]
    for able in ("ready", "unloaded"):
        api.jobs.replicas = (replica("loading"), replica(able, "opensora"))
        assert estimate(api)["model"] == "opensora"
    on_gpu(api, mochi=20.0, opensora=20.0)
    assert estimate(api)["model"] == "mochi"


def test_of_those_that_can_the_one_that_is_free_first_is_the_one(api: Api) -> None:
    """As it will get the video; of equals the preferred one."""
    on_gpu(api, mochi=140.0, opensora=140.0)
    free, busy, unknown = (Times(start_s=start_s, make_s=9.0) for start_s in (0.0, 60.0, None))
    for mochi, opensora, expected in (
        (busy, free, "opensora"),
        (unknown, busy, "opensora"),
        (free, free, "mochi"),
        (unknown, unknown, "mochi"),
    ):
        api.jobs.times = {"mochi": mochi, "opensora": opensora}
        assert estimate(api)["model"] == expected
    api.jobs.times = {"mochi": busy, "opensora": free}
    on_gpu(api, mochi=140.0, opensora=20.0)
    assert estimate(api)["model"] == "mochi"


def test_of_several_replicas_the_one_where_it_fits_worst_counts(api: Api) -> None:
    """Any of them may get the video."""
    at = [Placement(mode=MODES[0], available_gb=gb, total_gb=80) for gb in (79.0, 12.5, 60.0)]
    api.jobs.replicas = tuple(replica(gpu=True, placement=one) for one in at)
    found = estimate(api, model="mochi")
    assert (found["available_gb"], found["fits"]) == (12.5, False)


def test_the_estimate_says_how_the_weights_lie(api: Api) -> None:
    """Where they do not lie as they were published."""
    for weights, said in (("streamed", "in the host's memory"), ("nf4", "in 4 bits")):
        on_gpu(api, Mode(transformer=weights, take_turns=True), mochi=40.0)
        found = estimate(api, model="mochi")
        assert f"; the transformer's weights are {said}" in found["placement"]


def test_on_the_cpu_nothing_is_compared(api: Api) -> None:
    """The memory is what a GPU would need."""
    found = estimate(api, model="mochi")
    assert (found["available_gb"], found["fits"], found["nearest"]) == (None, None, None)
    assert found["placement"].startswith("on the CPU; ")
    assert found["peak_gb"] > 30


def test_before_a_model_is_ready_its_placement_is_not_known(api: Api) -> None:
    """Nor where no replica was heard of yet."""
    api.jobs.replicas = ()
    found = estimate(api, model="mochi")
    assert (found["models"][0]["state"], found["fits"]) == ("loading", None)
    assert found["placement"].startswith("not known before a model is ready; ")


def test_a_model_without_figures_is_estimated_without_memory(api: Api) -> None:
    """One whose checkpoint lacks a part, or a backend of somebody else."""
    api.jobs.figures = {}
    found = estimate(api)
    assert (found["memory"], found["peak_gb"], found["work_tflop"]) == ([], None, None)
    assert found["generated_width"] == 720


def test_making_and_waiting_add_up(api: Api) -> None:
    """As long as both are known."""
    assert estimate(api)["seconds_to_make"] is None
    api.jobs.times = {"mochi": Times(start_s=12.04, make_s=80.0)}
    found = estimate(api, model="mochi")
    seconds = [found[f"seconds_{name}"] for name in ("until_start", "to_make", "left")]
    assert seconds == [12.0, 80.0, 92.0]
    api.jobs.times = {"mochi": Times(start_s=None, make_s=80.0)}
    assert estimate(api, model="mochi")["seconds_left"] is None


def test_a_long_clip_is_made_in_segments(api: Api) -> None:
    """Each but the first begins with a picture, which is encoded; their work adds up."""
    on_gpu(api, opensora=140.0)
    found = estimate(api, num_frames=240)
    assert (found["model"], found["segments"], found["generated_frames"]) == ("opensora", 2, 121)
    assert found["routing"] == "240 frames: more than mochi's 163"
    assert [phase["phase"] for phase in found["memory"]] == ["text", "encode", "denoise", "decode"]
    assert found["work_tflop"]["encode"] > 0


@pytest.mark.parametrize("kind", ["file", "url"])
def test_a_picture_counts_by_being_there(api: Api, kind: str) -> None:
    """Nobody looks into it."""
    url = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    if kind == "url":
        answer = api.http.post("/v1/videos/estimate", json=ASKED | {"input_reference": url})
    else:
        fields = {name: str(value) for name, value in ASKED.items()}
        files = {"input_reference": ("x.png", b"no picture")}
        answer = api.http.post("/v1/videos/estimate", data=fields, files=files)
    assert answer.json()["routing"] == "image given: opensora makes videos from images"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"seconds": "2.51", "num_frames": None}, "seconds"),
        ({"size": "720x721"}, "size"),
        ({"model": "veo"}, "model"),
        ({"model": "mochi", "num_frames": 240}, "num_frames"),
        ({"quality": "draft"}, "quality"),
        ({"prompt": "a"}, "prompt"),
        ({"spell": 1}, "'spell'"),
        ({"input_reference": "https://example.org/x.png"}, "input_reference"),
    ],
)
def test_it_refuses_what_creating_refuses(api: Api, fields: dict[str, Any], param: str) -> None:
    """In the same words."""
    asked = api.http.post("/v1/videos/estimate", json=ASKED | fields)
    agreed = {"X-Lawful-Use-Consent": "true"}
    made = api.http.post("/v1/videos", json=ASKED | fields, headers=agreed)
    assert (asked.status_code, asked.json()) == (made.status_code, made.json())
    assert openai_error(asked, 400, "invalid_request")["param"] == param


def test_nothing_is_stored_and_nobody_has_to_agree(api: Api) -> None:
    """Not even where creating is refused for now."""
    estimate(api, lawful_use_consent=False, deadline_s=5)
    assert not api.jobs.jobs
    assert api.http.post("/v1/videos", json=ASKED).status_code == 403
