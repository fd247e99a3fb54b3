"""The statements on sign-ins of people: the sessions of their browsers, and codes that begin one."""

from contextlib import suppress

from msgspec.structs import replace
from sqlalchemy import delete, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from registry.auth.credential import Credential
from registry.errors import ClocksDifferError, UnauthenticatedError
from registry.store.credentials import add_sessions
from registry.store.database import Database, read_agreed_clock, read_clock
from registry.store.rows import moment
from registry.store.tables import credentials, logins_seen, sign_in_codes


async def add_code(database: Database, digest: bytes, *, parent: str, created_by: str, ttl: float) -> float:
    """Store a code that begins a session of a token, and return when it ends by PostgreSQL's clock."""
    async with database.transaction() as connection:
        ends = await read_clock(connection) + ttl
        with suppress(ClocksDifferError):
            # As credentials are deleted; one that ended and stays does nothing.
            now = moment(await read_agreed_clock(connection))
            ended = select(sign_in_codes.c.digest).where(sign_in_codes.c.expires_at < now)
            skipping = ended.with_for_update(skip_locked=True)
            await connection.execute(delete(sign_in_codes).where(sign_in_codes.c.digest.in_(skipping)))
        row = {"digest": digest, "parent": parent, "created_by": created_by, "expires_at": moment(ends)}
        await connection.execute(insert(sign_in_codes), row)
    return ends


async def begin_session(
    database: Database, session: Credential, ttl: float, *, used: bytes | None = None
) -> Credential:
    """Store the session of a browser, and return it with PostgreSQL's times.

    Args:
        database: where sessions are.
        session: of one browser.
        ttl: seconds until it ends.
        used: the digest of a sign-in that is good once; None: there is none.

    Raises:
        UnauthenticatedError: the sign-in was used before, at any process.
    """
    async with database.transaction() as connection:
        now = await read_clock(connection)
        if used is not None:
            seen = upsert(logins_seen).values(signature=used, seen_at=moment(now)).on_conflict_do_nothing()
            if (await connection.execute(seen)).rowcount == 0:
                raise UnauthenticatedError("this sign-in was finished before; begin again")
        stored = replace(session, created_at=now, login_at=now, expires_at=now + ttl)
        await add_sessions(connection, [stored])
    return stored


async def begin_session_by_code(database: Database, code: bytes, session: Credential, ttl: float) -> Credential | None:
    """Use a code up, and store the session that it begins; None without a living code.

    Args:
        database: where codes and sessions are.
        code: the digest of the code.
        session: its id and digest; everything else is that of the code's token.
        ttl: seconds until the session ends.
    """
    async with database.transaction() as connection:
        now = await read_clock(connection)
        # Of two who bring the same code one waits here for the other, and then finds no row.
        used = delete(sign_in_codes).where(sign_in_codes.c.digest == code, sign_in_codes.c.expires_at > moment(now))
        parent = (await connection.execute(used.returning(sign_in_codes.c.parent))).scalar()
        query = select(credentials.c.name, credentials.c.kind).where(credentials.c.id == parent)
        token = None if parent is None else (await connection.execute(query)).one_or_none()
        if token is None:
            return None
        stored = replace(
            session,
            name=f"token:{token.name}",
            kind=token.kind,
            created_by=f"token:{token.name}",
            created_at=now,
            login_at=now,
            expires_at=now + ttl,
            parent=parent,
        )
        await add_sessions(connection, [stored])
    return stored
