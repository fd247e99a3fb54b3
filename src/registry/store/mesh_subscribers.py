"""The statements by which processes exchange the subscribers of the mesh configuration that they have seen."""

from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import ARRAY, Text, bindparam, delete, func, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.cooperative import cooperatively
from registry.core.mesh_subscriber import MAX_WATCH_AGE, MeshReport, ProcessWatch
from registry.core.subscriber import SUBSCRIBER_TIMEOUT
from registry.core.subscriber_status import SubscriberReport
from registry.store.database import Database
from registry.store.left_out import SHORT_LOCK
from registry.store.tables import mesh_envoys, mesh_subscribers, mesh_watches, subscribers
from registry.store.times import age_of

ENVOY_RETENTION = 86_400.0
"""Seconds for which the version of an Envoy is remembered after its last poll."""

_KEY = ("process", "kind", "name", "node_id", "address")
_COLUMNS = [column.name for column in mesh_subscribers.c]
_NAMES = ", ".join(_COLUMNS)
_REPORT_COLUMNS = [mesh_subscribers.c[name] for name in MeshReport.__struct_fields__]
_EDS_COLUMNS = [subscribers.c[name] for name in SubscriberReport.__struct_fields__]
# One JSON document, as in registry.store.subscribers.
_STORE_REPORTS = text(
    f"INSERT INTO mesh_subscribers ({_NAMES}) SELECT {_NAMES} FROM json_populate_recordset("  # noqa: S608  # constants
    "json_populate_record(NULL::mesh_subscribers, json_build_object('told_at', CAST(:now AS double precision))),"
    f" CAST(:reports AS json)) ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in _KEY)
)
_STORE_WATCH = text(
    "INSERT INTO mesh_watches (process, seconds, overlooked_ago, told_at)"
    " VALUES (:process, :seconds, :overlooked_ago, clock_timestamp())"
    " ON CONFLICT (process) DO UPDATE SET seconds = excluded.seconds, overlooked_ago = excluded.overlooked_ago,"
    " told_at = excluded.told_at RETURNING xmax = 0"
)
_STORE_ENVOYS = text(
    "INSERT INTO mesh_envoys (node_cluster, version, seen_at)"
    " SELECT *, clock_timestamp() FROM unnest(CAST(:clusters AS text[]), CAST(:versions AS text[]))"
    " ON CONFLICT (node_cluster, version) DO UPDATE SET seen_at = excluded.seen_at"
)
_age = age_of(mesh_watches.c.told_at)


async def store_reports(database: Database, reports: Sequence[MeshReport], now: float) -> None:
    """Store reports of this process, in place of its earlier ones about the same subscriptions.

    Args:
        database: where they are stored.
        reports: at most one for each subscription of an Envoy.
        now: the database's time.

    Raises:
        UnavailableError: they could not be stored.
    """
    async with database.transaction() as connection:
        await connection.execute(SHORT_LOCK)
        await connection.execute(_STORE_REPORTS, {"reports": msgspec.json.encode(reports).decode(), "now": now})


async def store_watch(database: Database, watch: ProcessWatch) -> bool:
    """Store for how long this process has watched; return whether PostgreSQL knew nothing of it.

    Raises:
        UnavailableError: it could not be stored.
    """
    values = {name: getattr(watch, name) for name in ("process", "seconds", "overlooked_ago")}
    async with database.transaction() as connection:
        return bool((await connection.execute(_STORE_WATCH, values)).scalar_one())


async def store_envoys(database: Database, pairs: Sequence[tuple[str, str]]) -> None:
    """Store which versions of Envoy have polled for each node.cluster just now.

    Args:
        database: where they are stored.
        pairs: each node.cluster with a version, in order, so that two processes do not wait for each other.

    Raises:
        UnavailableError: it could not be stored.
    """
    async with database.transaction() as connection:
        await connection.execute(SHORT_LOCK)
        values = {"clusters": [cluster for cluster, _ in pairs], "versions": [version for _, version in pairs]}
        await connection.execute(_STORE_ENVOYS, values)


async def delete_old_envoys(database: Database) -> None:
    """Delete the versions of Envoys that have not polled for ``ENVOY_RETENTION``.

    Raises:
        UnavailableError: they could not be deleted.
    """
    key = (mesh_envoys.c.node_cluster, mesh_envoys.c.version)
    old = select(*key).where(age_of(mesh_envoys.c.seen_at) > ENVOY_RETENTION).with_for_update(skip_locked=True)
    async with database.transaction() as connection:
        await connection.execute(delete(mesh_envoys).where(tuple_(*key).in_(old)))


async def read_envoys(connection: AsyncConnection) -> dict[str, list[str]]:
    """Return the node.clusters of which each version of Envoy has polled within a day."""
    age = age_of(mesh_envoys.c.seen_at)
    query = select(mesh_envoys.c.version, mesh_envoys.c.node_cluster).where(age <= ENVOY_RETENTION)
    versions: dict[str, list[str]] = {}
    for row in await connection.execute(query.order_by(mesh_envoys.c.version, mesh_envoys.c.node_cluster)):
        versions.setdefault(row.version, []).append(row.node_cluster)
    return versions


async def delete_old(database: Database, process: str, now: float) -> None:
    """Delete the outdated reports of this process, and of those that are gone.

    Raises:
        UnavailableError: they could not be deleted.
    """
    watching = select(mesh_watches.c.process).where(_age <= SUBSCRIBER_TIMEOUT)
    outdated = func.abs(now - mesh_subscribers.c.told_at) > SUBSCRIBER_TIMEOUT
    ownerless = or_(mesh_subscribers.c.process == process, mesh_subscribers.c.process.not_in(watching))
    async with database.transaction() as connection:
        await connection.execute(delete(mesh_subscribers).where(outdated, ownerless))
        await connection.execute(delete(mesh_watches).where(func.abs(_age) > SUBSCRIBER_TIMEOUT))


async def read_watches(connection: AsyncConnection) -> list[ProcessWatch]:
    """Return for how long each process has watched."""
    query = select(mesh_watches.c.process, mesh_watches.c.seconds, mesh_watches.c.overlooked_ago, _age.label("age"))
    return [
        # An age of the future is one from before the clock was set back.
        ProcessWatch(row.process, row.seconds, row.overlooked_ago, abs(float(row.age)))
        for row in await connection.execute(query)
    ]


async def reports_of_others(
    connection: AsyncConnection, process: str, clusters: Collection[str] | None
) -> list[MeshReport]:
    """Return the reports of the other processes about some node.clusters; None: about all.

    A process that says nothing any more holds no poll, whatever it reported last.
    """
    watching = select(mesh_watches.c.process).where(func.abs(_age) <= MAX_WATCH_AGE)
    held = mesh_subscribers.c.held & mesh_subscribers.c.process.in_(watching)
    columns = [held.label("held") if column.name == "held" else column for column in _REPORT_COLUMNS]
    query = select(*columns).where(mesh_subscribers.c.process != process)
    if clusters is not None:
        parameter = bindparam("clusters", list(clusters), ARRAY(Text))
        query = query.where(mesh_subscribers.c.cluster == func.any(parameter))
    rows = (await connection.execute(query)).all()
    return [MeshReport(*row) async for row in cooperatively(rows)]


async def endpoint_reports(
    connection: AsyncConnection, services: Mapping[str, Collection[str]]
) -> list[SubscriberReport]:
    """Return the reports of all processes about Envoys that ask for the endpoints of services.

    Args:
        connection: the connection.
        services: by node.cluster.
    """
    clusters = bindparam("clusters", list(services), ARRAY(Text))
    names = bindparam("services", sorted({name for each in services.values() for name in each}), ARRAY(Text))
    query = select(*_EDS_COLUMNS).where(
        subscribers.c.cluster == func.any(clusters),
        subscribers.c.service == func.any(names),
    )
    rows = (await connection.execute(query)).all()
    return [SubscriberReport(*row) async for row in cooperatively(rows)]
