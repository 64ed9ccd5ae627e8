"""Whose job it is and how it was asked for, when it changed, what is kept, timings and webhooks."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

JOB_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("caller", sa.String(64), nullable=False, server_default=""),
    sa.Column("idempotency_key", sa.String(255), nullable=True),
    sa.Column("fingerprint", sa.String(64), nullable=False, server_default=""),
    sa.Column("deadline_at", sa.Float, nullable=True),
    sa.Column("pinned", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("sequence", sa.Integer, nullable=False, server_default="0"),
    sa.Column("changed_at", sa.Float, nullable=False, server_default="0"),
)
DELETED_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("caller", sa.String(64), nullable=False, server_default=""),
    sa.Column("sequence", sa.Integer, nullable=False, server_default="0"),
)


def upgrade() -> None:
    """Add the columns, the counter of changes, and the tables of timings and of deliveries."""
    for column in JOB_COLUMNS:
        op.add_column("jobs", column.copy())
    for column in DELETED_COLUMNS:
        op.add_column("deleted_jobs", column.copy())
    op.create_index("jobs_by_sequence", "jobs", ["sequence"])
    op.create_index("deleted_jobs_by_sequence", "deleted_jobs", ["sequence"])
    op.create_index("jobs_by_idempotency_key", "jobs", ["caller", "idempotency_key"], unique=True)
    op.create_index("jobs_by_fingerprint", "jobs", ["caller", "fingerprint"])
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.Integer, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "changes", "value": 0}])
    op.create_table(
        "timings",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("checkpoint", sa.String(255), primary_key=True),
        sa.Column("device", sa.String(128), primary_key=True),
        sa.Column("phase", sa.String(16), primary_key=True),
        sa.Column("shape", sa.String(128), primary_key=True),
        sa.Column("work", sa.Float, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("curve", sa.JSON, nullable=False),
        sa.Column("runs", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Float, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Drop all of it."""
    for table in ("webhook_deliveries", "timings", "counters"):
        op.drop_table(table)
    for index in ("jobs_by_fingerprint", "jobs_by_idempotency_key", "jobs_by_sequence"):
        op.drop_index(index, "jobs")
    op.drop_index("deleted_jobs_by_sequence", "deleted_jobs")
    for name, columns in (("deleted_jobs", DELETED_COLUMNS), ("jobs", JOB_COLUMNS)):
        for column in columns:
            op.drop_column(name, column.name)
