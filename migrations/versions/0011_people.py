"""Sessions of browsers, which a static token begins, and codes that begin one.

Revision: 0011, after 0010. A registry of before goes on beside it: a session of a browser has no grants of its own.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("credentials", sa.Column("parent", sa.Text, nullable=False, server_default=sa.text("''")))
    op.create_table(
        "sign_in_codes",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("parent", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
