"""The tables for SQLAlchemy Core; `migrations/` creates them, and a test compares the two."""

from sqlalchemy import (
    ARRAY,
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
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
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

# A single row. database_id: identifies the database, so that its versions are never compared with those of another one.
# last_sweep_at: the end of the last sweep, so that time without sweeps is credited. timeline: PostgreSQL's timeline
# when the column was created. first_number: the greatest number of any forgotten service; by a trigger, the version of
# each new service begins above it. access_generation: grows with each change of tokens and identities. location: where
# the database was when its id was given; a copy of it has another one. restored_at: when it was last found to be a
# copy. transaction_offset: is added to the number of each transaction that is stored, so that those of a copy are
# greater.
registry_state = Table(
    "registry_state",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("database_id", Text, nullable=False),
    Column("last_sweep_at", _moment),
    Column("timeline", BigInteger, nullable=False, server_default=text("0")),
    Column("first_number", BigInteger, nullable=False, server_default=text("0")),
    Column("access_generation", BigInteger, nullable=False, server_default=text("0")),
    Column("location", Text, nullable=False, server_default=text("''")),
    Column("restored_at", _moment),
    Column("transaction_offset", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("singleton", name="one_row"),
)

# floor: a reader with a smaller change than this has to read the service whole, because tombstones in between are
# deleted, or the version was raised after a fail-over. timeline: PostgreSQL's timeline at the last change; null where a
# registry that is older than the column has created the service. expected: how many endpoints the operator expected_by
# expects; null: none has set a number. shares: the shares of traffic of its groups as JSON
# (registry.core.shares.Shares); empty: none.
services = Table(
    "services",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    Column("change", BigInteger, nullable=False, server_default=text("0")),
    Column("floor", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", _moment, nullable=False, server_default=text("now()")),
    Column("timeline", BigInteger),
    Column("expected", Integer),
    Column("expected_by", Text, nullable=False, server_default=text("''")),
    Column("shares", Text, nullable=False, server_default=text("''")),
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
    # The identity that registered it; empty where access is off, or an older registry did.
    Column("owner", Text, nullable=False, server_default=text("''")),
    # The number of endpoints that its registration expects the service to have.
    Column("expected", Integer),
    # When and why it was lost, until its place is filled or the loss is acknowledged.
    Column("lost_at", _moment),
    Column("lost_reason", Text, nullable=False, server_default=text("''")),
    # When it came, while it has filled no place of a lost endpoint; null also for endpoints of an older registry.
    Column("spare_since", _moment),
    # The actor and the time of the drain of its incarnation.
    Column("drained_by", Text, nullable=False, server_default=text("''")),
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
# Read where a service gains an endpoint; contains only lost ones.
Index("endpoints_lost_idx", endpoints.c.service, endpoints.c.lost_at, postgresql_where=endpoints.c.lost_at.is_not(None))
Index("endpoints_service_change_idx", endpoints.c.service, endpoints.c.change)
# Read in each sweep; contains only endpoints that left or lapsed.
Index(
    "endpoints_departing_idx",
    endpoints.c.unroutable_at,
    postgresql_where=text("removed_at IS NULL AND (leaving_at IS NOT NULL OR lapsed_at IS NOT NULL)"),
)

# Heartbeats write only to this table. It has no index on the expiry, and free space in each page, so that updates are
# heap-only tuples (HOT) and change no index; a sequential scan in each sweep is cheap.
leases = Table(
    "leases",
    metadata,
    Column("endpoint_id", BigInteger, ForeignKey("endpoints.id", ondelete="CASCADE"), primary_key=True),
    Column("incarnation", BigInteger, nullable=False),
    Column("renewed_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("ttl", Double, nullable=False),
    # The endpoint's change. A renewal names it, and renews nothing if the endpoint has changed since.
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

# Pauses of expiry by operators; scope is a service's name, or * for all services.
pauses = Table(
    "pauses",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", _moment, nullable=False),
    Column("until", _moment, nullable=False),
)

# The reports of each process about its subscribers. Unlogged: a crash of PostgreSQL empties the table, and the
# processes publish their reports again within seconds.
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
    # The last poll without a version, with which each subscription begins; null: not seen, or of an older registry.
    Column("started_at", Double),
    # The registrar whose edge answers its polls; empty: it polls a registry itself, or is reported by an older one.
    Column("edge", Text, nullable=False, server_default=""),
    prefixes=["UNLOGGED"],
)
Index("subscribers_service_idx", subscribers.c.service)

# The report of each registry process about itself: that it lives, and the abilities that it lacks
# (registry.core.abilities.Failure), with seconds by its own monotonic clock. Unlogged, as above.
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

# The statements of probers about suspects (registry.core.evidence.Statement): one of each prober about each endpoint,
# and all of them replaced together. Unlogged, as above.
probe_statements = Table(
    "probe_statements",
    metadata,
    Column("prober", Text, primary_key=True),
    Column("endpoint_id", BigInteger, primary_key=True),
    Column("incarnation", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", _moment, nullable=False),
    Column("reached_at", _moment),
    Column("attempts", Integer, nullable=False),
    Column("registrar_of", Text, nullable=False),
    prefixes=["UNLOGGED"],
)
Index("probe_statements_endpoint_idx", probe_statements.c.endpoint_id)

# The traffic that each process knows (registry.core.traffic_table.TrafficImage, and of endpoints
# registry.core.endpoint_attempts.ServiceImage), as msgpack and zlib. number: grows with each image. Unlogged, as above.
traffic = Table(
    "traffic",
    metadata,
    Column("process_id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("told_at", _moment, nullable=False),
    Column("pairs", LargeBinary, nullable=False),
    Column("endpoints", LargeBinary, nullable=False),
    prefixes=["UNLOGGED"],
)

# The errands of the last minutes (registry.core.errands). Times are PostgreSQL's;
# arguments and result are JSON. Unlogged, as above: an errand that is lost in a crash is asked again.
errands = Table(
    "errands",
    metadata,
    Column("id", Text, primary_key=True),
    Column("service", Text, nullable=False),
    Column("address", INET, nullable=False),
    Column("port", Integer, nullable=False),
    Column("instance_id", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("callee", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("asked_at", _moment, nullable=False),
    Column("collect_until", _moment, nullable=False),
    Column("answer_seconds", Double, nullable=False),
    Column("collected_at", _moment),
    Column("ended_at", _moment),
    Column("lost", Text),
    Column("result", Text),
    prefixes=["UNLOGGED"],
)
Index("errands_instance_idx", errands.c.instance_id)

# The use of each process's memory of subscribers. refused_at: when there was last no room for one.
subscriber_memories = Table(
    "subscriber_memories",
    metadata,
    Column("process", Text, primary_key=True),
    Column("sightings", BigInteger, nullable=False),
    Column("refused_at", Double),
    Column("told_at", Double, nullable=False),
    prefixes=["UNLOGGED"],
)

# The gRPC streams of each process. services: what each asks for; troubles: what of it may not be current
# (registry.core.stream_subscriber.Trouble), so that a row is written when that changes, and not at each change of a
# service. Unlogged, as above.
subscriber_streams = Table(
    "subscriber_streams",
    metadata,
    Column("process_id", Text, primary_key=True),
    Column("stream", BigInteger, primary_key=True),
    Column("process", Text, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("api", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("zone", Text, nullable=False),
    Column("envoy", Text, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("services", ARRAY(Text), nullable=False),
    Column("troubles", JSONB, nullable=False),
    Column("told_at", _moment, nullable=False),
    prefixes=["UNLOGGED"],
)

# transaction orders events across writers. Ids are assigned before the commit, so a reader that follows ids alone would
# miss events that commit late.
events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("transaction", BigInteger, nullable=False, server_default=text("headcount_transaction()")),
    Column("at", _moment, nullable=False),
    Column("service", Text, nullable=False),
    # Null for an event of a service or of all services.
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

# Static tokens, whose identity and parent are empty, and sessions: of an identity, or of the token that is the parent.
# digest: of the whole token, of which nothing else is stored.
credentials = Table(
    "credentials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("grants", JSONB, nullable=False),
    Column("networks", JSONB, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("revoked_at", _moment),
    Column("successor_of", Text, nullable=False, server_default=text("''")),
    Column("used_at", _moment),
    Column("identity", Text, nullable=False, server_default=text("''")),
    Column("session_name", Text, nullable=False, server_default=text("''")),
    Column("login_at", _moment),
    Column("discovers", Boolean, nullable=False, server_default=text("false")),
    Column("parent", Text, nullable=False, server_default=text("''")),
    # The seconds that a static token was made for, which no rotation shortens; NULL: from its creation to its end.
    Column("lifetime", Double),
)
Index("credentials_expires_at_idx", credentials.c.expires_at)
Index("credentials_tokens_idx", credentials.c.name, postgresql_where=text("identity = ''"))
Index("credentials_revoked_at_idx", credentials.c.revoked_at, postgresql_where=credentials.c.revoked_at.is_not(None))

# Codes that sign a browser in once, within a minute. parent: the token whose session that is.
sign_in_codes = Table(
    "sign_in_codes",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("parent", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", _moment, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("name", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("match", Text, nullable=False),
    Column("unique_id", Text, nullable=False, server_default=text("''")),
    Column("kind", Text, nullable=False),
    Column("grants", JSONB, nullable=False),
    Column("limits", JSONB, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("updated_at", _moment, nullable=False),
    UniqueConstraint("source", "match", name="identities_source_match_key"),
)

# Writes, refusals, logins, and changes of credentials. The same refusal is one row a minute, with its count.
audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _moment, nullable=False),
    Column("principal", Text, nullable=False),
    Column("credential", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("count", BigInteger, nullable=False, server_default=text("1")),
)
Index("audit_at_idx", audit.c.at)

# The signatures of logins, so that one that is sent again is refused by every process. Kept for some minutes.
logins_seen = Table(
    "logins_seen",
    metadata,
    Column("signature", LargeBinary, primary_key=True),
    Column("seen_at", _moment, nullable=False),
)

# A single row, which every writer of the mesh configuration locks. revision and step: the newest ones that were given
# out. floor: the newest revision that an Envoy holds although a fail-over has lost it, so that its number is not used
# again. change: grows with each change of the tables below. timeline: PostgreSQL's timeline at the last change.
mesh_state = Table(
    "mesh_state",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("revision", BigInteger, nullable=False, server_default=text("0")),
    Column("step", BigInteger, nullable=False, server_default=text("0")),
    Column("floor", BigInteger, nullable=False, server_default=text("0")),
    Column("change", BigInteger, nullable=False, server_default=text("0")),
    Column("timeline", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("singleton", name="one_row"),
)

# The revisions of the mesh configuration. kind: apply or rollback. content: the revision whose files and resources it
# has, which is its own number unless it rolls back. base: the revision that its author knew. share: the percentage of
# node ids that it began with; 100: all. sha256: of all its resources. files: a deflated JSON object of texts by path;
# null where content has them. proof: a JSON object.
mesh_revisions = Table(
    "mesh_revisions",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", _moment, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content", BigInteger, nullable=False),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("commit", Text, nullable=False),
    Column("base", BigInteger, nullable=False),
    Column("share", Double, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("compiler", Text, nullable=False),
    Column("proof", Text, nullable=False),
    Column("files", LargeBinary),
)

# The compiled resources, each once, with the facts about it that roll-outs need (meshconfig.resource.Resource).
mesh_bodies = Table(
    "mesh_bodies",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("uses", ARRAY(Text), nullable=False),
    Column("eds_service", Text, nullable=False),
    Column("settle", Double, nullable=False),
)

# The resources of each revision: a row holds from the revision since on, and before the revision until. The name * has
# no body and stands for the set itself, which may be empty.
mesh_contents = Table(
    "mesh_contents",
    metadata,
    Column("node_cluster", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("since", BigInteger, primary_key=True, autoincrement=False),
    Column("until", BigInteger),
    Column("sha256", Text, nullable=False),
)

# The resources that are served. share: 0 for all Envoys of the node.cluster, else the percentage of its node ids that
# get these instead. The name * is the set itself; revision and step are those of its last change, and change is the
# state's, by which readers find what to read again. A set stays when it gets empty, so that its version is not lost.
mesh_served = Table(
    "mesh_served",
    metadata,
    Column("node_cluster", Text, primary_key=True),
    Column("share", Double, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("change", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
)
Index("mesh_served_change_idx", mesh_served.c.change)

# The roll-outs that are under way, one for each node.cluster and share; state is a JSON document.
mesh_rollout = Table(
    "mesh_rollout",
    metadata,
    Column("node_cluster", Text, primary_key=True),
    Column("share", Double, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("since", _moment, nullable=False),
)

# The last shift of each service that had any (registry.core.shift.Shift): its state, its serial, and all of it as JSON.
shifts = Table(
    "shifts",
    metadata,
    Column("service", Text, ForeignKey("services.name", ondelete="CASCADE"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("shift", Text, nullable=False),
)

# The reports of each process about the subscribers of the mesh configuration (registry.core.mesh_subscriber).
# Unlogged, as those of EDS.
mesh_subscribers = Table(
    "mesh_subscribers",
    metadata,
    Column("process", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("node_id", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("cluster", Text, nullable=False),
    Column("envoy", Text, nullable=False),
    Column("version", BigInteger),
    Column("refused", BigInteger),
    Column("refused_at", Double),
    Column("denied", Boolean, nullable=False),
    Column("started_at", Double),
    Column("first_seen", Double, nullable=False),
    Column("polled_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("pause", Double),
    Column("told_at", Double, nullable=False),
    # The client's words about what it refuses; null: it polls, or an older registry has told of it.
    Column("error", Text),
    prefixes=["UNLOGGED"],
)
Index("mesh_subscribers_cluster_idx", mesh_subscribers.c.cluster)

# For how long each process has taken polls and told of them (registry.core.mesh_subscriber). overlooked_ago: seconds
# since it had no room to remember a subscriber.
mesh_watches = Table(
    "mesh_watches",
    metadata,
    Column("process", Text, primary_key=True),
    Column("seconds", Double, nullable=False),
    Column("overlooked_ago", Double),
    Column("told_at", _moment, nullable=False),
    prefixes=["UNLOGGED"],
)

# The versions of the Envoys that polled for the mesh configuration, for a day after the last poll of each.
mesh_envoys = Table(
    "mesh_envoys",
    metadata,
    Column("node_cluster", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("seen_at", _moment, nullable=False),
)

# The metadata that the endpoints of each service had when it last had any: in JSON, the values of each key. Gateways
# select a service by it while it has no endpoint. A service that is forgotten has no row.
mesh_catalog = Table(
    "mesh_catalog",
    metadata,
    Column("service", Text, primary_key=True),
    Column("metadata", LargeBinary, nullable=False),
)

# The gateways that were compiled again for a changed catalog, with the revision that was in force. proof: the versions
# of Envoy that have accepted what is served since, as a JSON array; none: it is unproven.
mesh_gateways = Table(
    "mesh_gateways",
    metadata,
    Column("node_cluster", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("at", _moment, nullable=False),
    Column("proof", Text, nullable=False),
)

# Why gateways of a revision, or services of them, do not follow the catalog. A single row, deleted once all of them do.
# reason: in words. refused: each with its reason and since when, as a JSON array.
mesh_gateway_refusal = Table(
    "mesh_gateway_refusal",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("revision", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("since", _moment, nullable=False),
    Column("refused", Text, nullable=False, server_default=text("'[]'")),
    CheckConstraint("singleton", name="one_row"),
)
