"""The database behind the job table: how it is opened, and how its tables come up to date."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

BUSY_TIMEOUT_S = 15


def connect(url: str) -> sa.Engine:
    """Return the engine of a SQLAlchemy URL; a SQLite file's folder is made."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver must not open transactions of its own: we say BEGIN IMMEDIATE ourselves.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    # A commit must survive a power cut: the answer "queued" is a promise.
    connection.execute("PRAGMA synchronous=FULL")


def _begin_immediate(connection: sa.Connection) -> None:
    # Taking the write lock at the start avoids "database is locked" when two replicas overlap: a
    # read transaction that turns into a write cannot wait, one that starts as a write can.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def migrate(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the tables to `revision`, whatever version left them."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
