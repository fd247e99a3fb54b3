"""The statements that set what operators say of a service as a whole: expected numbers, and shares of traffic."""

import msgspec
from sqlalchemy import Integer, Text, bindparam, text

from registry.core.changeset import EventKind
from registry.core.shares import Share, Shares, shares_in_words
from registry.store.database import CHANNEL, Database
from registry.store.driver import Driver, Statement
from registry.store.rows import moment
from registry.store.transaction import ADD_EVENT, NOW, StoredVersion, lock_service

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
        "UPDATE services SET shares = :shares, version = version + 1, change = change + 1"
        " WHERE name = :name AND version > 0 AND (shares <> '' OR :shares <> '')"
        " RETURNING version, change, pg_notify(:channel, name || ' ' || change)"
    ).bindparams(bindparam("shares", type_=Text), channel=CHANNEL)
)


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
        await _record(driver, service, "expected_set", _with_reason(what, reason), actor, stored)
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
    """
    async with database.driver_transaction() as driver:
        if not await lock_service(driver, service):
            return None
        shares = Shares(groups, actor, reason, await _now(driver))
        rows = await driver.rows(
            _SET_SHARES, name=service, shares=msgspec.json.encode(shares).decode() if groups else ""
        )
        if not rows:
            return None
        what = shares_in_words(groups) if groups else "no shares any more"
        stored = StoredVersion(rows[0].version, rows[0].change)
        await _record(driver, service, "shares_set", _with_reason(what, reason), actor, stored)
        return stored


def _with_reason(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what


async def _now(driver: Driver) -> float:
    return float((await driver.rows(NOW))[0][0])


async def _record(  # one argument a column
    driver: Driver, service: str, kind: EventKind, reason: str, actor: str, stored: StoredVersion
) -> None:
    row = {
        "at": moment(await _now(driver)),
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
