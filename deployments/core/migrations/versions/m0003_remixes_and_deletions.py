"""Which job a job is a remix of, and where deleted jobs stood."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add `remixed_from`, and `deleted_jobs`: a cursor into a list outlives its job."""
    op.add_column("jobs", sa.Column("remixed_from", sa.String(64), nullable=True))
    op.create_table(
        "deleted_jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Drop both."""
    op.drop_table("deleted_jobs")
    op.drop_column("jobs", "remixed_from")
