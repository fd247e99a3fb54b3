"""The watch of each process over the subscribers of the mesh configuration, and the versions of the fleet's Envoys.

Revision: 0016, after 0015. A registry before it goes on beside it. While one does, a roll-out does not take it for
certain that every Envoy is known.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "mesh_watches",
        sa.Column("process", sa.Text, primary_key=True),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("overlooked_ago", sa.Double),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "mesh_envoys",
        sa.Column("node_cluster", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )
