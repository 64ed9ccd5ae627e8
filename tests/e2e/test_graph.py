"""The real graph in a real cluster: one start for all tests of this file."""

import json
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from deployments.core import mp4
from deployments.core.checkpoints import BUNDLED_DIR
from deployments.core.config import ModelConfig, WebhookConfig
from deployments.core.loras import linears_of
from deployments.metrics import METRICS, RESTARTS
from tests.e2e import telemetry
from tests.e2e.graph import SMALL, Graph, cluster, configure, kill, painter, replica_pids, serving
from tests.receiver import SECRET, Receiver, receiving
from tests.tiny_lora import write_lora
from training.evaluate import read_frames
from training.render import render
from training.scenes import draw_scene

# Two steps, then nine runs of frames, of half a second each: three chunks go to the encoder, after
# 2, 4 and 4.5 s of decoding.
SLOW = {"prompt": "a slow and thorough hand", "num_inference_steps": "2", "num_frames": "49"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graph")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Hears of the end of every job of this file."""
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def graph(folder: Path, receiver: Receiver) -> Iterator[Graph]:
    (folder / "loras").mkdir()
    # A thread each: other tests run beside these.
    mochi = ModelConfig(name="mochi", cpu_threads=1, loras_dir=str(folder / "loras"))
    models = (mochi, ModelConfig(name="opensora", cpu_threads=1), painter())
    webhook = WebhookConfig(url=receiver.url, secret=SECRET, allow_private=True)
    config = configure(folder, *models, webhooks=(webhook,))
    with cluster(num_cpus=4), serving(config, logs=folder / "logs") as running:
        running.until_ready(3)
        yield running


def test_a_prompt_becomes_the_clip_that_was_asked_for(graph: Graph, folder: Path) -> None:
    """Size, length and rate exactly; the answer has the seed's keys."""
    answer = graph.generate(prefer_backend="mochi", width="264", height="360", fps="10")
    assert answer["success"] is True
    assert answer["backend"] == "mochi"
    clip = folder / "clip.mp4"
    clip.write_bytes(graph.download(answer["video_url"]))
    info = mp4.probe(clip)
    assert (info.width, info.height, info.num_frames) == (264, 360, 13)
    assert Path(answer["mp4_path"]).read_bytes() == clip.read_bytes()


@pytest.mark.system
def test_a_lora_file_changes_the_videos_that_ask_for_it(graph: Graph, folder: Path) -> None:
    """Put into the folder while the service runs; the next video without it is as before."""
    before = graph.download(graph.generate(prefer_backend="mochi")["video_url"])
    linears = linears_of(str(BUNDLED_DIR / "mochi-tiny"))
    assert linears is not None
    out, into = linears[layer := "transformer_blocks.1.ff.net.2"]
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(4, into, generator=generator), torch.randn(out, 4, generator=generator)
    matrices = {layer: (down / into**0.5, up / 2)}
    write_lora(folder / "loras" / "style.safetensors", matrices)
    [mochi] = [one for one in graph.http.get("/v1/models").json()["data"] if one["id"] == "mochi"]
    assert [(one["name"], one["problem"]) for one in mochi["loras"]] == [("style", "")]
    answer = graph.generate(loras="style:0.8")
    assert (answer["backend"], "style is unknown to opensora" in answer["routing"]) == (
        "mochi",
        True,
    )
    assert graph.job(answer["job_id"])["loras"] == [{"name": "style", "strength": 0.8}]
    changed = folder / "changed.mp4"
    changed.write_bytes(graph.download(answer["video_url"]))
    comment = mp4.probe(changed).comment
    assert comment is not None
    assert json.loads(comment)["loras"] == [{"name": "style", "strength": 0.8}]
    plain = folder / "plain.mp4"
    plain.write_bytes(before)
    assert not np.array_equal(read_frames(changed, 256), read_frames(plain, 256))
    assert graph.download(graph.generate(prefer_backend="mochi")["video_url"]) == before


def test_without_a_gpu_every_model_runs_on_the_cpu(graph: Graph) -> None:
    """All ask for half a GPU with `device: auto`; nothing waits for one that is not there."""
    replicas = graph.http.get("/system-info").json()["replicas"]
    assert [replica["device"] for replica in replicas] == ["cpu"] * 3


def test_a_video_is_estimated_with_the_figures_of_its_checkpoint(graph: Graph) -> None:
    """They come from the build, and the times from what was made here."""
    graph.generate(prefer_backend="mochi")
    asked = {"prompt": "a red ball", "model": "mochi", "size": "256x256", "num_frames": 13}
    estimate = graph.http.post("/v1/videos/estimate", json=asked).json()
    [denoise] = [phase for phase in estimate["memory"] if phase["phase"] == "denoise"]
    weights = sum(denoise["weights_gb"].values()) * 2**30 / 2  # bfloat16
    assert 1e5 < weights < 1e8, "the bundled Mochi is tiny"
    assert estimate["seconds_to_make"] > 0
    assert (estimate["models"][0]["state"], estimate["fits"]) == ("ready", None)
    assert estimate["placement"].startswith("on the CPU")


def test_a_picture_begins_the_clip(graph: Graph, folder: Path) -> None:
    """It is the first frame, brought to the video's shape; Open-Sora makes it, and says why."""
    picture = render(draw_scene(np.random.default_rng(3), background="lake"), 300, 400, 1)[0]
    file = BytesIO()
    Image.fromarray((picture * 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    answer = graph.http.post("/generate", data=SMALL, files={"image": file.getvalue()}).json()
    assert (answer["success"], answer["backend"]) == (True, "opensora"), answer
    assert answer["routing"] == "image given: opensora makes videos from images"
    clip = folder / "picture.mp4"
    clip.write_bytes(graph.download(answer["video_url"]))
    expected = picture[:, 50:350, :]
    shown = Image.fromarray(read_frames(clip, 256)[0]).resize((96, 96), Image.Resampling.BOX)
    wanted = Image.fromarray((expected * 255).astype(np.uint8)).resize(
        (96, 96), Image.Resampling.BOX
    )
    error = np.square(np.asarray(shown, float) - np.asarray(wanted, float)).mean()
    assert 10 * np.log10(255**2 / error) > 18


@pytest.mark.system
def test_the_longest_clip_is_joined_without_a_seam(graph: Graph, folder: Path) -> None:
    """240 frames, more than any model makes in one go: no frame is missing, black or repeated at
    the joints."""
    answer = graph.generate(
        num_frames="240", num_inference_steps="6", prompt="a red ball moving right over a lake"
    )
    assert (answer["backend"], answer["segments"]) == ("opensora", 3)
    assert answer["routing"].startswith("240 frames: more than mochi's 163")
    clip = folder / "long.mp4"
    clip.write_bytes(graph.download(answer["video_url"]))
    assert mp4.probe(clip).num_frames == 240
    frames = read_frames(clip, 256).astype(float)
    moved = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert frames.mean(axis=(1, 2, 3)).min() > 10
    assert moved[79:82].min() > 0
    assert moved[159:162].min() > 0


@pytest.mark.system
def test_the_same_seed_gives_the_same_bytes(graph: Graph) -> None:
    """Also when the model was stopped in the middle of another job, and in a new process."""
    first = graph.generate(prefer_backend="mochi")
    job_id = graph.submit(prefer_backend="mochi", num_frames="163", seed="9")
    graph.until(job_id, "denoise")
    assert graph.http.post(f"/v1/videos/{job_id}/cancel").json()["status"] == "failed"
    second = graph.generate(prefer_backend="mochi")
    kill("mochi")
    third = graph.generate(prefer_backend="mochi")
    files = [graph.download(answer["video_url"]) for answer in (first, second, third)]
    assert len({answer["video_url"] for answer in (first, second, third)}) == 3
    assert files[0] == files[1] == files[2]


def test_the_light_replicas_have_not_loaded_torch(graph: Graph) -> None:
    """Seen in the memory maps of the running processes; the model is the counter-example."""

    def has_torch(deployment: str) -> bool:
        (pid,) = replica_pids(deployment)
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()

    graph.generate(prefer_backend="painter")
    assert {name: has_torch(name) for name in ("ingress", "encoder", "jobs", "mochi")} == {
        "ingress": False,
        "encoder": False,
        "jobs": False,
        "mochi": True,
    }


def test_concurrent_requests_queue_and_none_is_lost(graph: Graph) -> None:
    """Ten at once: ten files, each its own."""
    urls: list[str] = []

    def ask() -> None:
        urls.append(graph.generate(prefer_backend="painter")["video_url"])

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(urls)) == 10


def test_a_client_that_leaves_stops_the_model_within_a_step(graph: Graph) -> None:
    """The next job starts at once; a slow job would have taken four seconds more."""
    gone = httpx.Client(base_url=graph.url, timeout=1.5)
    with pytest.raises(httpx.ReadTimeout):
        gone.post("/generate", data=SMALL | {"prefer_backend": "painter", "prompt": "slow one"})
    gone.close()
    began = time.monotonic()
    graph.generate(prefer_backend="painter")
    assert time.monotonic() - began < 3


@pytest.mark.system
@pytest.mark.parametrize("phase", ["denoise", "decode"])
def test_a_killed_model_costs_its_job_nothing_but_time(
    graph: Graph, folder: Path, phase: str
) -> None:
    """The job runs again on the replica that takes its place; the file that was begun is gone."""
    job_id = graph.submit(prefer_backend="painter", **SLOW)
    graph.until(job_id, phase)
    if phase == "decode":
        until_encoded(graph, 24)
    kill("painter")
    job = graph.until_done(job_id)
    assert job["status"] == "completed", job
    assert job["attempts"] == 2
    until_clean(graph, folder)


@pytest.mark.system
@pytest.mark.parametrize("phase", ["decode", "encode"])
def test_a_killed_encoder_costs_no_time_of_the_model(graph: Graph, phase: str) -> None:
    """The frames are still there: the file is written again, in the same attempt."""
    long = {"width": "1280", "height": "720", "num_frames": "97"}
    job_id = graph.submit(prefer_backend="painter", **(SLOW if phase == "decode" else long))
    graph.until(job_id, phase)
    if phase == "decode":
        until_encoded(graph, 24)
    kill("encoder")
    job = graph.until_done(job_id)
    assert (job["status"], job["attempts"]) == ("completed", 1), job


def test_frames_are_encoded_while_the_next_are_decoded(graph: Graph, folder: Path) -> None:
    """ffmpeg has read the first of them; a cancel then stops it and leaves no file."""
    job_id = graph.submit(prefer_backend="painter", **SLOW)
    graph.until(job_id, "decode")
    until_encoded(graph, 24)
    assert graph.job(job_id)["phase"] == "decode"
    job = graph.http.post(f"/v1/videos/{job_id}/cancel").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "cancelled")
    until_clean(graph, folder)
    assert ffmpegs() == []


def ffmpegs() -> list[psutil.Process]:
    (encoder,) = replica_pids("encoder")
    return [child for child in psutil.Process(encoder).children() if "ffmpeg" in child.name()]


def until_encoded(graph: Graph, frames: int) -> None:
    """Wait until an ffmpeg has read so many frames of 256x256 pixels."""
    frame_bytes = 3 * 256 * 256

    def read() -> int:
        return max(process.io_counters().read_chars for process in ffmpegs())

    graph.wait(read, lambda count: count >= frames * frame_bytes, 20)


def until_clean(graph: Graph, folder: Path) -> None:
    """Wait until nothing half-written is left: a cancel takes a moment to reach the encoder."""
    graph.wait(
        lambda: list((folder / "outputs").glob(".*")) + list((folder / "outputs").glob("*.part")),
        lambda left: [path.name for path in left] in ([], [".previews"]),
        5,
    )


@pytest.mark.system
@pytest.mark.parametrize("part", ["ingress", "proxy", "controller"])
def test_a_job_goes_on_while_the_service_is_put_together_again(graph: Graph, part: str) -> None:
    """The HTTP side and Serve's controller have no part in a job that runs."""
    job_id = graph.submit(prefer_backend="painter", prompt="a slow hand", num_inference_steps="4")
    graph.until(job_id, "denoise")
    kill(part)
    job = graph.until_done(job_id)
    assert (job["status"], job["attempts"]) == ("completed", 1), job


@pytest.mark.system
def test_a_killed_jobs_replica_loses_nothing(graph: Graph) -> None:
    """Running, waiting, and with a client that waits for the answer: all complete."""
    graph.until_ready(3)
    answers: list[dict[str, object]] = []
    running = graph.submit(prefer_backend="painter", prompt="a slow hand")
    graph.until(running, "denoise")
    waiting = graph.submit(prefer_backend="painter")
    client = threading.Thread(
        target=lambda: answers.append(graph.generate(prefer_backend="painter"))
    )
    client.start()
    time.sleep(0.5)
    kill("jobs")
    for job_id in (running, waiting):
        job = graph.until_done(job_id)
        assert job["status"] == "completed", job
    client.join(60)
    assert answers
    assert answers[0]["success"] is True


def test_health_answers_at_once_while_a_model_works(graph: Graph) -> None:
    """Nobody asks the busy model: its state was pushed."""
    graph.until_ready(3)
    job_id = graph.submit(prefer_backend="painter", prompt="a slow hand")
    graph.until(job_id, "denoise")
    began = time.monotonic()
    answers = [graph.http.get(path) for path in ("/health", "/system-info", "/v1/models")]
    assert time.monotonic() - began < 1
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].json()["status"] == "healthy"
    graph.http.post(f"/v1/videos/{job_id}/cancel")


def test_a_job_is_followed_through_all_replicas_by_its_id(graph: Graph, folder: Path) -> None:
    """In the JSON logs, where the ingress also names the request."""
    job_id = graph.submit(prefer_backend="painter")
    graph.until_done(job_id)
    replicas = {"ingress", "jobs", "painter", "encoder"}
    expected = {"accepted", "given to painter", "painter begins", "completed"}

    def said(lines: list[tuple[str, dict[str, Any]]]) -> set[str]:
        return {line["message"].removeprefix(f"video_id={job_id}: ") for _, line in lines}

    # A job is done before the last line about it is written.
    lines = Graph.wait(
        lambda: telemetry.lines_about(job_id, folder / "logs"),
        lambda found: replicas <= {name for name, _ in found} and expected <= said(found),
        10,
    )
    assert expected <= said(lines)
    requests = {line["request_id"] for _, line in lines if line["message"].endswith("accepted")}
    assert len(requests) == 1


def test_every_metric_is_there_after_a_job(graph: Graph, receiver: Receiver) -> None:
    """At the node's port for Prometheus; those of a GPU once a replica reports one. Nothing counts
    restarts here, as no replica restarts by itself."""
    job_id = graph.submit(prefer_backend="mochi", num_inference_steps="2")
    graph.until_done(job_id)
    telemetry.report_a_gpu()
    there = [metric for metric in METRICS if metric is not RESTARTS]
    names = {name for metric in there for name in metric.exported}
    values = Graph.wait(telemetry.metrics, lambda found: names <= telemetry.names_of(found), 60)
    jobs = "ray_video_jobs_total{model=mochi,outcome=completed}"
    assert values[jobs] >= 1
    assert values["ray_video_step_seconds_count{model=mochi}"] >= 2
    assert values["ray_video_prompts_total{cache=miss,model=mochi}"] >= 1
    assert ("video.completed", job_id) in receiver.events
