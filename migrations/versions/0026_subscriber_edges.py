"""The registrar whose edge answers an Envoy's polls.

Revision: 0026, after 0025. A registry before it goes on beside it: the subscribers that it reports have none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("subscribers", sa.Column("edge", sa.Text, nullable=False, server_default=""))
