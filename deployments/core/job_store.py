"""The durable job table: the only queue, and the one truth about every job.

Two replicas of the jobs deployment overlap while one replaces the other, so a running job carries
its owner and a lease, and every change of state is one `UPDATE ... WHERE status = ? AND owner = ?`
whose row count says whether it happened. All methods block; `Jobs` calls them on a thread.

    queued ──claim──> in_progress ──finish──> completed
      ^  │                │  │
      │  └──cancel──┐     │  └──fail──> failed
      └──requeue────┼─────┘
                    └──> failed (code `cancelled`)
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from deployments.core import database
from deployments.core.deliveries import Outbox
from deployments.core.errors import Cancelled
from deployments.core.events import Phase
from deployments.core.job_intake import JobIntake, next_change
from deployments.core.job_table import Job, deleted_jobs, jobs, pictures
from deployments.core.spec import VideoSpec
from deployments.core.webhooks import Event

# Callers find all about jobs here.
__all__ = ["Job", "JobStore"]


class JobStore(JobIntake):
    """The table behind one SQLAlchemy URL; the schema is brought up to date on opening.

    Args:
        outbox: takes down whom to tell of a job's end, in the transaction that ends it.
        on_end: told of each end, on the calling thread: the model, and `completed` or the code.
    """

    def __init__(
        self,
        url: str,
        outbox: Outbox | None = None,
        on_end: Callable[[str, str], None] | None = None,
    ) -> None:
        super().__init__(url)
        self._outbox, self._on_end = outbox or Outbox(), on_end
        database.migrate(self._engine)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # --- the life of a job -----------------------------------------------------------------------

    def claim(
        self, job_id: str, owner: str, lease_until: float, spec: VideoSpec, routing: str = ""
    ) -> bool:
        """Take a waiting job; False when another owner was faster or it was cancelled.

        Args: routing: why it is the model of `spec`.
        """
        return self._update(
            _queued(job_id),
            status="in_progress",
            phase="loading",
            owner=owner,
            lease_until=lease_until,
            model=spec.model,
            routing=routing,
            spec=spec.model_dump(mode="json"),
            notices=[],
            step=0,
            num_steps=spec.total_steps,
        )

    def started(self, job_id: str, owner: str) -> bool:
        """Count an attempt: a replica has begun to work on the job."""
        return self._update(
            _owned(job_id, owner),
            attempts=jobs.c.attempts + 1,
            started_at=sa.func.coalesce(jobs.c.started_at, time.time()),
        )

    def progress(
        self, job_id: str, owner: str, phase: Phase, progress: int, step: int, num_steps: int
    ) -> bool:
        """Write how far the job is; `progress` in percent."""
        return self._update(
            _owned(job_id, owner), phase=phase, progress=progress, step=step, num_steps=num_steps
        )

    def add_notices(self, job_id: str, owner: str, notices: Sequence[str]) -> bool:
        """Replace the job's notices to the user."""
        return self._update(_owned(job_id, owner), notices=list(notices))

    def tell_waiting(self, job_id: str, notices: Sequence[str]) -> bool:
        """Replace a waiting job's notices; they are gone when it starts."""
        return self._update(_queued(job_id), notices=list(notices))

    def name_file(self, job_id: str, owner: str, file_name: str) -> bool:
        """Bind the job to its output file before the file is written."""
        return self._update(_owned(job_id, owner), file_name=file_name)

    def finish(self, job_id: str, owner: str, file_bytes: int) -> bool:
        """Mark the job completed: its file is verified and in place."""
        return self._end(
            _owned(job_id, owner),
            "completed",
            status="completed",
            phase="saved",
            progress=100,
            file_bytes=file_bytes,
        )

    def fail(self, job_id: str, owner: str, code: str, message: str) -> bool:
        """Mark a running job failed, for good."""
        return self._end(_owned(job_id, owner), code, **_failure(code, message))

    def forget_file(self, file_name: str) -> None:
        """Let a failed job's file name be another's; the outside never saw it."""
        mine = (jobs.c.file_name == file_name, jobs.c.status == "failed")
        with self._engine.begin() as connection:
            connection.execute(jobs.update().where(*mine).values(file_name=None))

    def fail_queued(self, job_id: str, code: str, message: str) -> bool:
        """Mark a waiting job failed; False when it is not waiting any more."""
        return self._end(_queued(job_id), code, **_failure(code, message))

    def requeue(self, job_id: str, owner: str, *, count_attempt: bool) -> bool:
        """Put a running job back; without `count_attempt` as if it had never started."""
        return self._update(_owned(job_id, owner), **_waiting(count_attempt=count_attempt))

    def reroute(self, job_id: str, owner: str, candidates: Sequence[str], routing: str) -> bool:
        """Put a job back that its model refused before it began: for the other `candidates`."""
        return self._update(
            _owned(job_id, owner),
            **_waiting(count_attempt=False),
            candidates=list(candidates),
            model=candidates[0],
            routing=routing,
        )

    def pin(self, job_id: str, *, pinned: bool) -> bool:
        """Keep the job when old ones are removed, or not; False when it is so, or not there."""
        return self._update((jobs.c.id == job_id, jobs.c.pinned != pinned), pinned=pinned)

    def request_cancel(self, job_id: str) -> bool:
        """Cancel a waiting job at once, or ask the owner of a running one to; False when done."""
        if self.fail_queued(job_id, Cancelled.code, "The job was cancelled."):
            return True
        return self._update(
            (jobs.c.id == job_id, jobs.c.status == "in_progress"), cancel_requested=True
        )

    def delete(self, job_id: str) -> bool:
        """Remove a job that has ended; False when there is none, or it has not."""
        ended = jobs.c.status.in_(("completed", "failed"))
        with self._engine.begin() as connection:
            number = connection.scalar(
                sa.select(jobs.c.number).where(jobs.c.id == job_id, ended).with_for_update()
            )
            if number is None:
                return False
            gone = {"id": job_id, "number": number, "sequence": next_change(connection)}
            caller = sa.select(jobs.c.caller).where(jobs.c.number == number).scalar_subquery()
            connection.execute(deleted_jobs.insert().values(**gone, caller=caller))
            connection.execute(jobs.delete().where(jobs.c.number == number))
            connection.execute(pictures.delete().where(pictures.c.job_id == job_id))
        return True

    # --- leases ----------------------------------------------------------------------------------

    def renew(self, owner: str, lease_until: float) -> list[str]:
        """Extend the owner's leases; return those of its jobs that somebody wants cancelled."""
        mine = (jobs.c.owner == owner, jobs.c.status == "in_progress")
        wanted = sa.select(jobs.c.id).where(*mine, jobs.c.cancel_requested)
        with self._engine.begin() as connection:
            connection.execute(jobs.update().where(*mine).values(lease_until=lease_until))
            return list(connection.scalars(wanted))

    # --- inside ----------------------------------------------------------------------------------

    def _update(self, conditions: Sequence[sa.ColumnElement[bool]], **values: Any) -> bool:
        """Change rows in a way that the outside may see, as one change; False when none fits."""
        with self._engine.begin() as connection:
            values |= {"sequence": next_change(connection), "changed_at": time.time()}
            return connection.execute(jobs.update().where(*conditions).values(values)).rowcount > 0

    def _end(
        self, conditions: Sequence[sa.ColumnElement[bool]], outcome: str, **values: Any
    ) -> bool:
        """Give one job its last state, and write down who is to be told; False when none fits.

        Its picture stays with a video, to make it again, and goes with any other end.
        """
        now, completed = time.time(), outcome == "completed"
        with self._engine.begin() as connection:
            values |= {"sequence": next_change(connection), "changed_at": now}
            values |= {"finished_at": now, "image": None}
            if completed:
                kept = sa.select(jobs.c.id, jobs.c.image)
                kept = kept.where(*conditions, jobs.c.image.is_not(None))
                connection.execute(pictures.insert().from_select(["job_id", "picture"], kept))
            change = jobs.update().where(*conditions).values(values)
            ended = connection.execute(change.returning(jobs.c.id, jobs.c.model)).first()
            if ended is None:
                return False
            event: Event = "video.completed" if completed else "video.failed"
            self._outbox.add(connection, event, ended.id, now)
        if self._on_end is not None:
            self._on_end(ended.model, outcome)
        return True


def _queued(job_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return jobs.c.id == job_id, jobs.c.status == "queued"


def _owned(job_id: str, owner: str) -> tuple[sa.ColumnElement[bool], ...]:
    return jobs.c.id == job_id, jobs.c.status == "in_progress", jobs.c.owner == owner


def _waiting(*, count_attempt: bool) -> dict[str, Any]:
    attempts = jobs.c.attempts if count_attempt else jobs.c.attempts - 1
    return {
        "status": "queued",
        "phase": "queued",
        "owner": "",
        "lease_until": 0.0,
        "attempts": sa.case((attempts < 0, 0), else_=attempts),
    }


def _failure(code: str, message: str) -> dict[str, Any]:
    return {
        "status": "failed",
        "error_code": code,
        "error_message": message,
    }
