"""Kills: what dies, in which phase of a job, and what becomes of the jobs."""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.graph import SMALL, Graph, Launched

VICTIMS = ("model", "encoder", "jobs", "ingress", "proxy", "controller", "everything")
PHASES = ("queued", "loading", "denoise", "decode", "encode")
# Whom the names of the table stand for in the graph.
PARTS = {"model": "painter"}
# Seconds in each phase: 20 steps of 0.05 s, 28 decoded chunks of 0.05 s, 163 frames to encode.
LONG = SMALL | {
    "prompt": "a steady and thorough hand",
    "width": "1280",
    "height": "720",
    "num_frames": "163",
    "num_inference_steps": "20",
}
LOAD_S = 3.0
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Outcome:
    """What one kill did.

    Attributes:
        jobs, lost: how many were there, and how many of them did not complete.
        twice: how many of them completed, or have a file, more than once.
        left_over: half-written files and markers afterwards.
        attempts: of the job that the kill met.
        door_s: from the kill to the next answer about that job.
        recover_s: from the kill to its end, less what was left of it without a kill.
    """

    victim: str
    phase: str
    jobs: int
    lost: int
    twice: int
    left_over: int
    attempts: int
    door_s: float
    recover_s: float


class Scene:
    """A running service with the painter, whose every part can be killed."""

    def __init__(self, service: Launched, graph: Graph, folder: Path) -> None:
        self.service, self.graph, self._folder = service, graph, folder
        self._undisturbed: dict[str, float] = {}

    def act(self, victim: str, phase: str) -> Outcome:
        """Kill `victim` while a job is in `phase`, with another one behind it, and look on."""
        left_s = self._left_undisturbed(phase)
        watched, others = self._reach(phase)
        self.service.kill(PARTS.get(victim, victim))
        killed_at = time.time()
        self.graph.wait(lambda: self.graph.job(watched), lambda job: "status" in job, PATIENCE_S)
        door_s = time.time() - killed_at
        ended = {i: self.graph.until_done(i, PATIENCE_S) for i in [watched, *others]}
        files = self._files_of(ended)
        completed = self._completions(ended)
        return Outcome(
            victim=victim,
            phase=phase,
            jobs=len(ended),
            lost=sum(files[i] < 1 or job["status"] != "completed" for i, job in ended.items()),
            twice=sum(files[i] > 1 or completed[i] > 1 for i in ended),
            left_over=self._left_over(),
            attempts=ended[watched]["attempts"],
            door_s=round(door_s, 1),
            recover_s=round(self._ended_at(watched) - killed_at - left_s, 1),
        )

    def record_transitions(self) -> None:
        """Have the database itself write down every change of a job's status."""
        with closing(self._database()) as database, database:
            database.executescript(
                "CREATE TABLE IF NOT EXISTS transitions (job TEXT, status TEXT);"
                "CREATE TRIGGER IF NOT EXISTS record_transition AFTER UPDATE OF status ON jobs "
                "BEGIN INSERT INTO transitions VALUES (NEW.id, NEW.status); END;"
            )

    # --- before the kill -------------------------------------------------------------------

    def _left_undisturbed(self, phase: str) -> float:
        """Return how long a job takes from this phase to its end when nothing dies."""
        if phase not in self._undisturbed:
            watched, others = self._reach(phase)
            began = time.time()
            for job_id in [watched, *others]:
                assert self.graph.until_done(job_id, PATIENCE_S)["status"] == "completed"
            self._undisturbed[phase] = self._ended_at(watched) - began
        return self._undisturbed[phase]

    def _reach(self, phase: str) -> tuple[str, list[str]]:
        """Bring a job into a phase; returns it and the other jobs that are there."""
        self._until_a_job_runs()
        others = []
        if phase == "queued":
            slow = {"prompt": "a slow hand before it", "num_inference_steps": "20"}
            others.append(self.graph.submit(**slow))
            self.graph.until(others[0], "denoise", PATIENCE_S)
        if phase == "loading":  # the job is given to a model that is still being loaded
            self.service.kill("painter")
        watched = self.graph.submit(**LONG)
        others.append(self.graph.submit(prompt="a hand behind it"))
        self.graph.until(watched, phase, PATIENCE_S)
        return watched, others

    def _until_a_job_runs(self) -> None:
        """Return when whatever was killed last is back: a small job has gone through."""

        def ask() -> int:
            return self.graph.http.post("/generate", data=SMALL).status_code

        self.graph.wait(ask, lambda status: status == 200, PATIENCE_S)

    # --- after it --------------------------------------------------------------------------

    def _files_of(self, ended: dict[str, Any]) -> dict[str, int]:
        """Return how many videos in the folder are each job's, by the names in the rows. A file
        that no row names is a second one of somebody: it counts against the first job."""
        there = {path.name for path in (self._folder / "outputs").glob("*.mp4")}
        with closing(self._database()) as database:
            names = dict(database.execute("SELECT id, file_name FROM jobs"))
        strangers = len(there - set(names.values()))
        counts = {job_id: int(names[job_id] in there) for job_id in ended}
        counts[next(iter(counts))] += strangers
        return counts

    def _completions(self, ended: dict[str, Any]) -> dict[str, int]:
        query = "SELECT count(*) FROM transitions WHERE job = ? AND status = 'completed'"
        with closing(self._database()) as database:
            return {i: database.execute(query, (i,)).fetchone()[0] for i in ended}

    def _ended_at(self, job_id: str) -> float:
        query = "SELECT finished_at FROM jobs WHERE id = ?"
        with closing(self._database()) as database:
            return float(database.execute(query, (job_id,)).fetchone()[0])

    def _left_over(self) -> int:
        folder = self._folder / "outputs"
        return len([*folder.glob("*.part"), *folder.glob(".*.reserved")])

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self._folder / "state/jobs.sqlite3", timeout=30)


def encode_quickly(config: Path) -> None:
    """Change the config: what is measured here is not the encoder."""
    values = yaml.safe_load(config.read_text())
    values["applications"][0]["args"]["encoder"]["preset"] = "ultrafast"
    config.write_text(yaml.safe_dump(values))
