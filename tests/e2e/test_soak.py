"""Kill matrix and burst: `make soak`. Minutes long, on loopback only, bounded."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.graph import Graph, cluster, configure, kill, painter, serving

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

BURST = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soak")


@pytest.fixture(scope="module")
def graph(folder: Path) -> Iterator[Graph]:
    with cluster(num_cpus=4), serving(configure(folder, painter())) as running:
        running.until_ready(1)
        yield running


@pytest.mark.parametrize("phase", ["queued", "denoise", "encode"])
@pytest.mark.parametrize("victim", ["painter", "encoder", "jobs", "ingress"])
def test_a_kill_in_any_phase_loses_no_job(
    graph: Graph, folder: Path, victim: str, phase: str
) -> None:
    """kill -9 of each replica in each phase: the job completes once, with one file."""
    graph.until_ready(1)
    before = len(list((folder / "outputs").glob("*.mp4")))
    if phase == "queued":
        graph.submit(prompt="a slow hand before it")
        before += 1
    job_id = graph.submit(
        prompt="a steady hand",
        width="1280",
        height="720",
        num_frames="163",
        num_inference_steps="20",
    )
    graph.until(job_id, phase)
    kill(victim)
    job = graph.until_done(job_id, timeout_s=180)
    assert job["status"] == "completed", job
    assert len(list((folder / "outputs").glob("*.mp4"))) == before + 1
    assert graph.download(job["video_url"])


def test_a_burst_is_served_to_the_last(graph: Graph, folder: Path) -> None:
    """Many at once: every one gets a file of its own, and nothing is left half-written."""
    graph.until_ready(1)
    before = len(list((folder / "outputs").glob("*.mp4")))
    urls: list[str] = []
    threads = [
        threading.Thread(target=lambda: urls.append(str(graph.generate()["video_url"])))
        for _ in range(BURST)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(urls)) == BURST
    names = [path.name for path in (folder / "outputs").iterdir() if path.is_file()]
    assert len(names) == before + BURST
    assert all(name.endswith(".mp4") for name in names)
