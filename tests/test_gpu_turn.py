"""Turns at a shared GPU, between threads and processes that each have their own place."""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from deployments import gpu_turn
from deployments.core.events import Waiting
from deployments.gpu_turn import GpuTurn

CARD = "GPU-5e3a"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_turn, "POLL_S", 0.001)
    monkeypatch.setattr(gpu_turn, "TELL_EVERY_S", 0.002)
    return tmp_path


def is_had(turn: GpuTurn) -> bool:
    """Whether the turn comes at once; it is had then."""
    waiting = turn.wait()
    had = next(waiting, None) is None
    waiting.close()
    return had


def test_one_at_a_time_has_the_turn() -> None:
    """Of one card; another card's is another turn."""
    mine, other = GpuTurn(CARD), GpuTurn(CARD)
    assert is_had(mine)
    assert not is_had(other)
    assert is_had(GpuTurn("MIG-GPU-5e3a/1/0"))
    mine.give_back()
    assert is_had(other)


def test_waiting_says_so_and_can_be_stopped() -> None:
    """Who stops waiting leaves the queue: those behind are not held up."""
    first, second, third = GpuTurn(CARD), GpuTurn(CARD), GpuTurn(CARD)
    assert is_had(first)
    waiting, behind = second.wait(), third.wait()
    assert [next(waiting), next(behind), next(waiting)] == [Waiting()] * 3
    first.give_back()
    waiting.close()
    assert next(behind, None) is None


def test_nobody_overtakes() -> None:
    """A neighbour that runs job after job waits behind those that came before its next one."""
    served: list[str] = []
    ready = threading.Barrier(3)

    def work(name: str, jobs: int) -> None:
        turn = GpuTurn(CARD)
        ready.wait()
        for _ in range(jobs):
            list(turn.wait())
            served.append(name)
            time.sleep(0.02)  # a job: the others have long drawn their tickets
            turn.give_back()

    workers = [threading.Thread(target=work, args=(name, 6)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    rounds = [set(served[at : at + 3]) for at in range(0, 18, 3)]
    assert rounds == [set("abc")] * 6


def _hold(folder: str, had: Event) -> None:
    tempfile.tempdir = folder
    turn = GpuTurn(CARD)
    assert is_had(turn)
    had.set()
    time.sleep(60)


def test_a_killed_process_gives_its_turn_back(temporary: Path) -> None:
    """The kernel does it: nothing is left that would have to be removed by hand."""
    context = multiprocessing.get_context("spawn")
    had = context.Event()
    holder = context.Process(target=_hold, args=(str(temporary), had))
    holder.start()
    assert had.wait(20)
    turn = GpuTurn(CARD)
    assert not is_had(turn)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join(20)
    assert is_had(turn)
    turn.give_back()
    assert [path.name for path in temporary.glob("*/*/*")] == ["lock"]


def test_the_folder_may_be_tidied_away_between_jobs(temporary: Path) -> None:
    """As systems do with temporary files of which nobody asks for days."""
    turn = GpuTurn(CARD)
    for _ in range(2):
        assert is_had(turn)
        turn.give_back()
        for path in sorted(temporary.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_a_folder_of_somebody_else_is_not_trusted(temporary: Path) -> None:
    """Everybody may write where temporary files are."""
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / f"video-service-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="is not a folder of this user"):
        is_had(GpuTurn(CARD))
