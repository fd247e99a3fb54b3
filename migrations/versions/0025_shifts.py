"""The shifts of traffic to a group of a service's endpoints.

Revision: 0025, after 0024. A registry before it goes on beside it: it serves the shares of a shift, and neither
advances nor aborts one. One that it sets shares of is paused.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "shifts",
        sa.Column("service", sa.Text, sa.ForeignKey("services.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("shift", sa.Text, nullable=False),
    )
