"""Which jobs were made by a call that repeated another one."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column."""
    column = sa.Column("made_by_retry", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("jobs", column)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("jobs", "made_by_retry")
