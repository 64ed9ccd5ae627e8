"""How long a cancel takes until model and encoder are idle, and whether the next video is the same.

Thirty jobs are cancelled at moments drawn at random, in every phase, with both bundled models on
the real graph. Aim: the 95th percentile of the seconds from the request to the idle model at most
the longest single step or decode chunk plus 0.5 s; every video made after a cancel has the bytes of
one that was made first, in a fresh process.

The longest step or chunk is measured in this process, on the same clip, before and after the
cancels while the graph is idle.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from benchmarks.running import print_table, running_graph, shipped_config
from deployments.backend import Backend, backend_class
from deployments.core.checkpoints import choose_checkpoint
from deployments.core.events import Decoded, JobView, Phase, Step
from deployments.core.spec import VideoRequest, resolve

PHASES: tuple[Phase, ...] = ("denoise", "decode", "encode")
ALLOWANCE_S = 0.5
# Asked twenty times a second at most: two hundred times doubled the tile that was waited for, on
# two cores.
POLL_S = 0.05
# Scaled up by the encoder, so that writing it takes as long as it does for a large one.
CLIP = {"width": 720, "height": 720, "num_frames": 49, "seed": 3, "num_inference_steps": 12}
PROMPT = "a red ball moving right over the sea at sunset"
# What is made after each cancel, and compared.
CHECK = {"width": 256, "height": 256, "num_frames": 25, "seed": 7, "num_inference_steps": 6}


@dataclass(frozen=True)
class Cancel:
    """One cancelled job: the seconds until the request was answered, and until all was idle."""

    model: str
    phase: Phase
    answer_s: float
    idle_s: float
    same: bool
    clean: bool


class Bench:
    """The running graph, asked over HTTP as a client does, and through Ray for its state."""

    def __init__(self, url: str) -> None:
        from ray import serve

        self._http = httpx.Client(base_url=url, timeout=600)
        self._jobs: Any = serve.get_deployment_handle("jobs", app_name="video")
        self._encoder = psutil.Process(
            next(
                process.pid
                for process in psutil.Process().children(recursive=True)
                if "ServeReplica:video:encoder" in " ".join(process.cmdline())
            )
        )

    def check(self, model: str) -> Path:
        """Make the clip that is compared; returns its file."""
        return Path(self._post(model, CHECK).json()["mp4_path"])

    def submit(self, model: str) -> str:
        """Begin the long clip; returns its job's id."""
        return str(self._post(model, CLIP, Prefer="respond-async").json()["job_id"])

    def lengths(self, model: str) -> dict[Phase, float]:
        """Return how many seconds each phase of the long clip takes when it is left alone."""
        job_id, entered = self.submit(model), dict[str, float]()
        while not (job := self.job(job_id)).done:
            entered.setdefault(job.phase, time.monotonic())
            time.sleep(POLL_S)
        if job.status != "completed":
            raise RuntimeError(f"{model}: {job.error_code}: {job.error_message}")
        ends = [entered["decode"], entered["encode"], time.monotonic()]
        begins = [entered[phase] for phase in PHASES]
        return {p: end - begin for p, begin, end in zip(PHASES, begins, ends, strict=True)}

    def cancel(self, model: str, phase: Phase, after_s: float) -> tuple[str, float, float] | None:
        """Cancel the long clip `after_s` into a phase; returns its id and the seconds to the answer
        and to idleness, or None when it was done before."""
        job_id = self.submit(model)
        while self.job(job_id).phase != phase:
            if self.job(job_id).done:
                return None
            time.sleep(POLL_S)
        time.sleep(after_s)
        began = time.monotonic()
        status = self._http.post(f"/v1/videos/{job_id}/cancel").json()["status"]
        answer_s = time.monotonic() - began
        if status != "failed":
            return None
        while not self._is_idle(job_id):
            time.sleep(POLL_S)
        return job_id, answer_s, time.monotonic() - began

    def job(self, job_id: str) -> JobView:
        """Return the job, from the jobs deployment itself."""
        view: JobView = self._jobs.ask.remote("get", job_id).result()
        return view

    def _is_idle(self, job_id: str) -> bool:
        state = self._jobs.ask.remote("state").result()
        at_work = any(replica.job_id == job_id for replica in state.replicas)
        return not at_work and not any("ffmpeg" in p.name() for p in self._encoder.children())

    def _post(self, model: str, clip: dict[str, int], **headers: str) -> httpx.Response:
        form = {name: str(value) for name, value in clip.items()}
        form |= {"prompt": PROMPT, "prefer_backend": model, "lawful_use_consent": "true"}
        answer = self._http.post("/generate", data=form, headers=headers)
        return answer.raise_for_status()


@contextmanager
def loaded(model: str) -> Iterator[tuple[Backend, VideoRequest, Any]]:
    """Load a model in this process, as its replica does on the CPU."""
    with TemporaryDirectory() as folder:
        config = next(m for m in shipped_config(Path(folder)).models if m.name == model)
        kind = backend_class(config)
        checkpoint = choose_checkpoint(
            config, published=kind.published, bundled=kind.bundled, on_gpu=False
        )
        backend = kind(config, checkpoint, "cpu")
        backend.load()
        yield backend, VideoRequest(prompt=PROMPT, **CLIP), kind.card(config, checkpoint)


def longest_step(model: str) -> float:
    """Return the seconds of the longest single step or decode chunk of the long clip, made for the
    second time: the first one of a process is slower."""
    with loaded(model) as (backend, request, card):
        for _ in range(2):
            work, longest = backend.generate(resolve(request, card), None), 0.0
            began = time.monotonic()
            while (event := next(work, None)) is not None:
                if isinstance(event, Step | Decoded):
                    longest = max(longest, time.monotonic() - began)
                began = time.monotonic()
        return longest


def measure(bench: Bench, model: str, count: int, rng: random.Random) -> list[Cancel]:
    """Cancel `count` jobs of a model, the phases in turn, and check the model after each."""
    first = bench.check(model)  # the first job of this process
    expected, outputs = first.read_bytes(), first.parent
    lengths, found = bench.lengths(model), list[Cancel]()
    while len(found) < count:
        phase = PHASES[len(found) % len(PHASES)]
        before = files(outputs)
        cancelled = bench.cancel(model, phase, rng.random() * lengths[phase])
        if cancelled is None:
            continue  # it was faster than the one that was timed: draw another moment
        job_id, answer_s, idle_s = cancelled
        after = bench.check(model)
        left = [path for path in files(outputs) - before if after.stem not in path.name]
        clean = bench.job(job_id).error_code == "cancelled" and not left
        same = after.read_bytes() == expected
        found.append(Cancel(model, phase, answer_s, idle_s, same, clean))
    return found


def files(outputs: Path) -> set[Path]:
    """Return every file below the folder."""
    return {path for path in outputs.rglob("*") if path.is_file()}


def summary(cancels: list[Cancel], longest: dict[str, float]) -> tuple[list[list[str]], Any]:
    """Return the rows of the table and what goes into the JSON."""
    rows, result = [], dict[str, Any]()
    for model, longest_s in longest.items():
        mine = [cancel for cancel in cancels if cancel.model == model]
        for name, group in [(p, [c for c in mine if c.phase == p]) for p in PHASES] + [
            ("all", mine)
        ]:
            if not group:
                continue
            idle = [cancel.idle_s for cancel in group]
            p95 = percentile(idle, 95)
            figures = {
                "cancels": len(group),
                "idle_median_s": round(statistics.median(idle), 3),
                "idle_p95_s": round(p95, 3),
                "idle_max_s": round(max(idle), 3),
                "answer_max_s": round(max(cancel.answer_s for cancel in group), 3),
                "limit_s": round(longest_s + ALLOWANCE_S, 3),
                "within": p95 <= longest_s + ALLOWANCE_S,
                "next_identical": sum(cancel.same for cancel in group),
                "nothing_left": sum(cancel.clean for cancel in group),
            }
            result[f"{model} {name}"] = figures
            rows.append([model, name, *map(str, figures.values())])
    return rows, result


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that `percent` of all do not exceed (nearest rank)."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=30, help="of both models together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311  moments to cancel at are no secrets
    cancels, longest = list[Cancel](), dict[str, float]()
    models = ("mochi", "opensora")
    with running_graph() as url:
        bench = Bench(url)
        for model in models:
            before_s = longest_step(model)
            cancels += measure(bench, model, options.cancels // len(models), rng)
            longest[model] = max(before_s, longest_step(model))
    rows, result = summary(cancels, longest)
    header = ["model", "phase", *next(iter(result.values()))]
    print_table(header, rows)
    text = json.dumps({"seed": options.seed, **result})
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
