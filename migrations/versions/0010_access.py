"""Credentials, identities, the audit, the logins that were seen, and the owners of endpoints.

Revision: 0010, after 0009. A registry of before goes on beside it: it decides nothing, and the endpoints that it
registers have no owner.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)
_empty = sa.text("''")


def upgrade() -> None:
    """Apply."""
    op.add_column("endpoints", sa.Column("owner", sa.Text, nullable=False, server_default=_empty))
    op.add_column(
        "registry_state", sa.Column("access_generation", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    )
    op.create_table(
        "credentials",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("grants", JSONB, nullable=False),
        sa.Column("networks", JSONB, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("expires_at", _moment, nullable=False),
        sa.Column("revoked_at", _moment),
        sa.Column("successor_of", sa.Text, nullable=False, server_default=_empty),
        sa.Column("used_at", _moment),
        sa.Column("identity", sa.Text, nullable=False, server_default=_empty),
        sa.Column("session_name", sa.Text, nullable=False, server_default=_empty),
        sa.Column("login_at", _moment),
        sa.Column("discovers", sa.Boolean, nullable=False, server_default=sa.text("false")),
    )
    op.create_index("credentials_expires_at_idx", "credentials", ["expires_at"])
    op.create_index("credentials_tokens_idx", "credentials", ["name"], postgresql_where=sa.text("identity = ''"))
    op.create_index(
        "credentials_revoked_at_idx", "credentials", ["revoked_at"], postgresql_where=sa.text("revoked_at IS NOT NULL")
    )
    op.create_table(
        "identities",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("match", sa.Text, nullable=False),
        sa.Column("unique_id", sa.Text, nullable=False, server_default=_empty),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("grants", JSONB, nullable=False),
        sa.Column("limits", JSONB, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("updated_at", _moment, nullable=False),
        sa.UniqueConstraint("source", "match", name="identities_source_match_key"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("at", _moment, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("credential", sa.Text, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("verb", sa.Text, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    )
    op.create_index("audit_at_idx", "audit", ["at"])
    op.create_table(
        "logins_seen",
        sa.Column("signature", sa.LargeBinary, primary_key=True),
        sa.Column("seen_at", _moment, nullable=False),
    )
