"""The mesh configuration: its revisions, the bytes that are served, roll-outs, and what subscribers show of them.

Revision: 0015, after 0014. A registry before it goes on beside it: it serves no mesh configuration, and reports of EDS
subscribers that it stores do not say when each began.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "mesh_state",
        sa.Column("singleton", sa.Boolean, primary_key=True, server_default=sa.text("true")),
        sa.Column("revision", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("step", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("floor", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("change", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("timeline", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.CheckConstraint("singleton", name="one_row"),
    )
    op.execute("INSERT INTO mesh_state (timeline) VALUES (headcount_timeline())")
    op.create_table(
        "mesh_revisions",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("content", sa.BigInteger, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("commit", sa.Text, nullable=False),
        sa.Column("base", sa.BigInteger, nullable=False),
        sa.Column("share", sa.Double, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("compiler", sa.Text, nullable=False),
        sa.Column("proof", sa.Text, nullable=False),
        sa.Column("files", sa.LargeBinary),
    )
    op.create_table(
        "mesh_bodies",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("uses", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("eds_service", sa.Text, nullable=False),
        sa.Column("settle", sa.Double, nullable=False),
    )
    op.create_table(
        "mesh_contents",
        sa.Column("node_cluster", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("since", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("until", sa.BigInteger),
        sa.Column("sha256", sa.Text, nullable=False),
    )
    op.create_table(
        "mesh_served",
        sa.Column("node_cluster", sa.Text, primary_key=True),
        sa.Column("share", sa.Double, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
    )
    op.create_index("mesh_served_change_idx", "mesh_served", ["change"])
    op.create_table(
        "mesh_rollout",
        sa.Column("node_cluster", sa.Text, primary_key=True),
        sa.Column("share", sa.Double, primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "mesh_subscribers",
        sa.Column("process", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("node_id", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("cluster", sa.Text, nullable=False),
        sa.Column("envoy", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger),
        sa.Column("refused", sa.BigInteger),
        sa.Column("refused_at", sa.Double),
        sa.Column("denied", sa.Boolean, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("first_seen", sa.Double, nullable=False),
        sa.Column("polled_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("pause", sa.Double),
        sa.Column("told_at", sa.Double, nullable=False),
        prefixes=["UNLOGGED"],
    )
    op.create_index("mesh_subscribers_cluster_idx", "mesh_subscribers", ["cluster"])
    op.add_column("subscribers", sa.Column("started_at", sa.Double))
