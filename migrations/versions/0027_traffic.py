"""The figures of traffic that each process has, so that the others can add them to theirs.

Revision: 0027, after 0026. A registry before it goes on beside it, and gets no digests.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "traffic",
        sa.Column("process_id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pairs", sa.LargeBinary, nullable=False),
        sa.Column("endpoints", sa.LargeBinary, nullable=False),
        prefixes=["UNLOGGED"],
    )
