"""How long a model's thread rests while jobs wait: what lies between the end of one generation and
the begin of the next.

A queue of jobs for one model on the real graph, with the bundled Mochi, whose generations note the
time on the model's own thread. A job's rest is the gap before it, and its own pauses between two
steps, in which the thread stores frames and the events go out. Aim: a median of at most 2 % of the
time from one end to the next, over jobs of 15 s or more.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from benchmarks.running import print_table, running_graph
from deployments.core.events import BackendEvent
from deployments.core.spec import VideoSpec
from deployments.mochi import Mochi

MODEL = "mochi"
NOTES = "BENCHMARK_IDLE_NOTES"
PROMPTS = ("a red ball moving right", "a blue square moving left", "a white ball moving up")
PLACES = ("over the sea at sunset", "in front of mountains", "over the sea at night", "over a lake")


@dataclass(frozen=True)
class Generation:
    """One generation, as the model's thread saw it; times of its own monotonic clock.

    Attributes:
        paused_s: between its steps, when the thread had something else to do, or nothing.
    """

    began: float
    ended: float
    paused_s: float


class NotedMochi(Mochi):
    """Notes each generation in the file that the environment names."""

    def generate(self, spec: VideoSpec, image: bytes | None = None) -> Iterator[BackendEvent]:
        """Do as Mochi does."""
        began = left = time.monotonic()
        paused_s = 0.0
        with closing(super().generate(spec, image)) as events:  # type: ignore[type-var]
            for event in events:
                left = time.monotonic()
                yield event
                paused_s += time.monotonic() - left
        noted = Generation(began, time.monotonic(), paused_s)
        with Path(os.environ[NOTES]).open("a") as file:
            file.write(json.dumps(asdict(noted)) + "\n")


# What the replicas load in place of `deployments.mochi`.
BACKEND = NotedMochi


@dataclass(frozen=True)
class Rest:
    """How long the thread rested before and in one job.

    Attributes:
        seconds: from the end of the job before to its own.
    """

    seconds: float
    gap_s: float
    paused_s: float

    @property
    def share(self) -> float:
        """The rest, as a share of the seconds."""
        return (self.gap_s + self.paused_s) / self.seconds


def rests(generations: Sequence[Generation]) -> list[Rest]:
    """Return the rest of each generation that followed another."""
    return [
        Rest(now.ended - before.ended, now.began - before.ended, now.paused_s)
        for before, now in itertools.pairwise(generations)
    ]


def make(url: str, jobs: int, size: str, frames: int, steps: int) -> None:
    """Hand in so many videos at once, and wait for the last."""
    ids = []
    with httpx.Client(base_url=url, timeout=60) as http:
        for number in range(jobs):
            place = PLACES[number // len(PROMPTS) % len(PLACES)]
            body = {
                "prompt": f"{PROMPTS[number % len(PROMPTS)]} {place}",
                "model": MODEL,
                "size": size,
                "num_frames": frames,
                "seed": number,
                "num_inference_steps": steps,
                "lawful_use_consent": True,
            }
            ids.append(http.post("/v1/videos", json=body).raise_for_status().json()["id"])
        for job_id in ids:
            while (video := http.get(f"/v1/videos/{job_id}").json())["status"] != "completed":
                if video["status"] == "failed":
                    raise RuntimeError(f"{job_id}: {video['error']}")
                time.sleep(0.5)


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=11, help="the first one is not counted")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--frames", type=int, default=163)
    parser.add_argument("--steps", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        os.environ[NOTES] = str(notes)
        with running_graph({MODEL: "benchmarks.idle"}) as url:
            make(url, options.jobs, options.size, options.frames, options.steps)
        found = [Generation(**json.loads(line)) for line in notes.read_text().splitlines()]
    measured = rests(found)
    rows = [
        [n, f"{r.seconds:.1f}", f"{r.gap_s:.3f}", f"{r.paused_s:.3f}", f"{r.share:.2%}"]
        for n, r in enumerate(measured, start=1)
    ]
    print_table(["job", "seconds", "gap before it, s", "pauses in it, s", "rest"], rows)
    result = {
        "median_rest": round(statistics.median(r.share for r in measured), 4),
        "median_gap_s": round(statistics.median(r.gap_s for r in measured), 3),
        "shortest_s": round(min(r.seconds for r in measured), 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
