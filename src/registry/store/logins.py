"""The statements of logins: the signatures that were used, and the sessions that logins begin, renew and end."""

from collections.abc import Sequence

from msgspec.structs import replace
from sqlalchemy import and_, delete, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.auth.aws_login import MAX_AGE, MAX_AHEAD
from registry.auth.credential import Credential
from registry.errors import UnauthenticatedError
from registry.store.credential_rows import identity_of, select_identities
from registry.store.credentials import add_sessions, bump_generation, find_session, lock_state, revoke_all
from registry.store.database import Database, read_agreed_clock, read_clock
from registry.store.rows import moment
from registry.store.tables import credentials, identities, logins_seen

_SEEN_TTL = MAX_AGE + MAX_AHEAD
"""Seconds for which a signature is kept: one of MAX_AHEAD in the future is taken until MAX_AGE after that."""


async def begin_sessions(
    database: Database, sessions: Sequence[Credential], *, ttl: float, digest: bytes, good_until: float
) -> list[Credential]:
    """Store the sessions of a login, and return them with PostgreSQL's times.

    Args:
        database: where sessions are.
        sessions: of one caller.
        ttl: seconds until they end.
        digest: of the signature.
        good_until: the time after which the signature is too old.

    Raises:
        UnauthenticatedError: any process took the signature before, it is too old by PostgreSQL's clock, or the
            identity was removed or changed meanwhile.
    """
    async with database.transaction() as connection:
        now = await read_clock(connection)
        seen = upsert(logins_seen).values(signature=digest, seen_at=moment(now)).on_conflict_do_nothing()
        if (await connection.execute(seen)).rowcount == 0:
            raise UnauthenticatedError("this login was used before, and each is good once; sign a new one")
        if now > good_until:
            raise UnauthenticatedError("this login became too old while it was checked; sign a new one")
        await _check_identity(connection, sessions[0])
        stored = [replace(session, created_at=now, login_at=now, expires_at=now + ttl) for session in sessions]
        await add_sessions(connection, stored)
    return stored


async def renew_sessions(
    database: Database, session_id: str, sessions: Sequence[Credential], *, ttl: float, max_age: float
) -> list[Credential]:
    """Store successors of a session, and return them with PostgreSQL's times; the session itself ends at its end.

    Args:
        database: where sessions are.
        session_id: the id of the session.
        sessions: the id and digest of each successor, and whether it only discovers; the rest is the session's.
        ttl: seconds until the successors end.
        max_age: seconds after the login within which its sessions can be renewed.

    Raises:
        UnauthenticatedError: there is no such session, it ended, only discovers, or has to log in again.
    """
    async with database.transaction() as connection:
        now = await read_clock(connection)
        # The identity is locked before the session, in the order in which both are removed.
        before = await find_session(connection, session_id)
        if before is not None:
            await _check_identity(connection, before)
        session = await _living(connection, session_id, now)
        if session.discovers:
            raise UnauthenticatedError("the session of an Envoy cannot be renewed; renew the registrar's")
        if now - session.login_at >= max_age:
            raise UnauthenticatedError(
                f"the login was {(now - session.login_at) / 3600:.1f} h ago, and its sessions can be renewed for "
                f"{max_age / 3600:g} h; log in again"
            )
        stored = [
            replace(
                session,
                id=each.id,
                digest=each.digest,
                discovers=each.discovers,
                kind=each.kind if each.discovers else session.kind,
                created_at=now,
                expires_at=now + ttl,
                successor_of=session.id,
                used_at=None,
            )
            for each in sessions
        ]
        await add_sessions(connection, stored)
    return stored


async def end_sessions(database: Database, session_id: str) -> list[str]:
    """Revoke a session and all others of the same login, and return their ids; that of an Envoy ends alone.

    Raises:
        UnauthenticatedError: there is no such session, or it ended.
    """
    async with database.transaction() as connection:
        await lock_state(connection)
        now = await read_clock(connection)
        session = await _living(connection, session_id, now)
        if session.discovers:
            ended = credentials.c.id == session.id
        else:
            ended = and_(
                credentials.c.identity == session.identity,
                credentials.c.name == session.name,
                credentials.c.login_at == moment(session.login_at),
            )
        ids = await revoke_all(connection, ended, now)
        await bump_generation(connection)
    return ids


async def prune_logins(database: Database) -> None:
    """Delete the signatures that are too old to be used again.

    Raises:
        ClocksDifferError: PostgreSQL's clock is not that of this process. If it was ahead for a moment, a signature
            that was deleted then would be good once more.
    """
    async with database.transaction() as connection:
        oldest = moment(await read_agreed_clock(connection) - _SEEN_TTL)
        old = select(logins_seen.c.signature).where(logins_seen.c.seen_at < oldest).with_for_update(skip_locked=True)
        await connection.execute(delete(logins_seen).where(logins_seen.c.signature.in_(old)))


async def _living(connection: AsyncConnection, session_id: str, now: float) -> Credential:
    """Return a session, which nobody changes until the transaction ends."""
    await connection.execute(select(credentials.c.id).where(credentials.c.id == session_id).with_for_update())
    session = await find_session(connection, session_id)
    if session is None or session.revoked_at is not None or session.expires_at <= now:
        raise UnauthenticatedError("the session has ended, or was never begun; log in")
    return session


async def _check_identity(connection: AsyncConnection, session: Credential) -> None:
    """Refuse a session whose identity was removed or means another role now; it stays as it is until the end."""
    query = select_identities().where(identities.c.name == session.identity).with_for_update(read=True)
    row = (await connection.execute(query)).one_or_none()
    identity = None if row is None else identity_of(row)
    if identity is None or not identity.means(session):
        raise UnauthenticatedError(f"the identity {session.identity} was removed, or means another role now; log in")
