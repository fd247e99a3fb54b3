"""The timeline on which each service was last changed, so that versions a fail-over lost are not reused.

Revision: 0003, after 0002. A registry of 0002 goes on beside it: it counts on as it did, and founds services without a
timeline, which is taken for the database's first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The control file has the old timeline until the first checkpoint after a promotion. The position of the write-ahead
# log has the new one from the first write on, and every role may read it. Where it cannot be read (some managed
# PostgreSQL have no log of their own), everything is on one timeline, numbered 0.
_TIMELINE = """
CREATE FUNCTION headcount_timeline() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint;
EXCEPTION WHEN OTHERS THEN
    RETURN 0;
END
$$
"""


def upgrade() -> None:
    """Apply."""
    op.execute(_TIMELINE)
    op.add_column("services", sa.Column("timeline", sa.BigInteger))
    op.add_column("registry_state", sa.Column("timeline", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.execute("UPDATE registry_state SET timeline = headcount_timeline()")
