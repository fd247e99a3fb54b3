"""The statements by which a transaction stores a changeset: endpoints, events, leases, overrides and versions.

``registry.store.transaction`` locks and loads what the changeset has; all that is written of it is written here.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, any_, bindparam, delete, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from registry.core.changeset import Changeset
from registry.core.endpoint import Quarantined
from registry.core.endpoint_change import EndpointChange
from registry.core.event import Event
from registry.core.versions import version_before_first
from registry.store.database import CHANNEL
from registry.store.driver import Driver, Statement
from registry.store.rows import moment, to_row
from registry.store.service_locks import LockedServices, StoredVersion
from registry.store.single_change import SINGLE_CHANGE, parameters
from registry.store.tables import endpoints, events, leases, overrides

# As one argument: a statement takes 32,767, and a service may have more endpoints at once.
_leased = leases.c.endpoint_id == any_(bindparam("ids", type_=ARRAY(BigInteger)))
_REMOVE_ENDPOINT = Statement(
    update(endpoints)
    .where(endpoints.c.id == bindparam("known_id"))
    .values(removed_at=bindparam("now"), changed_at=bindparam("now"), change=bindparam("number"))
)
_endpoint_columns = [column.name for column in endpoints.c if column.name != "id"]
_UPDATE_ENDPOINT = Statement(update(endpoints).where(endpoints.c.id == bindparam("known_id")), _endpoint_columns)
_ADD_ENDPOINT = Statement(insert(endpoints).returning(endpoints.c.id), _endpoint_columns)
ADD_EVENT = Statement(insert(events), [column.name for column in events.c if column.name not in ("id", "transaction")])
# In the order in which renewals lock them, before any of them is changed.
_LOCK_LEASES = Statement(select(leases.c.endpoint_id).where(_leased).order_by(leases.c.endpoint_id).with_for_update())
_DELETE_LEASES = Statement(delete(leases).where(_leased))
_MOVE_LEASE = Statement(
    update(leases).where(leases.c.endpoint_id == bindparam("moved_id")).values(change=bindparam("number"))
)
_grant = upsert(leases)
_GRANT = Statement(
    _grant.on_conflict_do_update(
        index_elements=["endpoint_id"],
        set_={column.name: _grant.excluded[column.name] for column in leases.c if column.name != "endpoint_id"},
    ),
    [column.name for column in leases.c],
)
_override = upsert(overrides)
_SET_OVERRIDE = Statement(
    _override.on_conflict_do_update(
        index_elements=list(overrides.primary_key),
        set_={column.name: _override.excluded[column.name] for column in overrides.c if not column.primary_key},
    ),
    [column.name for column in overrides.c],
)
_CLEAR_OVERRIDE = Statement(
    delete(overrides).where(*(column == bindparam(column.name) for column in overrides.primary_key))
)
# A reader that has any change of a service before its first version has what a fail-over lost, and reads it whole.
_SET_VERSIONS = Statement(
    text(
        "WITH counted AS (UPDATE services SET version = told.version, change = told.change,"
        " floor = CASE WHEN services.version = 0 THEN told.change ELSE services.floor END"
        " FROM unnest(CAST(:names AS text[]), CAST(:versions AS bigint[]), CAST(:changes AS bigint[]))"
        " AS told(name, version, change) WHERE services.name = told.name RETURNING services.name, services.change)"
        " SELECT pg_notify(:channel, name || ' ' || change) FROM counted"
    ).bindparams(channel=CHANNEL)
)


async def save(
    driver: Driver, changeset: Changeset, locked: LockedServices, quarantined: Collection[Quarantined] = ()
) -> dict[str, StoredVersion]:
    """Store the changes of a changeset, and remove the given quarantined rows."""
    changed = list(changeset.changed())
    after = next_versions(changed, locked.versions, locked.generation, {row.service for row in quarantined})
    raised = sorted(name for name in after if after[name] != locked.versions[name])
    if _is_single(changeset, changed, locked.versions, raised, quarantined):
        await _save_single(driver, changeset, changed[0], after)
        return after
    # First, because a new endpoint may take the address of one of them.
    for row in quarantined:
        await _remove_quarantined(driver, changeset, row, after[row.service].change)
    if changed:
        await _save_endpoints(driver, changed, after)
    if changed or quarantined:
        await _save_events(driver, changeset, after)
    await _save_leases(driver, changeset, after)
    await _save_overrides(driver, changeset)
    if raised:
        versions = {
            "versions": [after[name].version for name in raised],
            "changes": [after[name].change for name in raised],
        }
        await driver.run(_SET_VERSIONS, names=raised, **versions)
    return after


def _is_single(
    changeset: Changeset,
    changed: Sequence[EndpointChange],
    before: Mapping[str, StoredVersion],
    raised: Sequence[str],
    quarantined: Collection[Quarantined],
) -> bool:
    """Return whether this is the usual change, of one stored endpoint that renews its lease by it."""
    return (
        len(changed) == len(raised) == len(changeset.events) == 1
        and changed[0].after.id > 0
        and changed[0].before is not None
        and before[raised[0]].version > 0
        and list(changeset.granted()) == list(changed)
        and not quarantined
        and not changeset.overrides
    )


async def _save_single(
    driver: Driver, changeset: Changeset, entry: EndpointChange, after: Mapping[str, StoredVersion]
) -> None:
    stored = after[entry.after.service]
    await driver.run(
        SINGLE_CHANGE,
        **parameters(
            to_row(entry.after, stored.change),
            _event(changeset.events[0], changeset.now, stored.version),
            _lease(entry, changeset.now, stored.change),
            stored.version,
        ),
    )


async def _remove_quarantined(driver: Driver, changeset: Changeset, row: Quarantined, change: int) -> None:
    """Remove a quarantined row and its lease; the removal is a change, so that all processes drop it."""
    now = moment(changeset.now)
    await driver.run(_REMOVE_ENDPOINT, known_id=row.id, now=now, number=change)
    await driver.run(_DELETE_LEASES, ids=[row.id])
    reason = f"it was quarantined: {row.reason}"
    changeset.events.append(Event(row.service, row.address, row.port, "", "removed", reason, "registry", "REMOVED"))


def next_versions(
    changed: Collection[EndpointChange],
    versions: Mapping[str, StoredVersion],
    generation: int,
    losing_endpoint: Collection[str] = (),
) -> dict[str, StoredVersion]:
    """Return the versions of services after a change.

    Args:
        changed: the changed endpoints.
        versions: the versions of the locked services before it.
        generation: the number of promotions so far.
        losing_endpoint: services that lose a quarantined row as well.
    """
    after = dict(versions)
    touched = {entry.after.service for entry in changed}.union(losing_endpoint)
    visible = {entry.after.service for entry in changed if entry.visible}.union(losing_endpoint)
    for name in touched:
        before = versions[name]
        if not before.version:
            first = version_before_first(generation)
            before = StoredVersion(first, max(first, before.change))
        after[name] = StoredVersion(before.version + (name in visible), before.change + 1)
    return after


async def _save_endpoints(
    driver: Driver, changed: Collection[EndpointChange], after: Mapping[str, StoredVersion]
) -> None:
    # Removals first, because a new endpoint may take the address of a removed one.
    stored = sorted((e for e in changed if e.after.id), key=lambda e: (e.after.removed_at is None, e.after.id))
    if stored:
        await driver.run_each(
            _UPDATE_ENDPOINT,
            [to_row(e.after, after[e.after.service].change) | {"known_id": e.after.id} for e in stored],
        )
    new = [entry for entry in changed if not entry.after.id]
    if new:
        rows = [to_row(entry.after, after[entry.after.service].change) for entry in new]
        for entry, (endpoint_id,) in zip(new, await driver.rows_of_each(_ADD_ENDPOINT, rows), strict=True):
            entry.stored_as(endpoint_id)


async def _save_leases(driver: Driver, changeset: Changeset, after: Mapping[str, StoredVersion]) -> None:
    changed = [entry for entry in changeset.changed() if entry.before is not None]
    granted = list(changeset.granted())
    touched = {entry.after.id for entry in (*changed, *granted)}
    if len(touched) > 1:
        await driver.run(_LOCK_LEASES, ids=sorted(touched))
    if granted:
        granted_rows = [_lease(entry, changeset.now, after[entry.after.service].change) for entry in granted]
        await driver.run_each(_GRANT, granted_rows)
    # A heartbeat that is compared with the former state matches no lease once the lease is gone or has another change,
    # and then goes the way of a registration.
    ended = [entry.after.id for entry in changed if not entry.leased]
    if ended:
        await driver.run(_DELETE_LEASES, ids=sorted(ended))
    moved = [entry for entry in changed if entry.leased and not entry.granted]
    if moved:
        moved_rows = [{"moved_id": entry.after.id, "number": after[entry.after.service].change} for entry in moved]
        await driver.run_each(_MOVE_LEASE, moved_rows)


def _lease(entry: EndpointChange, now: float, change: int) -> dict[str, Any]:
    endpoint = entry.after
    ttl = endpoint.registration.ttl or 0.0
    return {
        "endpoint_id": endpoint.id,
        "incarnation": endpoint.registration.incarnation,
        "renewed_at": moment(now),
        "expires_at": moment(now + ttl),
        "ttl": ttl,
        "change": change if entry.changed else endpoint.change,
    }


async def _save_overrides(driver: Driver, changeset: Changeset) -> None:
    for (service, address, port), override in changeset.overrides.items():
        key = {"service": service, "address": address, "port": port}
        if override is None:
            await driver.run(_CLEAR_OVERRIDE, **key)
            continue
        values = key | {
            "weight": override.weight,
            "drain": override.drain,
            "actor": override.actor,
            "reason": override.reason,
            "set_at": moment(override.set_at),
            "expires_at": moment(override.expires_at),
            "instance_id": override.instance_id,
            "canary": override.canary,
        }
        await driver.run(_SET_OVERRIDE, **values)


async def _save_events(driver: Driver, changeset: Changeset, after: Mapping[str, StoredVersion]) -> None:
    rows = [_event(event, changeset.now, after[event.service].version) for event in changeset.events]
    await driver.run_each(ADD_EVENT, rows)


def _event(event: Event, now: float, version: int) -> dict[str, Any]:
    return {
        "at": moment(now),
        "service": event.service,
        "address": event.address,
        "port": event.port,
        "instance_id": event.instance_id,
        "kind": event.kind,
        "reason": event.reason,
        "actor": event.actor,
        "status": event.status,
        "version": version,
    }
