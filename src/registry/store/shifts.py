"""The statements on shifts of traffic: one row a service, written with the service's shares in one transaction."""

from collections.abc import Callable

import msgspec
from msgspec import Struct
from sqlalchemy import ARRAY, BigInteger, Text, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.shares import Share, Shares
from registry.core.shift import Change, Shift
from registry.store.database import Database
from registry.store.driver import Driver, Statement
from registry.store.service_locks import StoredVersion, lock_service
from registry.store.service_values import decode_shift, now_of, record_event, write_shares
from registry.store.tables import services, shifts

_decode_shares = msgspec.json.Decoder(Shares).decode

_WITH_SHARES = (
    select(shifts.c.service, shifts.c.serial, services.c.shares)
    .join(services, services.c.name == shifts.c.service)
    .where(shifts.c.state == "running")
    .order_by(shifts.c.service)
)
_NOT_DONE = (
    select(shifts.c.service, shifts.c.shift, services.c.shares)
    .join(services, services.c.name == shifts.c.service)
    # Of those that were aborted, whose shares nobody has taken back since.
    .where(shifts.c.state.in_(("running", "paused")) | ((shifts.c.state == "aborted") & (services.c.shares != "")))
    .order_by(shifts.c.service)
)
_SHIFTS = select(shifts.c.service, shifts.c.shift).order_by(shifts.c.service)
_LOCK = Statement(
    select(shifts.c.shift, services.c.shares, services.c.version, services.c.change)
    .select_from(services.outerjoin(shifts, services.c.name == shifts.c.service))
    .where(services.c.name == bindparam("service"))
)
_upsert = upsert(shifts)
_WRITE = Statement(
    _upsert.on_conflict_do_update(
        index_elements=["service"], set_={name: _upsert.excluded[name] for name in ("state", "serial", "shift")}
    ),
    ["service", "state", "serial", "shift"],
)
_NOTE = Statement(
    text(
        "UPDATE shifts SET shift = :shift WHERE service = :service AND serial = :serial AND state = 'running'"
        " RETURNING service"
    ).bindparams(
        bindparam("shift", type_=Text), bindparam("service", type_=Text), bindparam("serial", type_=BigInteger)
    )
)

Decision = Callable[[Shift | None, tuple[Share, ...], float], Change]
"""Takes the last shift of a service, the shares in force and PostgreSQL's time, and returns what changes."""


class RunningShift(Struct, frozen=True):
    """A running shift as the leader finds it at each look.

    Attributes:
        service: the service.
        serial: its serial; the rest is read when this is another one than before.
        shares: the shares of the service that are in force.
    """

    service: str
    serial: int
    shares: tuple[Share, ...]


class StoredShift(Struct, frozen=True):
    """A shift after a change, with the service's numbers."""

    shift: Shift
    numbers: StoredVersion


async def running(connection: AsyncConnection) -> list[RunningShift]:
    """Return the shifts that are running, with the shares in force."""
    return [
        RunningShift(row.service, row.serial, _shares(row.shares)) for row in await connection.execute(_WITH_SHARES)
    ]


async def read(connection: AsyncConnection, names: list[str] | None = None) -> dict[str, Shift | None]:
    """Return the last shift of these services, or of all that had any; None: its row cannot be read."""
    query = _SHIFTS
    if names is not None:
        query = query.where(shifts.c.service == func.any(bindparam("names", names, ARRAY(Text))))
    return {row.service: decode_shift(row.shift) for row in await connection.execute(query)}


async def read_not_done(connection: AsyncConnection) -> list[tuple[str, Shift | None, tuple[Share, ...]]]:
    """Return the shifts that are under way or were aborted, each with its service and the shares in force.

    A shift is None where its row cannot be read.
    """
    rows = await connection.execute(_NOT_DONE)
    return [(row.service, decode_shift(row.shift), _shares(row.shares)) for row in rows]


async def change_shift(database: Database, service: str, decide: Decision) -> StoredShift | None:
    """Change the shift of a service, and its shares with it; None: the service is not known.

    Args:
        database: the database.
        service: the service's name.
        decide: returns what changes; what it raises leaves all as it was.
    """
    async with database.driver_transaction() as driver:
        if not await lock_service(driver, service):
            return None
        (row,) = await driver.rows(_LOCK, service=service)
        in_force = _shares(row.shares)
        change = decide(None if row.shift is None else decode_shift(row.shift), in_force, await now_of(driver))
        numbers = StoredVersion(row.version, row.change)
        return StoredShift(change.shift, await _save(driver, change, in_force, numbers))


async def note(database: Database, change: Change) -> bool:
    """Store what was counted for a running shift, and an event of it; False: it has changed meanwhile."""
    shift = change.shift
    async with database.driver_transaction() as driver:
        values = {"service": shift.service, "serial": shift.serial, "shift": _encoded(shift)}
        if not await driver.rows(_NOTE, **values):
            return False
        if change.event is not None:
            event = change.event
            (row,) = await driver.rows(_LOCK, service=shift.service)
            numbers = StoredVersion(row.version, row.change)
            await record_event(driver, shift.service, event.kind, event.reason, event.actor, numbers)
        return True


async def _save(driver: Driver, change: Change, in_force: tuple[Share, ...], numbers: StoredVersion) -> StoredVersion:
    shift = change.shift
    values = {"service": shift.service, "state": shift.state, "serial": shift.serial, "shift": _encoded(shift)}
    await driver.run(_WRITE, **values)
    if change.publishes:
        shares = Shares(shift.shares, shift.changed_by, f"shift {shift.state}: {shift.reason}", shift.changed_at)
        marked = msgspec.structs.replace(shares, shift=shift.mark)
        # A pause changes no weight, and shares that another hand has set stay until the shift is resumed.
        if shift.state == "paused":
            marked = msgspec.structs.replace(marked, groups=in_force)
        if marked.groups or in_force:
            visible = marked.groups != in_force
            kept = marked if marked.groups else None
            numbers = await write_shares(driver, shift.service, kept, visible=visible) or numbers
    if change.event is not None:
        event = change.event
        await record_event(driver, shift.service, event.kind, event.reason, event.actor, numbers)
    return numbers


def _encoded(shift: Shift) -> str:
    return msgspec.json.encode(shift).decode()


def _shares(stored: str) -> tuple[Share, ...]:
    """Return the shares of a service's groups; none where they cannot be read, as no process serves them."""
    try:
        return _decode_shares(stored).groups if stored else ()
    except msgspec.DecodeError:
        return ()
