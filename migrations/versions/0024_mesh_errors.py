"""The words of Envoys about the mesh configuration that they reject over gRPC streams.

Revision: 0024, after 0023. A registry before it goes on beside it, and leaves them out.
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("mesh_subscribers", sa.Column("error", sa.Text))
