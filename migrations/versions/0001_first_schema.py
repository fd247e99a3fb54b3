"""First schema: services, endpoints, leases, overrides, events.

Revision: 0001, after none. There is no way down: a registry that goes back keeps the newer schema.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import INET, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    _state()
    _services()
    _endpoints()
    _leases()
    _overrides()
    _events()


def _state() -> None:
    op.create_table(
        "registry_state",
        sa.Column("singleton", sa.Boolean, primary_key=True, server_default=sa.text("true")),
        sa.Column("database_id", sa.Text, nullable=False),
        sa.Column("last_sweep_at", _moment),
        sa.CheckConstraint("singleton", name="one_row"),
    )
    # Eight random characters are enough to tell two databases apart, and cheap in each version_info.
    op.execute("INSERT INTO registry_state (database_id) VALUES (left(replace(gen_random_uuid()::text, '-', ''), 8))")


def _services() -> None:
    op.create_table(
        "services",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("change", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("floor", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("created_at", _moment, nullable=False, server_default=sa.text("now()")),
    )


def _endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("service", sa.Text, sa.ForeignKey("services.name"), nullable=False),
        sa.Column("address", INET, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("instance_id", sa.Text, nullable=False),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("health", sa.Text, nullable=False),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("region", sa.Text, nullable=False),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("canary", sa.Boolean, nullable=False),
        sa.Column("weight", sa.Integer),
        sa.Column("repository", sa.Text),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("ttl", sa.Double, nullable=False),
        sa.Column("registered_at", _moment, nullable=False),
        sa.Column("changed_at", _moment, nullable=False),
        sa.Column("lapsed_at", _moment),
        sa.Column("leaving_at", _moment),
        sa.Column("unroutable_at", _moment),
        sa.Column("removed_at", _moment),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
    )
    op.create_index(
        "endpoints_listed_key",
        "endpoints",
        ["service", "address", "port"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_index("endpoints_address_port_idx", "endpoints", ["address", "port"])
    op.create_index("endpoints_service_change_idx", "endpoints", ["service", "change"])
    op.create_index(
        "endpoints_departing_idx",
        "endpoints",
        ["unroutable_at"],
        postgresql_where=sa.text("removed_at IS NULL AND (leaving_at IS NOT NULL OR lapsed_at IS NOT NULL)"),
    )


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column(
            "endpoint_id",
            sa.BigInteger,
            sa.ForeignKey("endpoints.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("incarnation", sa.BigInteger, nullable=False),
        sa.Column("renewed_at", _moment, nullable=False),
        sa.Column("expires_at", _moment, nullable=False),
        sa.Column("ttl", sa.Double, nullable=False),
        postgresql_with={"fillfactor": 75},
    )
    # The table lives on updates within its pages; vacuum early and often keeps it at its size.
    op.execute("ALTER TABLE leases SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0)")


def _overrides() -> None:
    op.create_table(
        "overrides",
        sa.Column("service", sa.Text, sa.ForeignKey("services.name"), primary_key=True),
        sa.Column("address", INET, primary_key=True),
        sa.Column("port", sa.Integer, primary_key=True),
        sa.Column("weight", sa.Integer),
        sa.Column("drain", sa.Boolean, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("set_at", _moment, nullable=False),
        sa.Column("expires_at", _moment),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "transaction",
            sa.BigInteger,
            nullable=False,
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
        ),
        sa.Column("at", _moment, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("address", INET, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("instance_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_index("events_transaction_id_idx", "events", ["transaction", "id"])
    op.create_index("events_service_transaction_id_idx", "events", ["service", "transaction", "id"])
    op.create_index("events_at_idx", "events", ["at"], postgresql_using="brin")
