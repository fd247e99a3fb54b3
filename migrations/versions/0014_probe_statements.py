"""The statements of probers about suspects, for the process that sweeps.

Revision: 0014, after 0013. A registry before it goes on beside it and knows nothing of the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "probe_statements",
        sa.Column("prober", sa.Text, primary_key=True),
        sa.Column("endpoint_id", sa.BigInteger, primary_key=True),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reached_at", sa.DateTime(timezone=True)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("registrar_of", sa.Text, nullable=False),
        prefixes=["UNLOGGED"],
    )
    op.create_index("probe_statements_endpoint_idx", "probe_statements", ["endpoint_id"])
