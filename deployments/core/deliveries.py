"""The webhooks that are still to be delivered: a table beside that of the jobs.

A row is written in the transaction that ends its job, so that no crash comes between the two. Who
delivers it takes it first, by moving its next attempt beyond the time-out of this one: of two jobs
replicas only one gets it, and when that one dies the row is due again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from deployments.core import database
from deployments.core.job_table import metadata
from deployments.core.webhooks import Endpoint, Event, event_body, new_event_id

deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String),
    sa.Column("endpoint", sa.String),
    sa.Column("event", sa.String),
    sa.Column("job_id", sa.String),
    sa.Column("body", sa.Text),
    sa.Column("attempts", sa.Integer),
    sa.Column("next_at", sa.Float),
    sa.Column("created_at", sa.Float),
)


@dataclass(frozen=True)
class Delivery:
    """A webhook on its way.

    Attributes:
        id: of the event, the same at each attempt.
        endpoint: the key of its receiver.
        attempts: those that have begun.
        next_at: when the next one may begin, in Unix seconds.
    """

    number: int
    id: str
    endpoint: str
    event: Event
    job_id: str
    body: str
    attempts: int
    next_at: float
    created_at: float


class Outbox:
    """Writes the rows; `endpoints` are the receivers that are configured."""

    def __init__(self, endpoints: Sequence[Endpoint] = ()) -> None:
        self.endpoints = tuple(endpoints)
        self._stopped: set[str] = set()

    def stop(self, endpoint: Endpoint) -> None:
        """Tell this receiver nothing more."""
        self._stopped.add(endpoint.key)

    def add(self, connection: sa.Connection, event: Event, job_id: str, at: float) -> None:
        """Have all receivers of `event` told, if the transaction of `connection` succeeds."""
        for endpoint in self.endpoints:
            if event in endpoint.events and endpoint.key not in self._stopped:
                event_id = new_event_id()
                row = {
                    "id": event_id,
                    "endpoint": endpoint.key,
                    "event": event,
                    "job_id": job_id,
                    "body": event_body(event_id, event, job_id, at),
                    "attempts": 0,
                    "next_at": at,
                    "created_at": at,
                }
                connection.execute(deliveries.insert().values(row))


class DeliveryStore:
    """Takes the rows out again. All methods block; the tables are there already."""

    def __init__(self, url: str) -> None:
        self._engine = database.connect(url)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def due(self, endpoint: str, now: float, limit: int) -> list[Delivery]:
        """Return the deliveries to one receiver whose time has come, the longest due first."""
        query = sa.select(deliveries).where(
            deliveries.c.endpoint == endpoint, deliveries.c.next_at <= now
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(deliveries.c.next_at).limit(limit))
            return [Delivery(**row._mapping) for row in rows]

    def claim(self, delivery: Delivery, until: float) -> bool:
        """Begin an attempt, which nobody else repeats before `until`; False when another has."""
        taken = {"attempts": delivery.attempts + 1, "next_at": until}
        unchanged = deliveries.c.attempts == delivery.attempts
        return self._execute(deliveries.update().where(_is(delivery), unchanged).values(taken)) > 0

    def postpone(self, delivery: Delivery, until: float) -> None:
        """Try again at `until`."""
        self._execute(deliveries.update().where(_is(delivery)).values(next_at=until))

    def remove(self, delivery: Delivery) -> None:
        """Forget a webhook: it was delivered, or is given up."""
        self._execute(deliveries.delete().where(_is(delivery)))

    def clear(self, endpoint: str) -> int:
        """Forget all webhooks for one receiver; return how many there were."""
        return self._execute(deliveries.delete().where(deliveries.c.endpoint == endpoint))

    def clear_others(self, endpoints: Sequence[str]) -> int:
        """Forget those for receivers that are not among `endpoints`; return how many."""
        return self._execute(deliveries.delete().where(deliveries.c.endpoint.not_in(endpoints)))

    def count(self) -> int:
        """Return how many are not delivered yet."""
        query = sa.select(sa.func.count()).select_from(deliveries)
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def _execute(self, change: sa.Executable) -> int:
        with self._engine.begin() as connection:
            return connection.execute(change).rowcount


def _is(delivery: Delivery) -> sa.ColumnElement[bool]:
    return deliveries.c.number == delivery.number
