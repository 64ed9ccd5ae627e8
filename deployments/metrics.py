"""What the service counts and measures, for Prometheus; recorded where things end.

Ray puts `ray_` before each name and shows the metrics of all its processes at one port per node. In
a process that is not part of a cluster, as in most tests, recording does nothing and costs nothing.
Knows nothing of how anything works.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from deployments.core.events import GpuState, Phase

GIB = 2**30
# A denoising step takes from some milliseconds with a bundled checkpoint to a minute on a CPU.
STEP_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
# A phase takes from an instant to hours, for a job that waits behind others.
PHASE_BUCKETS_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)


class Metric:
    """One metric, declared here and made at Ray at its first use.

    Args:
        name: without Ray's prefix.
        labels: the names that each value comes with.
    """

    kind: ClassVar[str]
    # What Prometheus' format appends to the name of such a metric.
    suffixes: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, name: str, description: str, *labels: str) -> None:
        self.name, self.description, self.labels = name, description, labels
        self._at_ray: Any = None

    @property
    def exported(self) -> tuple[str, ...]:
        """The names under which Prometheus finds it."""
        return tuple(f"ray_{self.name}{suffix}" for suffix in self.suffixes)

    def _record(self, verb: str, value: float, labels: dict[str, str]) -> None:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        if self._at_ray is None:
            self._at_ray = self._make()
        getattr(self._at_ray, verb)(value, tags=labels)

    def _make(self, **options: Any) -> Any:
        from ray.util import metrics

        return getattr(metrics, self.kind)(
            self.name, description=self.description, tag_keys=self.labels, **options
        )


class Counter(Metric):
    """Counts up; a new process begins at 0 again."""

    kind = "Counter"
    suffixes = ("_total",)

    def add(self, value: float = 1, **labels: str) -> None:
        """Count `value` more, which must be above 0."""
        self._record("inc", value, labels)


class Gauge(Metric):
    """Has a value now."""

    kind = "Gauge"

    def set(self, value: float, **labels: str) -> None:
        """Say how much it is."""
        self._record("set", value, labels)


class Histogram(Metric):
    """Sorts values into buckets, for quantiles.

    Args: boundaries: upper ends of the buckets.
    """

    kind = "Histogram"
    suffixes = ("_bucket", "_sum", "_count")

    def __init__(
        self, name: str, description: str, *labels: str, boundaries: Sequence[float]
    ) -> None:
        super().__init__(name, description, *labels)
        self._boundaries = list(boundaries)

    def observe(self, value: float, **labels: str) -> None:
        """Take one value in."""
        self._record("observe", value, labels)

    def _make(self, **options: Any) -> Any:
        return super()._make(boundaries=self._boundaries, **options)


QUEUED = Gauge("video_jobs_queued", "Jobs that wait.")
OLDEST_QUEUED = Gauge("video_oldest_queued_seconds", "How long the oldest waiting job has waited.")
RUNNING = Gauge("video_jobs_running", "Jobs that are generated or encoded.")
JOBS = Counter(
    "video_jobs", "Jobs that ended; outcome is completed or the error's code.", "model", "outcome"
)
PHASES = Histogram(
    "video_phase_seconds",
    "Seconds that completed jobs spent in a phase.",
    *("model", "phase"),
    boundaries=PHASE_BUCKETS_S,
)
STEPS = Histogram(
    "video_step_seconds",
    "Seconds of one denoising step.",
    "model",
    boundaries=STEP_BUCKETS_S,
)
FRAMES_ENCODED = Counter("video_frames_encoded", "Frames in verified files.")
PROMPTS = Counter(
    "video_prompts", "Prompts that a model needed; hit: it had the embedding.", "model", "cache"
)
RESTARTS = Counter(
    "video_model_restarts",
    "Replicas that restarted by themselves: their GPU, or its memory, was not as before a job.",
    "model",
)
GPU_USED = Gauge("video_gpu_memory_used_bytes", "Used memory of a GPU.", "node", "gpu", "uuid")
GPU_FREE = Gauge("video_gpu_memory_free_bytes", "Free memory of a GPU.", "node", "gpu", "uuid")
WEBHOOKS = Counter(
    "video_webhooks",
    "Attempts to deliver a webhook: delivered, failed, or given up.",
    *("endpoint", "outcome"),
)
WEBHOOKS_PENDING = Gauge("video_webhooks_pending", "Webhooks that are not delivered yet.")

METRICS: tuple[Metric, ...] = (
    QUEUED,
    OLDEST_QUEUED,
    RUNNING,
    JOBS,
    PHASES,
    STEPS,
    FRAMES_ENCODED,
    PROMPTS,
    RESTARTS,
    GPU_USED,
    GPU_FREE,
    WEBHOOKS,
    WEBHOOKS_PENDING,
)


def record_queue(waiting_since: Sequence[float], running: int) -> None:
    """Say how long the queue is.

    Args: waiting_since: when each waiting job came, in Unix seconds.
    """
    now = time.time()
    QUEUED.set(len(waiting_since))
    OLDEST_QUEUED.set(max(0.0, now - min(waiting_since, default=now)))
    RUNNING.set(running)


def record_gpus(node: str, gpus: Sequence[GpuState]) -> None:
    """Say how full a node's GPUs are."""
    for gpu in gpus:
        labels = {"node": node, "gpu": str(gpu.index), "uuid": gpu.uuid}
        GPU_USED.set(gpu.used_gb * GIB, **labels)
        GPU_FREE.set(gpu.free_gb * GIB, **labels)


def record_end(model: str, outcome: str) -> None:
    """Count a job that has reached its last state.

    Args: model: the one it ran on, or waited for.
    """
    JOBS.add(model=model, outcome=outcome)


def record_prompt(model: str, hit: bool) -> None:
    """Count a prompt that the model needed; `hit` when its embedding was kept from before."""
    PROMPTS.add(model=model, cache="hit" if hit else "miss")


def record_phases(model: str, seconds: Mapping[Phase, float]) -> None:
    """Say how long a run that succeeded was in each of its phases."""
    for phase, spent in seconds.items():
        PHASES.observe(spent, model=model, phase=phase)
