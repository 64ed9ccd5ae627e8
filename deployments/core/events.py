"""What deployments tell each other while a job runs, and the state a model replica pushes."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deployments.core.memory import Placement
from deployments.core.spec import Frozen, VideoRequest, VideoSpec

Phase = Literal["queued", "loading", "text", "denoise", "decode", "encode", "saved"]
JobStatus = Literal["queued", "in_progress", "completed", "failed"]
ModelState = Literal["loading", "ready", "unloaded", "restarting", "failed", "lost"]
# Of a replica that can take a job.
ABLE: tuple[ModelState, ...] = ("ready", "unloaded")

Frames = npt.NDArray[np.uint8]


# --- from a backend (one file per model) to its VideoModel, in one process --------------


@dataclass(frozen=True)
class PhaseBegan:
    """The backend enters a phase that has no steps of its own to count."""

    phase: Phase


@dataclass(frozen=True)
class Step:
    """Denoising step `step` of `num_steps` is done; counts from 1."""

    step: int
    num_steps: int


@dataclass(frozen=True)
class Decoded:
    """A run of finished frames: uint8 (T, H, W, 3), RGB, at the generated size; the clip's
    `first_frame` on."""

    frames: Frames
    first_frame: int


@dataclass(frozen=True)
class Notice:
    """Something the user should know about the result, for example that the prompt was cut."""

    text: str


@dataclass(frozen=True)
class Preview:
    """A small picture of the clip as it is foreseen after `step` steps: a JPEG file's bytes."""

    step: int
    picture: bytes


@dataclass(frozen=True)
class Waiting:
    """Nothing has happened; the job may be stopped here. It goes no further than VideoModel."""


BackendEvent = PhaseBegan | Step | Decoded | Notice | Preview | Waiting


# --- from a model replica to the jobs deployment ----------------------------------------


@dataclass(frozen=True)
class Started:
    """A replica has begun the job; everything after this counts as an attempt."""

    replica_id: str
    device: str


@dataclass(frozen=True)
class FramesStored:
    """Frames lie in the object store. `ref` is an ObjectRef to uint8 (T, H, W, 3); jobs never
    opens it."""

    ref: Any
    first_frame: int
    num_frames: int


ModelEvent = Started | PhaseBegan | Step | FramesStored | Notice | Preview


# --- from the jobs deployment to the encoder --------------------------------------------


class EncodeOrder(Frozen):
    """Everything the encoder needs besides the frames."""

    job_id: str
    path: str
    source_width: int
    source_height: int
    width: int
    height: int
    num_frames: int
    fps: int
    crf: int
    preset: str
    comment: str | None


@dataclass(frozen=True)
class MoreFrames:
    """What the encoder is told that asks for the frames that follow those it has.

    Attributes:
        refs: ObjectRefs to uint8 (T, H, W, 3), in the order of the clip.
        last: whether no others will follow.
    """

    refs: tuple[Any, ...]
    last: bool


class EncodedVideo(Frozen):
    """A verified file at its final path.

    Attributes:
        elapsed_s: from the first frame on, what the encoder waited for others included.
    """

    path: str
    size_bytes: int
    elapsed_s: float


# --- pushed by model replicas, read by everyone -----------------------------------------


class GpuState(Frozen):
    """One GPU as NVML reports it: memory in GiB, and how much of the time it computes.

    `load_percent` is None where NVML has no figure, as for a MIG slice.
    """

    uuid: str
    index: int
    name: str
    total_gb: float
    used_gb: float
    free_gb: float
    load_percent: float | None = None


class ReplicaState(Frozen):
    """What a model replica says of itself, on every change and every few seconds.

    `unloaded`: its weights have left the GPU until its next job. `restarting`: it takes no more
    jobs, and is replaced when nobody waits for the frames that it holds.
    `holding` names the jobs whose frames it keeps in the object store. `placement` is None on the
    CPU, and until the model is loaded.
    """

    replica_id: str
    model: str
    checkpoint: str
    state: ModelState
    reason: str = ""
    device: str
    node: str
    gpus: tuple[GpuState, ...] = ()
    placement: Placement | None = None
    job_id: str | None = None
    job_owner: str = ""
    holding: tuple[str, ...] = ()
    pid: int
    reported_at: float


class Wanted(Frozen):
    """The answer to a report: what of the replica's work somebody still waits for."""

    job: bool
    frames: frozenset[str]


class JobView(Frozen):
    """A job as everyone outside the job table sees it.

    Attributes:
        caller: the name of the API key that it came with; "" without keys.
        sequence: the number of its last change, one count for all jobs.
        changed_at: when that was, in Unix seconds.
        seconds_until_start: about how long it still waits; None while nobody can say, and for a job
            that does not wait.
        seconds_left: about how long until its end, the waiting included; None while nobody can say,
            and for a job that is done.
        heartbeat_at: when the model that works on it, or keeps its frames, last gave a sign of
            life, in Unix seconds; None for a job that is not in progress.
        stalled: its row has not changed for much longer than usual.
        expires_at: when its files are removed, in Unix seconds; None for never.
        memory_gb: the most GPU memory that it takes, by the plan; None on the CPU, while its model
            has not told of its GPU, and for a job that is done.
    """

    id: str
    status: JobStatus
    phase: Phase
    progress: int
    step: int
    num_steps: int
    queue_position: int
    request: VideoRequest
    model: str
    routing: str
    spec: VideoSpec | None
    notices: tuple[str, ...]
    attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    file_name: str | None
    file_bytes: int | None
    error_code: str | None
    error_message: str | None
    remixed_from: str | None = None
    caller: str = ""
    pinned: bool = False
    sequence: int = 0
    changed_at: float = 0.0
    seconds_until_start: float | None = None
    seconds_left: float | None = None
    heartbeat_at: float | None = None
    stalled: bool = False
    expires_at: float | None = None
    memory_gb: float | None = None

    @property
    def done(self) -> bool:
        """Whether the job has reached its last state."""
        return self.status in ("completed", "failed")


class DeletedJob(Frozen):
    """What is left of a deleted job; `sequence` is the number of its deletion among the changes."""

    id: str
    caller: str
    sequence: int


class JobPreview(Frozen):
    """The newest preview of a running job.

    Attributes:
        number: of the preview among all previews; a later one's is higher.
        step: the denoising step after which it was taken.
        picture: a JPEG file's bytes.
    """

    id: str
    caller: str
    number: int
    step: int
    picture: bytes


class Changes(Frozen):
    """What became of jobs after some change.

    Attributes:
        jobs: each job that changed, as it is now, in the order of the changes.
        deleted: each job that was deleted, in that order.
        previews: the newest of each running job, where they were asked for and it is new.
        last: the number of the change up to which this is complete.
        more: whether there are later ones, to be asked for with `last`.
    """

    jobs: tuple[JobView, ...] = ()
    deleted: tuple[DeletedJob, ...] = ()
    previews: tuple[JobPreview, ...] = ()
    last: int
    more: bool = False


class JobPage(Frozen):
    """Some of all jobs.

    Attributes:
        has_more: whether others follow.
        last_change: the number of a change up to which this is complete: what comes after it may
            not be in here.
    """

    jobs: tuple[JobView, ...]
    has_more: bool
    last_change: int


@dataclass(frozen=True)
class ServiceState:
    """The whole service at one moment, as the jobs deployment knows it."""

    replicas: tuple[ReplicaState, ...] = field(default=())
    jobs_queued: int = 0
    jobs_running: int = 0
    taken_at: float = 0.0
