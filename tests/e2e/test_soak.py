"""Kill matrix and burst: `make soak`. Minutes long, on loopback only, bounded.

The matrix goes into `.soak/faults.json`, cell by cell, so that it may be run in pieces (`-k jobs`).
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import fault_table
from tests.e2e.graph import Graph, Launched, free_port, launched, write_config
from tests.e2e.kills import LOAD_S, LONG, PATIENCE_S, PHASES, VICTIMS, Scene, encode_quickly

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

BURST = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soak")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Launched]:
    config = write_config(folder, free_port())
    encode_quickly(config)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PAINTER_LOAD_S", str(LOAD_S))
        with launched(config, folder / "log") as running:
            yield running


@pytest.fixture(scope="module")
def scene(service: Launched, folder: Path) -> Scene:
    graph = Graph(service.port)
    graph.until_ready(1, PATIENCE_S)
    scene = Scene(service, graph, folder)
    scene.record_transitions()
    return scene


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_kill_in_any_phase_loses_no_job(scene: Scene, victim: str, phase: str) -> None:
    """kill -9: every job completes once, with one file, and nothing half-written stays."""
    outcome = scene.act(victim, phase)
    fault_table.keep(outcome)
    assert (outcome.lost, outcome.twice, outcome.left_over) == (0, 0, 0), outcome


def test_a_job_whose_model_dies_again_and_again_is_given_up(scene: Scene, folder: Path) -> None:
    """After `max_attempts` runs it fails as `interrupted`, without a file; the next one works."""
    graph = scene.graph
    job_id = graph.submit(**LONG)
    for attempt in (1, 2, 3):
        graph.wait(
            lambda: graph.job(job_id),
            lambda job, n=attempt: (job["attempts"], job["phase"]) == (n, "denoise"),
            PATIENCE_S,
        )
        scene.service.kill("painter")
    job = graph.until_done(job_id, PATIENCE_S)
    assert (job["status"], job["error"]["code"], job["attempts"]) == ("failed", "interrupted", 3)
    before = len(list((folder / "outputs").glob("*.mp4")))
    assert graph.until_done(graph.submit(), PATIENCE_S)["status"] == "completed"
    assert len(list((folder / "outputs").glob("*.mp4"))) == before + 1


def test_a_burst_is_served_to_the_last(scene: Scene, folder: Path) -> None:
    """Many at once: every one gets a file of its own, and nothing is left half-written."""
    before = len(list((folder / "outputs").glob("*.mp4")))
    urls: list[str] = []
    threads = [
        threading.Thread(target=lambda: urls.append(str(scene.graph.generate()["video_url"])))
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
