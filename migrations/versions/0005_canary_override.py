"""The canary flag of operators' overrides.

Revision: 0005, after 0004. A registry before it goes on beside it: it neither reads nor writes the column.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("overrides", sa.Column("canary", sa.Boolean))
