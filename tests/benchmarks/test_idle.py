"""How the benchmark of a model's rest counts."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.idle import NOTES, Generation, NotedMochi, rests
from deployments.core.events import BackendEvent, Step
from deployments.mochi import Mochi


def test_a_rest_is_the_gap_before_a_job_and_its_pauses() -> None:
    """As a share of the time between two ends."""
    jobs = [Generation(0.0, 10.0, 0.0), Generation(10.5, 20.0, 0.1), Generation(20.0, 40.0, 0.0)]
    first, second = rests(jobs)
    assert (first.seconds, first.gap_s, first.paused_s) == (10.0, 0.5, 0.1)
    assert first.share == pytest.approx(0.06)
    assert second.share == 0.0


def test_a_generation_notes_when_it_began_ended_and_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause is what passes between two steps outside of the model."""

    def steps(*_: object) -> Iterator[BackendEvent]:
        for step in (1, 2):
            time.sleep(0.02)
            yield Step(step, 2)

    notes = tmp_path / "notes"
    monkeypatch.setenv(NOTES, str(notes))
    monkeypatch.setattr(Mochi, "generate", steps)
    model = object.__new__(NotedMochi)
    for _ in model.generate(object()):
        time.sleep(0.05)
    noted = Generation(**json.loads(notes.read_text()))
    assert 0.1 <= noted.paused_s < noted.ended - noted.began - 0.04
