"""The statements that set what operators say of a service as a whole: expected numbers, and shares of traffic."""

import msgspec
from sqlalchemy import Integer, Text, bindparam, text

from registry.core.event import EventKind
from registry.core.shares import Share, Shares, shares_in_words
from registry.core.shift import Shift
from registry.errors import ShiftConflictError
from registry.store.changeset_writer import ADD_EVENT
from registry.store.database import CHANNEL, Database
from registry.store.driver import Driver, Statement
from registry.store.rows import moment
from registry.store.service_locks import StoredVersion, lock_service

_SET_EXPECTED = Statement(
    text(
        "UPDATE services SET expected = :expected, expected_by = :expected_by, change = change + 1 WHERE name = :name"
        " RETURNING version, change, pg_notify(:channel, name || ' ' || change)"
    ).bindparams(bindparam("expected", type_=Integer), channel=CHANNEL)
)
# Envoy sees the weights, so the version grows too. A service without one has never had an endpoint, and a version that
# begins at 1 could have been served before a fail-over.
_SET_SHARES = Statement(
    text(
        "UPDATE services SET shares = :shares, version = version + :versions, change = change + 1"
        " WHERE name = :name AND version > 0 AND (shares <> '' OR :shares <> '')"
        " RETURNING version, change, pg_notify(:channel, name || ' ' || change)"
    ).bindparams(bindparam("shares", type_=Text), bindparam("versions", type_=Integer), channel=CHANNEL)
)
_NOW = Statement(text("SELECT extract(epoch FROM clock_timestamp())"))
_SHIFT = Statement(text("SELECT shift FROM shifts WHERE service = :name"))
_decode_shift = msgspec.json.Decoder(Shift).decode


async def set_expected(
    database: Database, service: str, expected: int | None, *, actor: str, reason: str
) -> StoredVersion | None:
    """Set how many endpoints an operator expects a service to have, and return its numbers; None: it is not known.

    It is a change of the service, by which all processes learn of it.

    Args:
        database: the database.
        service: the service's name.
        expected: the number; None takes an operator's number back.
        actor: the operator.
        reason: why, for the history; empty: none was given.
    """
    async with database.driver_transaction() as driver:
        if not await lock_service(driver, service):
            return None
        expected_by = "" if expected is None else actor
        rows = await driver.rows(_SET_EXPECTED, name=service, expected=expected, expected_by=expected_by)
        what = "no operator's number any more" if expected is None else f"{expected} endpoints are expected"
        stored = StoredVersion(rows[0].version, rows[0].change)
        await record_event(driver, service, "expected_set", _with_reason(what, reason), actor, stored)
        return stored


async def set_shares(
    database: Database, service: str, groups: tuple[Share, ...], *, actor: str, reason: str
) -> StoredVersion | None:
    """Set the shares of a service's groups, and return its numbers; None: nothing was stored.

    Nothing is, for a service that is not known, and for one that has none to take back. They replace those that
    it has. All weights of a service change with one version.

    Args:
        database: the database.
        service: the service's name.
        groups: the shares; empty takes all back.
        actor: the operator.
        reason: why.

    Raises:
        ShiftConflictError: a shift sets the shares of the service.
    """
    async with database.driver_transaction() as driver:
        if not await lock_service(driver, service):
            return None
        for row in await driver.rows(_SHIFT, name=service):
            _refuse_beside(decode_shift(row.shift))
        shares = Shares(groups, actor, reason, await now_of(driver)) if groups else None
        stored = await write_shares(driver, service, shares)
        if stored is None:
            return None
        what = shares_in_words(groups) if groups else "no shares any more"
        await record_event(driver, service, "shares_set", _with_reason(what, reason), actor, stored)
        return stored


async def write_shares(
    driver: Driver, service: str, shares: Shares | None, *, visible: bool = True
) -> StoredVersion | None:
    """Store the shares of a locked service, and return its numbers; None: nothing was stored.

    Nothing is, where the service has none to take back, or no version.

    Args:
        driver: the transaction.
        service: the service's name.
        shares: the shares; None takes them back.
        visible: whether weights change by it, so that Envoys need a new version.
    """
    encoded = "" if shares is None else msgspec.json.encode(shares).decode()
    rows = await driver.rows(_SET_SHARES, name=service, shares=encoded, versions=int(visible))
    return StoredVersion(rows[0].version, rows[0].change) if rows else None


def decode_shift(stored: str) -> Shift | None:
    """Return a shift as it is stored; None if it cannot be read, and another one may take its place."""
    try:
        return _decode_shift(stored)
    except msgspec.DecodeError:
        return None


def _refuse_beside(shift: Shift | None) -> None:
    if shift is not None and shift.active:
        raise ShiftConflictError(
            f"a shift to {shift.plan.selector} sets the shares of {shift.service}, and is {shift.state} at "
            f"{shift.percent:g} %: abort or promote it first (registryctl shift {shift.service} --abort)"
        )


def _with_reason(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what


async def now_of(driver: Driver) -> float:
    """Return PostgreSQL's time."""
    return float((await driver.rows(_NOW))[0][0])


async def record_event(  # one argument a column
    driver: Driver, service: str, kind: EventKind, reason: str, actor: str, stored: StoredVersion
) -> None:
    """Add an event of a service as a whole to its history."""
    row = {
        "at": moment(await now_of(driver)),
        "service": service,
        "address": None,
        "port": None,
        "instance_id": "",
        "kind": kind,
        "reason": reason,
        "actor": actor,
        "status": "",
        "version": stored.version,
    }
    await driver.run_each(ADD_EVENT, [row])
