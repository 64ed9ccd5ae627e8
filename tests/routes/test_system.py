"""`/health`, `/system-info` and `/v1/models`: from memory, at once, and true."""

import time
from pathlib import Path

import pytest

from deployments.core.memory import MODES, Placement
from tests.scripted_jobs import MOCHI, OPENSORA, Api, open_api, replica

INFO_KEYS = [
    "cuda_available",
    "device_name",
    "total_vram_gb",
    "free_vram_gb",
    "used_vram_gb",
    "cpu_percent",
    "ram_available_gb",
    "ram_total_gb",
    "backend",
]


def test_a_ready_model_is_healthy_in_the_words_of_the_api_reference(api: Api) -> None:
    """The four keys of the seed first."""
    answer = api.http.get("/health")
    assert answer.status_code == 200
    body = answer.json()
    assert list(body)[:4] == ["status", "backend", "cuda_available", "message"]
    assert body["status"] == "healthy"
    assert body["backend"] == "mochi"
    assert body["cuda_available"] is False
    assert body["message"] == "Service operational with mochi backend"
    assert body["models"]["mochi"] == {
        "state": "ready",
        "reason": "",
        "checkpoint": "mochi-tiny",
        "bundled": True,
    }


@pytest.mark.parametrize(
    ("states", "status", "words"),
    [
        ([], "degraded", "mochi is loading (it has not reported yet)"),
        (["loading"], "degraded", "No model is ready yet: mochi is loading"),
        (["lost"], "degraded", "mochi is lost"),
        (["restarting"], "degraded", "mochi is restarting"),
        (["restarting", "loading"], "degraded", "mochi is loading"),
        (["failed"], "unhealthy", "No model can serve: mochi is failed (no such folder)"),
        (["failed", "loading"], "degraded", "No model is ready yet"),
        (["failed", "ready"], "healthy", "Service operational with mochi backend"),
        (["unloaded"], "healthy", "Service operational with mochi backend"),
    ],
)
def test_health_follows_the_best_replica(
    api: Api, states: list[str], status: str, words: str
) -> None:
    """Unhealthy only when none can ever serve; that one is a 503."""
    api.jobs.replicas = tuple(
        replica(state, reason="no such folder" if state == "failed" else "")  # type: ignore[arg-type]
        for state in states
    )
    api.refresh()
    answer = api.http.get("/health")
    assert answer.json()["status"] == status
    assert words in answer.json()["message"]
    assert answer.status_code == (503 if status == "unhealthy" else 200)


def test_one_failed_model_of_two_degrades(tmp_path: Path) -> None:
    """The other one is the backend, and the sentence names both."""
    with open_api(tmp_path, cards=[OPENSORA, MOCHI]) as api:
        api.jobs.replicas = (replica("failed", "opensora", reason="out of memory"), replica())
        api.refresh()
        body = api.http.get("/health").json()
        assert (body["status"], body["backend"]) == ("degraded", "mochi")
        assert "opensora is failed (out of memory)" in body["message"]
        assert api.http.get("/system-info").json()["backend"] == "mochi"


def test_the_first_ready_model_in_configured_order_is_the_backend(tmp_path: Path) -> None:
    """Else the first configured."""
    with open_api(tmp_path, cards=[OPENSORA, MOCHI]) as api:
        for states, backend in [
            (("ready", "ready"), "opensora"),
            (("loading", "ready"), "mochi"),
            (("unloaded", "ready"), "opensora"),
            (("loading", "loading"), "opensora"),
        ]:
            api.jobs.replicas = (replica(states[0], "opensora"), replica(states[1]))  # type: ignore[arg-type]
            api.refresh()
            assert api.http.get("/health").json()["backend"] == backend


def test_a_gpu_with_only_the_demo_checkpoint_is_degraded_and_names_the_cure(api: Api) -> None:
    """The command fetches the published weights."""
    api.jobs.replicas = (replica(gpu=True),)
    api.refresh()
    body = api.http.get("/health").json()
    assert (body["status"], body["cuda_available"]) == ("degraded", True)
    assert "`make weights MODEL=mochi`" in body["message"]


def test_a_gpu_with_published_weights_is_healthy(tmp_path: Path) -> None:
    """Nothing is missing."""
    with open_api(tmp_path, cards=[MOCHI.model_copy(update={"bundled": False})]) as api:
        api.jobs.replicas = (replica(gpu=True),)
        api.refresh()
        assert api.http.get("/health").json()["status"] == "healthy"


def test_both_answer_at_once_while_the_jobs_deployment_is_down(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Degraded, says so, and keeps the last known figures."""
    api.jobs.replicas = (replica(gpu=True),)
    api.refresh()
    api.jobs.down = True
    monkeypatch.setattr("deployments.routes.watch.STALE_AFTER_S", 0.0)
    api.refresh()
    began = time.monotonic()
    health, info = api.http.get("/health"), api.http.get("/system-info")
    assert time.monotonic() - began < 0.5
    assert health.status_code == 200
    assert health.json()["status"] == "degraded"
    assert "does not answer" in health.json()["message"]
    assert info.json()["device_name"] == "NVIDIA H200"


def test_the_watch_outlives_an_error_that_nobody_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would otherwise report for ever how things once were."""
    monkeypatch.setattr("deployments.routes.watch.REFRESH_S", 0.01)
    with open_api(tmp_path) as api:
        broken = iter([None] * 3)
        state = api.jobs.state

        async def fail_three_times() -> object:
            for _ in broken:
                raise ZeroDivisionError
            return await state()

        monkeypatch.setattr(api.jobs, "state", fail_three_times)
        api.jobs.replicas = (replica("failed"),)
        deadline = time.monotonic() + 5
        while api.http.get("/health").json()["status"] != "unhealthy":
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_system_info_without_a_gpu_keeps_its_types(api: Api) -> None:
    """CPU and zeros instead of nulls."""
    info = api.http.get("/system-info").json()
    assert list(info)[: len(INFO_KEYS)] == INFO_KEYS
    assert info["cuda_available"] is False
    assert info["device_name"] == "CPU"
    vram = (info["total_vram_gb"], info["free_vram_gb"], info["used_vram_gb"])
    assert vram == (0.0, 0.0, 0.0)
    assert all(isinstance(figure, float) for figure in vram)
    assert 0 < info["ram_available_gb"] < info["ram_total_gb"]
    assert 0 <= info["cpu_percent"] <= 100
    assert info["gpus"] == []
    assert info["replicas"][0]["model"] == "mochi"


def test_system_info_with_a_gpu_is_in_gib_with_one_decimal(api: Api) -> None:
    """The figures of the GPU that serves the backend."""
    api.jobs.replicas = (replica(gpu=True), replica(gpu=True))
    api.refresh()
    info = api.http.get("/system-info").json()
    assert info["cuda_available"] is True
    assert info["device_name"] == "NVIDIA H200"
    assert info["total_vram_gb"] == 139.8
    assert info["used_vram_gb"] == 2.3
    assert info["free_vram_gb"] == 137.5
    assert [(gpu["uuid"], gpu["load_percent"]) for gpu in info["gpus"]] == [("GPU-1", 41)]
    assert len(info["replicas"]) == 2


def test_no_answer_tells_which_job_a_replica_runs(api: Api) -> None:
    """A job id opens the job: only its owner knows it."""
    api.jobs.replicas = (replica().model_copy(update={"job_id": "video_secret"}),)
    api.refresh()
    info = api.http.get("/system-info")
    assert info.json()["replicas"][0]["busy"] is True
    assert "video_secret" not in info.text


def test_models_list_their_limits_and_defaults(api: Api) -> None:
    """Enough for a form to be built from."""
    body = api.http.get("/v1/models").json()
    assert body["object"] == "list"
    (model,) = body["data"]
    assert (model["id"], model["object"]) == ("mochi", "model")
    assert model["limits"]["num_frames"] == {"minimum": 8, "maximum": 163, "multiple_of": None}
    assert model["limits"]["height"] == {"minimum": 256, "maximum": 1080, "multiple_of": 8}
    assert model["limits"]["loras"]["maximum"] == 4
    assert model["limits"]["lora_strength"] == {"minimum": -4, "maximum": 4, "multiple_of": None}
    assert model["limits"]["accepts_image"] is False
    assert model["limits"]["segment_frames"] == 163
    assert model["defaults"]["num_inference_steps"] == 20
    assert (model["checkpoint"], model["bundled"], model["state"]) == ("mochi-tiny", True, "ready")
    assert model["example_prompts"] == ["a red ball moving right"]


def test_a_model_tells_how_its_weights_lie(api: Api) -> None:
    """Once a replica on a GPU has said it; before that, what is configured."""
    assert api.http.get("/v1/models/mochi").json()["weights"] == "auto"
    placement = Placement(mode=MODES[-1], available_gb=8.0, total_gb=12.0)
    api.jobs.replicas = (replica("loading"), replica(gpu=True, placement=placement))
    api.refresh()
    assert api.http.get("/v1/models/mochi").json()["weights"] == "streamed"


def test_models_tell_what_a_picture_may_be_and_what_the_licence_asks(tmp_path: Path) -> None:
    """In configured order, each with its own limits."""
    with open_api(tmp_path, cards=[MOCHI, OPENSORA], limits={"max_image_megapixels": 5}) as api:
        mochi, opensora = api.http.get("/v1/models").json()["data"]
    assert (mochi["licence"], opensora["licence"]) == ("", "Apache 2.0")
    limits = opensora["limits"]
    assert (limits["accepts_image"], limits["max_image_megapixels"]) == (True, 5)
    assert (limits["num_frames"]["maximum"], limits["segment_frames"]) == (240, 129)
