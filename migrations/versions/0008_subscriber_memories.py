"""The use of each process's memory of subscribers, and when there was last no room for one.

Revision: 0008, after 0007. A registry before it goes on beside it: it neither reads nor writes the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "subscriber_memories",
        sa.Column("process", sa.Text, primary_key=True),
        sa.Column("sightings", sa.BigInteger, nullable=False),
        sa.Column("refused_at", sa.Double),
        sa.Column("told_at", sa.Double, nullable=False),
        prefixes=["UNLOGGED"],
    )
