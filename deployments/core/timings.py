"""The table of what phases took on this machine, so that a restart forgets nothing."""

import time
from collections.abc import Iterable

import sqlalchemy as sa

from deployments.core import database
from deployments.core.estimates import Amount, Setting, Timing

_timings = sa.Table(
    "timings",
    sa.MetaData(),
    sa.Column("model", sa.String),
    sa.Column("checkpoint", sa.String),
    sa.Column("device", sa.String),
    sa.Column("phase", sa.String),
    sa.Column("shape", sa.String),
    sa.Column("work", sa.Float),
    sa.Column("seconds", sa.Float),
    sa.Column("curve", sa.JSON),
    sa.Column("runs", sa.Integer),
    sa.Column("updated_at", sa.Float),
)


class TimingStore:
    """The table behind the URL of the job table, which brings the schema up to date. Blocks."""

    def __init__(self, url: str) -> None:
        self._engine = database.connect(url)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def load(self) -> list[Timing]:
        """Return everything that is known."""
        with self._engine.connect() as connection:
            return [_timing(row) for row in connection.execute(sa.select(_timings))]

    def save(self, timings: Iterable[Timing]) -> None:
        """Replace what is known of each of these shapes."""
        with self._engine.begin() as connection:
            for timing in timings:
                _replace(connection, timing)


def _replace(connection: sa.Connection, timing: Timing) -> None:
    setting, amount = timing.setting, timing.amount
    key = {
        "model": setting.model,
        "checkpoint": setting.checkpoint,
        "device": setting.device,
        "phase": amount.phase,
        "shape": amount.shape,
    }
    values = {
        "work": amount.work,
        "seconds": timing.seconds,
        "curve": list(timing.curve),
        "runs": timing.runs,
        "updated_at": time.time(),
    }
    where = [_timings.c[name] == value for name, value in key.items()]
    if not connection.execute(_timings.update().where(*where).values(values)).rowcount:
        connection.execute(_timings.insert().values(key | values))


def _timing(row: sa.Row[tuple[object, ...]]) -> Timing:
    values = row._mapping
    return Timing(
        setting=Setting(values["model"], values["checkpoint"], values["device"]),
        amount=Amount(values["phase"], values["shape"], values["work"]),
        seconds=values["seconds"],
        curve=tuple(values["curve"]),
        runs=values["runs"],
    )
