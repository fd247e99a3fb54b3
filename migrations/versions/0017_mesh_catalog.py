"""The last known metadata of services, which gateways select them by while they have no endpoint.

Revision: 0017, after 0016. A registry before it goes on beside it. Where it leads, gateways drop a service with its
last endpoint, and it stores nothing here.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "mesh_catalog",
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
    )
