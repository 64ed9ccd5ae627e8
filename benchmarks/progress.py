"""How true the service is about the time that a video still takes.

For each of five kinds of video on the real graph with the bundled checkpoints: one with the
checkpoint's steps, of which nothing is known; one with so many steps that it takes long enough, of
which other step counts are known; then the measured ones, in turn. What a client was last told
before a moment of the run is compared with how long the rest of the run took. Aim: half way, a
median error of at most 25 %; and a bar that never goes back.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.running import print_table, running_graph

MOMENTS = (0.25, 0.5, 0.75)
MAX_STEPS = 200
PROMPTS = (
    "a red ball moving right over the sea at sunset",
    "a blue square moving left in front of mountains",
    "a yellow triangle bouncing over the sea at night",
    "a white ball moving up on a black background",
)


@dataclass(frozen=True)
class Kind:
    """One kind of video."""

    model: str
    width: int
    height: int
    num_frames: int

    def __str__(self) -> str:
        """Return its line in the table."""
        return f"{self.model} {self.width}x{self.height}x{self.num_frames}"


KINDS = (
    Kind("mochi", 512, 512, 96),
    Kind("opensora", 512, 288, 97),
    Kind("mochi", 256, 256, 163),
    Kind("opensora", 256, 256, 240),
    Kind("mochi", 848, 480, 48),
)


@dataclass(frozen=True)
class Told:
    """What a client was told, and when, in seconds of a monotonic clock."""

    at: float
    left_s: float | None
    progress: int


@dataclass(frozen=True)
class Run:
    """One video."""

    kind: Kind
    steps_of_each_segment: int
    began: float
    ended: float
    told: Sequence[Told]

    @property
    def seconds(self) -> float:
        """How long it took, its wait not included."""
        return self.ended - self.began

    @property
    def monotone(self) -> bool:
        """Whether the bar never went back, and was full at the end and only then."""
        bars = [told.progress for told in self.told]
        return bars == sorted(bars) and bars[-1] == 100 and 100 not in bars[:-1]

    def error(self, moment: float) -> float:
        """Return how wrong the client was at a moment of the run, as a share of what was left;
        infinite when it had been told nothing."""
        at = self.began + moment * self.seconds
        left_s = self.ended - at
        known = [told for told in self.told if told.at <= at and told.left_s is not None]
        if not known or known[-1].left_s is None:
            return math.inf
        guess = known[-1].left_s - (at - known[-1].at)
        return abs(guess - left_s) / left_s


def make(http: httpx.Client, kind: Kind, number: int, num_steps: int | None) -> Run:
    """Make a video and listen to what is told of it."""
    body = {
        "prompt": PROMPTS[number % len(PROMPTS)],
        "model": kind.model,
        "width": kind.width,
        "height": kind.height,
        "num_frames": kind.num_frames,
        "seed": number,
        "num_inference_steps": num_steps,
        "lawful_use_consent": True,
    }
    answer = http.post("/v1/videos", json=body).raise_for_status().json()
    told, began = [], 0.0
    for video in events(http, answer["id"]):
        now = time.monotonic()
        if video["status"] == "in_progress" and not began:
            began = now
        told.append(Told(now, video["seconds_left"], video["progress"]))
    if video["status"] != "completed":
        raise RuntimeError(f"{kind}: {video['error']}")
    steps = video["num_steps"] // video["segments"]
    return Run(kind, steps, began, time.monotonic(), told)


def events(http: httpx.Client, video_id: str) -> Iterator[dict[str, Any]]:
    """Yield the states of a video as they come, up to its last."""
    with http.stream("GET", f"/v1/videos/{video_id}/events") as answer:
        kind = ""
        for line in answer.raise_for_status().iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            if line.startswith("data: ") and kind == "video":
                yield json.loads(line.removeprefix("data: "))


def steps_for(run: Run, at_least_s: float) -> int:
    """Return how many steps a video like `run` needs to take so long."""
    more = max(1.0, at_least_s / run.seconds)
    return min(MAX_STEPS, math.ceil(run.steps_of_each_segment * more))


def summary(name: str, runs: Sequence[Run]) -> list[str]:
    """Return the line of one group of runs."""
    medians = [statistics.median(run.error(moment) for run in runs) for moment in MOMENTS]
    worst = max(run.error(0.5) for run in runs)
    seconds = [run.seconds for run in runs]
    return [
        name,
        str(len(runs)),
        f"{min(seconds):.0f}-{max(seconds):.0f}",
        *(f"{error:.1%}" for error in medians),
        f"{worst:.1%}",
        "yes" if all(run.monotone for run in runs) else "NO",
    ]


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4, help="measured runs of each kind")
    parser.add_argument("--seconds", type=float, default=22, help="what each run takes, at least")
    parser.add_argument("--kinds", type=int, default=len(KINDS), help="how many of the kinds")
    options = parser.parse_args()
    kinds, number = KINDS[: options.kinds], 0
    first, second, measured = [], [], []
    with running_graph() as url, httpx.Client(base_url=url, timeout=600) as http:
        steps = {}
        for kind in kinds:
            run = make(http, kind, number, None)
            first.append(run)
            # Twice: the first of all is slower than the others, and not all of it is steps.
            for _ in range(2):
                steps[kind] = steps_for(run, options.seconds)
                number += 1
                run = make(http, kind, number, steps[kind])
                second.append(run)
            number += 1
        for _ in range(options.runs):
            for kind in kinds:
                measured.append(make(http, kind, number, steps[kind]))
                number += 1
    groups = {"first of its kind": first, "first with its steps": second, "after those": measured}
    header = ["runs", "number", "seconds", "25 %", "half way", "75 %", "worst half way", "monotone"]
    print_table(header, [summary(name, runs) for name, runs in groups.items()])
    by_kind = {str(kind): [run for run in measured if run.kind == kind] for kind in kinds}
    print()
    print_table(header, [summary(name, runs) for name, runs in by_kind.items()])
    halves = [round(run.error(0.5), 3) for run in measured]
    result = {"half_way_median": round(statistics.median(halves), 3), "half_way": halves}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
