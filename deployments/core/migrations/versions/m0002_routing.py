"""Why a job went to its model."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add `routing`, a sentence; the jobs from before have none."""
    # The default is also for the replica of the version before, which may still take jobs in.
    op.add_column("jobs", sa.Column("routing", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("jobs", "routing")
