"""The gateways that were compiled again for a changed catalog, how each was proven, and why that was refused.

Revision: 0019, after 0018. A registry before it goes on beside it, and notes nothing here while it leads.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "mesh_gateways",
        sa.Column("node_cluster", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("proof", sa.Text, nullable=False),
    )
    op.create_table(
        "mesh_gateway_refusal",
        sa.Column("singleton", sa.Boolean, primary_key=True, server_default=sa.text("true")),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("singleton", name="one_row"),
    )
