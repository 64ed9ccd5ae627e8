"""Reading the job table: one job, the waiting ones, a page of a list, what changed since."""

import sqlalchemy as sa

from deployments.core import database
from deployments.core.events import DeletedJob, JobStatus
from deployments.core.job_table import (
    Job,
    Waiting,
    counters,
    deleted_jobs,
    job_of,
    jobs,
    pictures,
    without_image,
)
from deployments.core.service import JobQuery


class JobQueries:
    """What can be asked of the table behind one SQLAlchemy URL. All methods block."""

    def __init__(self, url: str) -> None:
        self._engine = database.connect(url)

    def get(self, job_id: str) -> Job | None:
        """Return the job, or None."""
        found = self._select(jobs.c.id == job_id)
        return found[0] if found else None

    def by_file_name(self, file_name: str) -> Job | None:
        """Return the job that owns this file, or None."""
        found = self._select(jobs.c.file_name == file_name)
        return found[0] if found else None

    def queued(self) -> list[Job]:
        """Return the waiting jobs, oldest first."""
        return self._select(jobs.c.status == "queued")

    def in_progress(self) -> list[Job]:
        """Return the running jobs of every owner, oldest first."""
        return self._select(jobs.c.status == "in_progress")

    def file_names(self, *statuses: JobStatus) -> set[str]:
        """Return the names that the jobs in one of these states have for their files."""
        query = sa.select(jobs.c.file_name).where(
            jobs.c.file_name.is_not(None), jobs.c.status.in_(statuses)
        )
        with self._engine.connect() as connection:
            return set(connection.scalars(query))

    def ended_before(self, moment: float) -> list[str]:
        """Return the unpinned jobs that ended before `moment`, in Unix seconds; oldest first."""
        query = sa.select(jobs.c.id).where(
            jobs.c.status.in_(("completed", "failed")),
            sa.not_(jobs.c.pinned),
            jobs.c.finished_at < moment,
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(jobs.c.finished_at)))

    def file_sizes(self) -> list[tuple[str, int]]:
        """Return the unpinned completed jobs and the bytes of their files and pictures; newest
        first."""
        picture = sa.func.coalesce(sa.func.length(pictures.c.picture), 0)
        query = (
            sa.select(jobs.c.id, sa.func.coalesce(jobs.c.file_bytes, 0) + picture)
            .outerjoin(pictures, pictures.c.job_id == jobs.c.id)
            .where(jobs.c.status == "completed", sa.not_(jobs.c.pinned))
        )
        newest_first = query.order_by(jobs.c.finished_at.desc(), jobs.c.number.desc())
        with self._engine.connect() as connection:
            return [(row[0], row[1]) for row in connection.execute(newest_first)]

    def page(self, query: JobQuery) -> list[Job] | None:
        """Return up to `query.limit` jobs in the order in which they came, or the opposite one;
        None when there never was a job `query.after`."""
        conditions = _conditions(query)
        descending = query.order == "desc"
        if query.after is not None:
            if (start := self._number(query.after, query.caller)) is None:
                return None
            conditions.append(jobs.c.number < start if descending else jobs.c.number > start)
        order = jobs.c.number.desc() if descending else jobs.c.number.asc()
        found = sa.select(*without_image).where(*conditions).order_by(order).limit(query.limit)
        with self._engine.connect() as connection:
            return [job_of(row) for row in connection.execute(found)]

    def waiting(self) -> list[Waiting]:
        """Return who waits, the oldest job first."""
        columns = (jobs.c.number, jobs.c.id, jobs.c.caller)
        query = sa.select(*columns).where(jobs.c.status == "queued").order_by(jobs.c.number)
        with self._engine.connect() as connection:
            return [Waiting(*row) for row in connection.execute(query)]

    def last_served(self) -> list[str]:
        """Return the callers of whom a job has begun, the one served last at the end."""
        query = (
            sa.select(jobs.c.caller)
            .where(jobs.c.started_at.is_not(None))
            .group_by(jobs.c.caller)
            .order_by(sa.func.max(jobs.c.started_at))
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query))

    def count_queued(self, caller: str | None = None) -> int:
        """Return how many jobs wait, of all or of one caller."""
        whose = [] if caller is None else [jobs.c.caller == caller]
        return self._count(jobs.c.status == "queued", *whose)

    def image(self, job_id: str) -> bytes | None:
        """Return the job's input image; None if it has none, or has ended without a video."""
        of_job = sa.select(jobs.c.image).where(jobs.c.id == job_id)
        of_video = sa.select(pictures.c.picture).where(pictures.c.job_id == job_id)
        with self._engine.connect() as connection:
            image: bytes | None = connection.scalar(of_job)
            return connection.scalar(of_video) if image is None else image

    def changed_after(self, sequence: int, limit: int) -> list[Job]:
        """Return the jobs whose last change came after `sequence`, in the order of the changes."""
        return self._select(jobs.c.sequence > sequence, order=jobs.c.sequence, limit=limit)

    def deleted_after(self, sequence: int, limit: int) -> list[DeletedJob]:
        """Return the jobs that were deleted after `sequence`, in the order of their deletion."""
        columns = (deleted_jobs.c.id, deleted_jobs.c.caller, deleted_jobs.c.sequence)
        query = sa.select(*columns).where(deleted_jobs.c.sequence > sequence)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(deleted_jobs.c.sequence).limit(limit))
            return [DeletedJob(**row._mapping) for row in rows]

    def last_change(self) -> int:
        """Return the number of the newest change."""
        query = sa.select(counters.c.value).where(counters.c.name == "changes")
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def _select(
        self,
        *conditions: sa.ColumnElement[bool],
        order: sa.ColumnElement[int] = jobs.c.number,
        limit: int | None = None,
    ) -> list[Job]:
        query = sa.select(*without_image).where(*conditions).order_by(order).limit(limit)
        with self._engine.connect() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def _number(self, job_id: str, caller: str | None) -> int | None:
        """Return where the job stands, or stood, if it is the caller's."""
        with self._engine.connect() as connection:
            for table in (jobs, deleted_jobs):
                query = sa.select(table.c.number).where(table.c.id == job_id)
                if caller is not None:
                    query = query.where(table.c.caller == caller)
                if (number := connection.scalar(query)) is not None:
                    return int(number)
        return None

    def _count(self, *conditions: sa.ColumnElement[bool]) -> int:
        query = sa.select(sa.func.count()).select_from(jobs).where(*conditions)
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)


def _conditions(query: JobQuery) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if query.caller is not None:
        conditions.append(jobs.c.caller == query.caller)
    if query.model is not None:
        conditions.append(jobs.c.model == query.model)
    if query.status is not None:
        conditions.append(jobs.c.status == query.status)
    if query.pinned is not None:
        conditions.append(jobs.c.pinned == query.pinned)
    if query.search:
        conditions.append(_prompt.icontains(query.search, autoescape=True))
    return conditions


_prompt: sa.ColumnElement[str] = jobs.c.request["prompt"].as_string()
