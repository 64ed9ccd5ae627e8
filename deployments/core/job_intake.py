"""How a job gets into the table: once, however often its request comes.

Whether it has come before is looked up in the transaction that would add it. That transaction holds
the counter of changes, so that of two that run at the same time, in whichever process, the second
one sees what the first one did.
"""

import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from deployments.core.errors import InvalidRequest
from deployments.core.job_queries import JobQueries
from deployments.core.job_table import counters, deleted_jobs, jobs
from deployments.core.service import IDEMPOTENCY_KEY, Submission

# OpenAI's clients give a call 600 s and repeat it twice, with pauses of up to 8 s: the last attempt
# begins within this time after the first one. openai-python 3.54.0, src/openai/_constants.py
REPEATED_WITHIN_S = 1200.0


class JobIntake(JobQueries):
    """The door of the table."""

    def submit(self, submission: Submission, candidates: Sequence[str], routing: str = "") -> str:
        """Add a waiting job, unless it is there already; returns its id in the table.

        Args: routing: why it is those candidates.
        Raises: InvalidRequest: the idempotency key was used for another request.
        """
        with self._engine.begin() as connection:
            sequence = next_change(connection)
            if (known := _known(connection, submission)) is not None:
                return known
            row = _row(submission, candidates, routing) | {"sequence": sequence}
            if connection.dialect.name == "sqlite":  # it would give a deleted number again
                row["number"] = 1 + max(
                    connection.scalar(sa.select(sa.func.max(table.c.number))) or 0
                    for table in (jobs, deleted_jobs)
                )
            connection.execute(jobs.insert().values(row))
        return submission.job_id

    def known(self, submission: Submission) -> str | None:
        """Return the id of the job that this request has made already, if it has.

        Raises: InvalidRequest: the idempotency key was used for another request.
        """
        with self._engine.connect() as connection:
            return _known(connection, submission)


def _known(connection: sa.Connection, submission: Submission) -> str | None:
    """Return the id of the job that is the same request: the same call handed in twice, the same
    idempotency key, or the same content repeated by a client that says so."""
    if connection.scalar(sa.select(jobs.c.id).where(jobs.c.id == submission.job_id)):
        return submission.job_id
    own = jobs.c.caller == submission.caller
    if submission.idempotency_key is not None:
        key = jobs.c.idempotency_key == submission.idempotency_key
        found = connection.execute(sa.select(jobs.c.id, jobs.c.fingerprint).where(own, key)).first()
        if found is not None and found.fingerprint != submission.fingerprint:
            raise InvalidRequest(
                IDEMPOTENCY_KEY,
                "this key came with another request before; every request takes a key of its own",
            )
        return None if found is None else str(found.id)
    if (repeats := _repeats(submission)) is None:
        return None
    same = (own, jobs.c.fingerprint == submission.fingerprint, jobs.c.idempotency_key.is_(None))
    newest = sa.select(jobs.c.id).where(*same, repeats).order_by(jobs.c.number.desc()).limit(1)
    found_id: str | None = connection.scalar(newest)
    return found_id


def _repeats(submission: Submission) -> sa.ColumnElement[bool] | None:
    """Return which jobs of the same caller and content are this request's; None for none.

    A repetition belongs to a call before it. A first call belongs to nothing before it, but its own
    repetition may have overtaken it.
    """
    if not submission.fingerprint:
        return None
    if submission.is_retry:
        return jobs.c.created_at >= time.time() - REPEATED_WITHIN_S
    if submission.received_at is None:
        return None
    return sa.and_(jobs.c.made_by_retry, jobs.c.created_at > submission.received_at)


def _row(submission: Submission, candidates: Sequence[str], routing: str) -> dict[str, Any]:
    now = time.time()
    return {
        "id": submission.job_id,
        "status": "queued",
        "phase": "queued",
        "progress": 0,
        "step": 0,
        "num_steps": 0,
        "request": submission.request.model_dump(mode="json"),
        "image": submission.image,
        "candidates": list(candidates),
        "model": candidates[0],
        "routing": routing,
        "spec": None,
        "notices": [],
        "owner": "",
        "lease_until": 0.0,
        "attempts": 0,
        "cancel_requested": False,
        "created_at": now,
        "remixed_from": submission.remixed_from,
        "caller": submission.caller,
        "idempotency_key": submission.idempotency_key,
        "fingerprint": submission.fingerprint,
        "made_by_retry": submission.is_retry,
        "deadline_at": submission.deadline_at,
        "pinned": False,
        "changed_at": now,
    }


def next_change(connection: sa.Connection) -> int:
    """Return the number of the next change. The counter's row is locked until the transaction ends,
    so that changes become visible in the order of their numbers."""
    count = (
        counters.update()
        .where(counters.c.name == "changes")
        .values(value=counters.c.value + 1)
        .returning(counters.c.value)
    )
    return int(connection.execute(count).scalar_one())
