"""Room on the disk before a job starts.

A job that was taken in is a promise: when the disk has filled since, it waits for room and says so,
instead of failing, and instead of costing minutes of a GPU before its file cannot be written.
"""

from collections.abc import Sequence
from pathlib import Path

from deployments.core import outputs
from deployments.core.config import ServiceConfig
from deployments.core.errors import InsufficientDisk
from deployments.core.job_store import Job, JobStore
from deployments.core.log import logger

WAITS = "It waits for disk space: the outputs folder is too full."


class DiskRoom:
    """Looks at the free space of the outputs folder. All methods block."""

    def __init__(self, config: ServiceConfig, store: JobStore) -> None:
        self._folder, self._need_mb = Path(config.outputs_dir), config.limits.min_free_disk_mb
        self._store = store
        self._said = False

    def suffices(self, waiting: Sequence[Job]) -> bool:
        """Whether a job may start now; the `waiting` ones are told if not, and when it is over."""
        try:
            outputs.require_free_disk(self._folder, self._need_mb)
        except InsufficientDisk as short:
            if not self._said:
                logger.warning("%d jobs wait for disk space. %s", len(waiting), short)
            self._said = True
        else:
            self._said = False
        for job in waiting:
            if (WAITS in job.notices) != self._said:
                self._store.tell_waiting(job.id, [WAITS] if self._said else [])
        return not self._said
