"""Suspects that the guard keeps served, pauses of expiry, and events of a whole service.

Revision: 0002, after 0001. A registry of 0001 goes on beside it: it writes none of the new columns.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.add_column("endpoints", sa.Column("suspect_since", _moment))
    op.add_column("endpoints", sa.Column("suspect_reason", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("leases", sa.Column("change", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("overrides", sa.Column("instance_id", sa.Text, nullable=False, server_default=sa.text("''")))
    op.create_table(
        "pauses",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", _moment, nullable=False),
        sa.Column("until", _moment, nullable=False),
    )
    op.alter_column("events", "address", nullable=True)
    op.alter_column("events", "port", nullable=True)
    op.create_index("events_endpoint_idx", "events", ["service", "address", "port", "transaction", "id"])
