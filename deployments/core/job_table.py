"""The columns of the job table, as the newest migration leaves them, and a row of it.

How rows change is in `job_store`.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from deployments.core.events import JobStatus, Phase
from deployments.core.spec import VideoRequest, VideoSpec

metadata = sa.MetaData()
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String),
    sa.Column("status", sa.String),
    sa.Column("phase", sa.String),
    sa.Column("progress", sa.Integer),
    sa.Column("step", sa.Integer),
    sa.Column("num_steps", sa.Integer),
    sa.Column("request", sa.JSON),
    sa.Column("image", sa.LargeBinary),
    sa.Column("candidates", sa.JSON),
    sa.Column("model", sa.String),
    sa.Column("routing", sa.Text),
    sa.Column("spec", sa.JSON(none_as_null=True)),
    sa.Column("notices", sa.JSON),
    sa.Column("owner", sa.String),
    sa.Column("lease_until", sa.Float),
    sa.Column("attempts", sa.Integer),
    sa.Column("cancel_requested", sa.Boolean),
    sa.Column("file_name", sa.String),
    sa.Column("file_bytes", sa.BigInteger),
    sa.Column("error_code", sa.String),
    sa.Column("error_message", sa.Text),
    sa.Column("created_at", sa.Float),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("remixed_from", sa.String),
    sa.Column("caller", sa.String),
    sa.Column("idempotency_key", sa.String),
    sa.Column("fingerprint", sa.String),
    sa.Column("made_by_retry", sa.Boolean),
    sa.Column("deadline_at", sa.Float),
    sa.Column("pinned", sa.Boolean),
    sa.Column("sequence", sa.Integer),
    sa.Column("changed_at", sa.Float),
)
# What a completed job began with, for whoever makes the video again. Apart from the row, whose
# other columns are read often: behind megabytes they would be slow to reach.
pictures = sa.Table(
    "pictures", metadata, sa.Column("job_id", sa.String), sa.Column("picture", sa.LargeBinary)
)
# Where a deleted job stood, so that a list can still be read on from it; nothing else is kept.
deleted_jobs = sa.Table(
    "deleted_jobs",
    metadata,
    sa.Column("id", sa.String),
    sa.Column("number", sa.Integer),
    sa.Column("caller", sa.String),
    sa.Column("sequence", sa.Integer),
)
# `changes` counts every change that the outside may see: the row's new number is its `sequence`.
counters = sa.Table(
    "counters", metadata, sa.Column("name", sa.String), sa.Column("value", sa.Integer)
)
# The image may be megabytes: it is read only by the run that needs it. Who made a job matters only
# while it is taken in.
without_image = [column for column in jobs.c if column.name not in ("image", "made_by_retry")]


@dataclass(frozen=True)
class Job:
    """One row of the table, without its image.

    Attributes:
        caller: the name of the API key that it came with; "" without keys.
        fingerprint: of what the client sent, so that a repeated request is known again.
        deadline_at: when it is of no use any more, in Unix seconds.
        pinned: kept when old videos are removed.
        sequence: the number of its last change, one count for all jobs.
        changed_at: when that was.
    """

    number: int
    id: str
    status: JobStatus
    phase: Phase
    progress: int
    step: int
    num_steps: int
    request: VideoRequest
    candidates: tuple[str, ...]
    model: str
    routing: str
    spec: VideoSpec | None
    notices: tuple[str, ...]
    owner: str
    lease_until: float
    attempts: int
    cancel_requested: bool
    file_name: str | None
    file_bytes: int | None
    error_code: str | None
    error_message: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    remixed_from: str | None
    caller: str
    idempotency_key: str | None
    fingerprint: str
    deadline_at: float | None
    pinned: bool
    sequence: int
    changed_at: float


@dataclass(frozen=True)
class Waiting:
    """What decides when a waiting job starts."""

    number: int
    id: str
    caller: str


def job_of(row: sa.Row[Any]) -> Job:
    """Return a row, read without its image."""
    values = dict(row._mapping)
    values["request"] = VideoRequest.model_validate(values["request"])
    if values["spec"] is not None:
        values["spec"] = VideoSpec.model_validate(values["spec"])
    for name in ("candidates", "notices"):
        values[name] = tuple(values[name])
    return Job(**values)
