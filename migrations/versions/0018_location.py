"""The place of the database, so that a copy of it is told from the original, and the order of events in a copy.

Revision: 0018, after 0017. A registry before it goes on beside it: it neither notices a copy nor keeps events of one
in order.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# A dump that is restored makes the table anew, so that at least the table's number differs, and mostly the others too.
# A standby has them all. Where a role may not ask for the cluster's identifier, the other two have to do.
_LOCATION = """
CREATE FUNCTION headcount_location() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    cluster text := '';
BEGIN
    BEGIN
        SELECT system_identifier INTO cluster FROM pg_control_system();
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    RETURN concat_ws('.', cluster, (SELECT oid FROM pg_database WHERE datname = current_database()),
        'registry_state'::regclass::oid);
END
$$
"""

# Another cluster has other numbers of transactions. transaction_offset lifts them above all that are stored.
_TRANSACTION = """
CREATE FUNCTION headcount_transaction() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN pg_current_xact_id()::text::bigint + (SELECT transaction_offset FROM registry_state);
END
$$
"""


def upgrade() -> None:
    """Apply."""
    op.add_column("registry_state", sa.Column("location", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("registry_state", sa.Column("restored_at", sa.DateTime(timezone=True)))
    op.add_column(
        "registry_state", sa.Column("transaction_offset", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    )
    op.execute(_LOCATION)
    op.execute("UPDATE registry_state SET location = headcount_location()")
    op.execute(_TRANSACTION)
    op.alter_column("events", "transaction", server_default=sa.text("headcount_transaction()"))
