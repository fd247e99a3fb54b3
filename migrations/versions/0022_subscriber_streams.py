"""The gRPC streams of each process, so that the others can list their subscribers.

Revision: 0022, after 0021. A registry before it goes on beside it, and lists the subscribers that poll alone.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "subscriber_streams",
        sa.Column("process_id", sa.Text, primary_key=True),
        sa.Column("stream", sa.BigInteger, primary_key=True),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("api", sa.Text, nullable=False),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("envoy", sa.Text, nullable=False),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("services", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("troubles", postgresql.JSONB, nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        prefixes=["UNLOGGED"],
    )
