"""Lost endpoints, expected numbers, and the actors of drains.

Revision: 0013, after 0012. A registry of before goes on beside it: endpoints that it lets lapse are not lost, and those
that it registers fill no place.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("services", sa.Column("expected", sa.Integer))
    op.add_column("services", sa.Column("expected_by", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("endpoints", sa.Column("expected", sa.Integer))
    op.add_column("endpoints", sa.Column("lost_at", sa.DateTime(timezone=True)))
    op.add_column("endpoints", sa.Column("lost_reason", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("endpoints", sa.Column("spare_since", sa.DateTime(timezone=True)))
    op.add_column("endpoints", sa.Column("drained_by", sa.Text, nullable=False, server_default=sa.text("''")))
    op.create_index(
        "endpoints_lost_idx", "endpoints", ["service", "lost_at"], postgresql_where=sa.text("lost_at IS NOT NULL")
    )
