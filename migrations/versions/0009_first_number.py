"""The version of a new service begins above those of all forgotten services, so that services can be forgotten.

Revision: 0009, after 0008. A registry of before goes on beside it: the trigger raises the numbers of what it founds as
well. It forgets no service.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# A registry holds the same key ("FORG") exclusively while it forgets a service. The number is read in a statement of
# its own, after the lock, because an INSERT that waits for the DELETE of the same name has a snapshot from before it.
#
# A fail-over may have lost the creation of a service, or the last versions of a forgotten one. So the number moves on
# as far as registry.core.versions.version_before_first says. Where nothing was forgotten the registry does so by
# itself.
_BEGIN_ABOVE = """
CREATE FUNCTION headcount_begin_above() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    least bigint;
    generation bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1179603527);
    SELECT first_number, headcount_timeline() - timeline INTO least, generation FROM registry_state;
    IF least > 0 THEN
        IF generation > 0 THEN
            least := least + 200000 * (generation - 1) + 100000 + floor(random() * 100000)::bigint;
        END IF;
        NEW.version := greatest(NEW.version, least);
        NEW.change := greatest(NEW.change, least);
        -- A reader that has an earlier service of this name reads it whole.
        NEW.floor := greatest(NEW.floor, least + 1);
    END IF;
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    """Apply."""
    op.add_column(
        "registry_state", sa.Column("first_number", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    )
    op.execute(_BEGIN_ABOVE)
    op.execute(
        "CREATE TRIGGER services_begin_above BEFORE INSERT ON services"
        " FOR EACH ROW EXECUTE FUNCTION headcount_begin_above()"
    )
