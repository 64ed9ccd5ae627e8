"""The pictures that finished videos began with."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "pictures",
        sa.Column("job_id", sa.String(64), primary_key=True),
        sa.Column("picture", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop it, with what is in it."""
    op.drop_table("pictures")
