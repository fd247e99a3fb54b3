"""The place of the database without its cluster only where PostgreSQL refuses to say which cluster it is.

Revision: 0020, after 0019. A registry before it goes on beside it.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# Any other error, such as a control file that cannot be read for once, would make a copy of the original. These three
# stay as they are: a role without the right, and managed servers that have no such function.
_LOCATION = """
CREATE OR REPLACE FUNCTION headcount_location() RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    cluster text := '';
BEGIN
    BEGIN
        SELECT system_identifier INTO cluster FROM pg_control_system();
    EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN
        NULL;
    END;
    RETURN concat_ws('.', cluster, (SELECT oid FROM pg_database WHERE datname = current_database()),
        'registry_state'::regclass::oid);
END
$$
"""


def upgrade() -> None:
    """Apply."""
    op.execute(_LOCATION)
