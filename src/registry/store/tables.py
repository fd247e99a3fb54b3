"""The tables, as SQLAlchemy Core sees them; `migrations/` creates them and a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

_moment = DateTime(timezone=True)

# One row says which database this is, so that versions of another one are never compared with its own, and
# when leases were last looked at, so that time in which nobody looked is credited. timeline: PostgreSQL's, when this
# column was made. first_number: the greatest number of any service that was forgotten; a trigger lets each service
# that is founded begin there.
registry_state = Table(
    "registry_state",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("database_id", Text, nullable=False),
    Column("last_sweep_at", _moment),
    Column("timeline", BigInteger, nullable=False, server_default=text("0")),
    Column("first_number", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("singleton", name="one_row"),
)

# floor: who holds a smaller change than this has to read the service whole, because tombstones in between are
# gone or the numbers were raised after a fail-over. timeline: PostgreSQL's at the last change; null where a registry
# that knows none has founded the service.
services = Table(
    "services",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    Column("change", BigInteger, nullable=False, server_default=text("0")),
    Column("floor", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("timeline", BigInteger),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("service", Text, ForeignKey("services.name"), nullable=False),
    Column("address", INET, nullable=False),
    Column("port", Integer, nullable=False),
    Column("instance_id", Text, nullable=False),
    Column("incarnation", BigInteger, nullable=False),
    Column("health", Text, nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("revision", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("canary", Boolean, nullable=False),
    Column("weight", Integer),
    Column("repository", Text),
    Column("metadata", JSONB, nullable=False),
    Column("detail", Text, nullable=False),
    Column("ttl", Double, nullable=False),
    Column("registered_at", _moment, nullable=False),
    Column("changed_at", _moment, nullable=False),
    Column("lapsed_at", _moment),
    Column("leaving_at", _moment),
    Column("unroutable_at", _moment),
    Column("removed_at", _moment),
    Column("suspect_since", _moment),
    Column("suspect_reason", Text, nullable=False, server_default=text("''")),
    Column("change", BigInteger, nullable=False),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
)
Index(
    "endpoints_listed_key",
    endpoints.c.service,
    endpoints.c.address,
    endpoints.c.port,
    unique=True,
    postgresql_where=endpoints.c.removed_at.is_(None),
)
Index("endpoints_address_port_idx", endpoints.c.address, endpoints.c.port)
Index("endpoints_service_change_idx", endpoints.c.service, endpoints.c.change)
# Looked at each second; holds only those that are on their way out.
Index(
    "endpoints_departing_idx",
    endpoints.c.unroutable_at,
    postgresql_where=text("removed_at IS NULL AND (leaving_at IS NOT NULL OR lapsed_at IS NOT NULL)"),
)

# Heartbeats touch only this table. No index on the expiry, and room in each page: updates then stay in their
# page without touching an index, and a sequential scan a second is cheap.
leases = Table(
    "leases",
    metadata,
    Column("endpoint_id", BigInteger, ForeignKey("endpoints.id", ondelete="CASCADE"), primary_key=True),
    Column("incarnation", BigInteger, nullable=False),
    Column("renewed_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("ttl", Double, nullable=False),
    # That of the endpoint: a renewal names it, so that nobody renews who takes the endpoint for what it was before.
    Column("change", BigInteger, nullable=False, server_default=text("0")),
    postgresql_with={"fillfactor": 75},
)

overrides = Table(
    "overrides",
    metadata,
    Column("service", Text, ForeignKey("services.name"), primary_key=True),
    Column("address", INET, primary_key=True),
    Column("port", Integer, primary_key=True),
    Column("weight", Integer),
    Column("drain", Boolean, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_at", _moment, nullable=False),
    Column("expires_at", _moment),
    Column("instance_id", Text, nullable=False, server_default=text("''")),
    Column("canary", Boolean),
)

# An operator's word that no lease lapses for a while; scope is a service's name, or * for all.
pauses = Table(
    "pauses",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", _moment, nullable=False),
    Column("until", _moment, nullable=False),
)

# What each process knows of who polls it. Lost with a crash of PostgreSQL, and told again within seconds: unlogged.
subscribers = Table(
    "subscribers",
    metadata,
    Column("process", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("node_id", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("api", Text, primary_key=True),
    Column("cluster", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("envoy", Text, nullable=False),
    Column("version_info", Text, nullable=False),
    Column("version", BigInteger),
    Column("offered", BigInteger),
    Column("status", Integer),
    Column("answered_at", Double),
    Column("polled_at", Double, nullable=False),
    Column("first_seen", Double, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("pause", Double),
    Column("refusals", Integer, nullable=False),
    Column("refused_since", Double),
    Column("told_at", Double, nullable=False),
    prefixes=["UNLOGGED"],
)
Index("subscribers_service_idx", subscribers.c.service)

# What each registry process says of itself: that it lives, and what it cannot do now (registry.core.abilities.Failure),
# with seconds by its own monotonic clock. Lost with a crash of PostgreSQL, and told again within seconds: unlogged.
processes = Table(
    "processes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", _moment, nullable=False),
    Column("failures", JSONB, nullable=False),
    prefixes=["UNLOGGED"],
)

# How full each process's memory of its subscribers is. refused_at: when it last did not remember one.
subscriber_memories = Table(
    "subscriber_memories",
    metadata,
    Column("process", Text, primary_key=True),
    Column("sightings", BigInteger, nullable=False),
    Column("refused_at", Double),
    Column("told_at", Double, nullable=False),
    prefixes=["UNLOGGED"],
)

# transaction orders events across writers: ids are handed out before commits, so a reader that follows ids
# alone would miss the ones that commit late.
events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("transaction", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    Column("at", _moment, nullable=False),
    Column("service", Text, nullable=False),
    # Null where the event is of a service, or of all of them, and not of one endpoint.
    Column("address", INET),
    Column("port", Integer),
    Column("instance_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
)
Index("events_transaction_id_idx", events.c.transaction, events.c.id)
Index("events_service_transaction_id_idx", events.c.service, events.c.transaction, events.c.id)
Index("events_endpoint_idx", events.c.service, events.c.address, events.c.port, events.c.transaction, events.c.id)
Index("events_at_idx", events.c.at, postgresql_using="brin")
