"""The lifetime of static tokens, which the overlap of a rotation does not shorten.

Revision: 0012, after 0011. A registry of before goes on beside it: the tokens that it makes have none, and theirs is
the time from their creation to their end.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("credentials", sa.Column("lifetime", sa.Double))
