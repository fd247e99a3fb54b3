"""The shares of traffic of groups within a service.

Revision: 0023, after 0022. A registry before it goes on beside it, and serves weights without shares: set none before
all registries know of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("services", sa.Column("shares", sa.Text, nullable=False, server_default=sa.text("''")))
