"""The reports of each process about its subscribers, for the other processes.

Revision: 0004, after 0003. A registry of 0003 goes on beside it and knows nothing of the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "subscribers",
        sa.Column("process", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("node_id", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("api", sa.Text, primary_key=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("envoy", sa.Text, nullable=False),
        sa.Column("version_info", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger),
        sa.Column("offered", sa.BigInteger),
        sa.Column("status", sa.Integer),
        sa.Column("answered_at", sa.Double),
        sa.Column("polled_at", sa.Double, nullable=False),
        sa.Column("first_seen", sa.Double, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("pause", sa.Double),
        sa.Column("refusals", sa.Integer, nullable=False),
        sa.Column("refused_since", sa.Double),
        sa.Column("told_at", sa.Double, nullable=False),
        prefixes=["UNLOGGED"],
    )
    op.create_index("subscribers_service_idx", "subscribers", ["service"])
