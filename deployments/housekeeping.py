"""The order in the outputs folder: what crashes leave behind is removed."""

from pathlib import Path

from deployments.core import outputs
from deployments.core.config import ServiceConfig
from deployments.core.job_store import JobStore
from deployments.core.log import logger


class Housekeeping:
    """Keeps the outputs folder and the job table in step. All methods block."""

    def __init__(self, config: ServiceConfig, store: JobStore) -> None:
        self._store = store
        self._folder = Path(config.outputs_dir)

    def clean(self) -> None:
        """Remove what a crash left half-written; for the start of the service."""
        self._folder.mkdir(parents=True, exist_ok=True)
        living = [*self._store.queued(), *self._store.in_progress()]
        held = {job.file_name for job in living if job.file_name}
        for name in outputs.remove_orphans(self._folder, held):
            logger.info("removed %s, left by a crash", name)

    def delete(self, job_id: str) -> bool:
        """Remove a job that is done with its files; False when there is none, or it is not done."""
        job = self._store.get(job_id)
        if job is None or job.status not in ("completed", "failed"):
            return False
        # The files first: after a crash in between the job is still there to be deleted.
        if job.file_name:
            outputs.remove(self._folder, job.file_name)
        return self._store.delete(job_id)
