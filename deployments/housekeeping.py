"""The order in the outputs folder: what crashes leave behind is removed, and what the operator's
rules on age and space no longer keep.

The service removes only files that it made itself: half-written ones, reservations and pictures by
their names, and videos whose name a row of the job table holds. An MP4 that no row knows may be the
user's own and stays.
"""

import time
from collections.abc import Collection
from pathlib import Path

from deployments.core import left_overs, outputs
from deployments.core.config import RetentionConfig, ServiceConfig
from deployments.core.job_store import JobStore
from deployments.core.log import logger

GB = 2**30


class Housekeeping:
    """Keeps the outputs folder and the job table in step. All methods block."""

    def __init__(self, config: ServiceConfig, store: JobStore) -> None:
        self._store = store
        self._folder = Path(config.outputs_dir)
        self._retention = config.retention

    def clean(self) -> None:
        """Remove what a crash left behind; for the start of the service.

        A video of a job that is not done stays: the next run of the job adopts it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        held = self._store.file_names("queued", "in_progress")
        for name in left_overs.remove_left_overs(self._folder, held):
            logger.info("removed %s, left by a crash", name)
        there = {path.name for path in self._folder.glob("*.mp4")}
        for name in sorted(self._store.file_names("failed") & there):
            logger.info("removing %s: its job has failed", name)
        for name in self._store.file_names("failed"):
            discard(self._folder, self._store, name)
            there.discard(name)
        completed = self._store.file_names("completed")
        _tell("%d MP4 files belong to no video here and are left alone", there - held - completed)
        _tell("%d completed videos have lost their files", completed - there)

    def delete(self, job_id: str) -> bool:
        """Remove a job that is done with its files; False when there is none, or it is not done."""
        job = self._store.get(job_id)
        if job is None or job.status not in ("completed", "failed"):
            return False
        # The files first: after a crash in between the job is still there to be deleted.
        if job.file_name:
            outputs.remove(self._folder, job.file_name)
        return self._store.delete(job_id)

    def discard_unfinished(self, job_id: str) -> None:
        """Remove what an earlier run of a job has left that failed while it waited for the next."""
        job = self._store.get(job_id)
        if job is not None and job.status == "failed" and job.file_name:
            discard(self._folder, self._store, job.file_name)

    def expired(self) -> list[str]:
        """Return the jobs that the rules no longer keep, those that ended first in front.

        Pinned ones are never among them, and their bytes do not count.
        """
        due: list[str] = []
        if self._retention.max_age_hours is not None:
            due += self._store.ended_before(time.time() - self._retention.max_age_hours * 3600)
        if self._retention.max_total_gb is not None:
            due += reversed(self._beyond(self._retention.max_total_gb * GB))
        return list(dict.fromkeys(due))

    def expire(self, job_id: str) -> bool:
        """Remove a job that has expired, unless it was pinned a moment ago.

        The look and the removal are one call on the one thread on which `pin` runs too.
        """
        job = self._store.get(job_id)
        return job is not None and not job.pinned and self.delete(job_id)

    def _beyond(self, limit_bytes: float) -> list[str]:
        """Return the jobs whose files do not fit beside all newer ones; newest first."""
        total, found = 0, []
        for job_id, size in self._store.file_sizes():
            total += size
            if total > limit_bytes:
                found.append(job_id)
        return found


def discard(folder: Path, store: JobStore, name: str) -> None:
    """Remove what there is of a failed job's video and let its name be taken again. Blocks.

    On the thread on which names are reserved: between the two the name would be free in the folder
    and not in the table.
    """
    outputs.remove(folder, name)
    store.forget_file(name)


def expires_at(
    finished_at: float | None, retention: RetentionConfig, *, pinned: bool
) -> float | None:
    """Return when a job is removed because of its age, in Unix seconds, or None for never."""
    if finished_at is None or pinned or retention.max_age_hours is None:
        return None
    return finished_at + retention.max_age_hours * 3600


def _tell(text: str, names: Collection[str]) -> None:
    if names:
        logger.info(f"{text}; the first is %s", len(names), min(names))
