"""The gateways, and the services of them, that do not follow the catalog, each with its own reason.

Revision: 0021, after 0020. A registry before it goes on beside it, and notes one reason for all of them while it leads.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "mesh_gateway_refusal",
        sa.Column("refused", sa.Text, nullable=False, server_default=sa.text("'[]'")),
    )
